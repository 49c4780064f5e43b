"""The transformer against public implementations, against itself with a cache, and against formulas.

References are tiny and random: every parameter is drawn anew, since the default ones and zeros would hide faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal, rng
from conjure.models.ngram import NGram
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cross_entropy import IGNORED
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.position import Rope

TINY = TransformerConfig(
    vocab=50, dim=32, layers=3, heads=4, kv_heads=2, hidden=40, qk_norm=True, rope=Rope(dim=8),
    ngram=NGram(rows=97, dim=8, orders=(2, 3)),
)  # fmt: skip
VARIANTS = {
    "story": TINY,
    "gpt2": TransformerConfig(
        vocab=50, dim=32, layers=2, heads=4, hidden=48, activation="gelu_tanh", gated=False, norm="layer",
        qkv_bias=True, out_bias=True, mlp_bias=True, positions="learned", max_length=24,
    ),
    "gemma2": replace(
        TINY, norm="rms1", placement="sandwich", embedding_scale=32**0.5, attention_softcap=2.0, logit_softcap=3.0,
        windows=(4, 0, 4), head_dim=16, rope=Rope(dim=16),
    ),
    "neox": replace(TINY, norm="layer", parallel="separate", gated=False, tie=False, rope=Rope(dim=2)),
    "gptj": replace(TINY, norm="layer", parallel="shared", tie=False, rope=Rope(dim=4, interleaved=True)),
    "post": replace(TINY, placement="post"),
    "four_grams": replace(TINY, ngram=NGram(rows=31, dim=4, orders=(4, 2))),
}  # fmt: skip


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def randomised(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal([i], parameter.shape)[0] + (parameter.ndim == 1))
    return network.eval().requires_grad_(False)


def built(config: TransformerConfig) -> Transformer:
    network = randomised(Transformer(config))
    assert isinstance(network, Transformer)
    return network


def tokens(rows: int, length: int, vocab: int = 50, seed: int = 0) -> Tensor:
    return torch.from_numpy(rng(seed).integers(0, vocab, (rows, length)))


# ---------------------------------------------------------------- against public implementations


def llama_names(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Their names and separate matrices to ours."""
    ours = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    ours["head.weight"] = "lm_head.weight"
    single = {
        "attention.out": "self_attn.o_proj", "feedforward.down": "mlp.down_proj", "norm_attention": "input_layernorm",
        "norm_feedforward": "post_attention_layernorm", "attention.norm_q": "self_attn.q_norm",
        "attention.norm_k": "self_attn.k_norm",
    }  # fmt: skip
    joint = {
        "attention.qkv": [f"self_attn.{p}_proj" for p in "qkv"], "feedforward.up": ["mlp.gate_proj", "mlp.up_proj"]
    }  # fmt: skip
    found = {mine: state[theirs] for mine, theirs in ours.items()}
    for i in range(layers):
        for kind in ("weight", "bias"):
            for mine, theirs in {**{k: [v] for k, v in single.items()}, **joint}.items():
                names = [f"model.layers.{i}.{each}.{kind}" for each in theirs]
                if names[0] in state:
                    found[f"blocks.{i}.{mine}.{kind}"] = torch.cat([state[name] for name in names])
    return found


COMMON = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False, "attn_implementation": "eager",
}  # fmt: skip


def test_llama() -> None:
    reference = randomised(LlamaForCausalLM(LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True)))
    config = TransformerConfig(
        vocab=50, dim=32, layers=3, heads=4, kv_heads=2, hidden=48, rope=Rope(dim=8), tie=False,
        qkv_bias=True, out_bias=True, mlp_bias=True,
    )  # fmt: skip
    network = Transformer(config)
    network.load_state_dict(llama_names(reference.state_dict(), 3), strict=True)
    ids = tokens(2, 13)
    close(network(ids), reference(ids).logits)


def test_qwen3() -> None:
    reference = randomised(Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16, rope_theta=500.0)))
    theta = reference.config.rope_parameters["rope_theta"]  # newer versions move it there
    config = TransformerConfig(
        vocab=50, dim=32, layers=3, heads=4, kv_heads=2, head_dim=16, hidden=48, qk_norm=True, tie=False,
        rope=Rope(dim=16, theta=theta),
    )  # fmt: skip
    network = Transformer(config)
    network.load_state_dict(llama_names(reference.state_dict(), 3), strict=True)
    ids = tokens(2, 13)
    close(network(ids), reference(ids).logits)
    positions = torch.arange(5, 18)
    close(network(ids, positions=positions), reference(ids, position_ids=positions[None]).logits)


def test_gpt2() -> None:
    shape = {"vocab_size": 50, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}
    shape |= {"bos_token_id": 1, "eos_token_id": 2}
    reference = randomised(GPT2LMHeadModel(GPT2Config(**shape, attn_implementation="eager")))
    state = reference.state_dict()
    ours = {"embed.weight": state["transformer.wte.weight"], "place.weight": state["transformer.wpe.weight"]}
    pairs = {
        "norm_attention": "ln_1", "norm_feedforward": "ln_2", "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj", "feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj",
    }  # fmt: skip
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = state[f"transformer.ln_f.{kind}"]
        for i in range(2):
            for mine, theirs in pairs.items():
                tensor = state[f"transformer.h.{i}.{theirs}.{kind}"]
                ours[f"blocks.{i}.{mine}.{kind}"] = tensor.mT if tensor.ndim == 2 else tensor  # stored (in, out)
    network = Transformer(replace(VARIANTS["gpt2"], norm_eps=1e-5))
    network.load_state_dict(ours, strict=True)
    ids = tokens(2, 13)
    close(network(ids), reference(ids).logits)


# ---------------------------------------------------------------- against a plain reading of the config


def formula(network: Transformer, ids: Tensor) -> Tensor:
    """Logits of one row, with every step written out: no fused kernel, no shared code but the layers' weights."""
    c, x = network.config, network.embed.weight[ids] * network.config.embedding_scale
    T = len(ids)
    if network.ngram is not None:
        x = x + network.ngram(ids[None])[0]
    if network.place is not None:
        x = x + network.place.weight[:T]

    def norm(layer: nn.Module, x: Tensor) -> Tensor:
        if isinstance(layer, LayerNorm):
            return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, c.norm_eps)
        assert isinstance(layer, RMSNorm) and layer.weight is not None
        unscaled = x / (x.square().mean(-1, keepdim=True) + c.norm_eps).sqrt()
        return unscaled * (layer.weight + (1 if c.norm == "rms1" else 0))

    def attention(layer: nn.Module, x: Tensor, window: int) -> Tensor:
        q, k, v = layer.qkv(x).split([c.heads * c.width, c.key_heads * c.width, c.key_heads * c.width], -1)
        heads = []
        for h in range(c.heads):
            own = h * c.key_heads // c.heads
            q_h, k_h, v_h = q[:, h * c.width :], k[:, own * c.width :], v[:, own * c.width :]
            q_h, k_h, v_h = q_h[:, : c.width], k_h[:, : c.width], v_h[:, : c.width]
            if c.qk_norm:
                q_h, k_h = norm(layer.norm_q, q_h), norm(layer.norm_k, k_h)
            if c.rope:
                q_h, k_h = turned(q_h), turned(k_h)
            s = q_h @ k_h.T * c.width**-0.5
            if c.attention_softcap:
                s = c.attention_softcap * torch.tanh(s / c.attention_softcap)
            back = torch.arange(T)[:, None] - torch.arange(T)
            seen = (back >= 0) & (back < (window or T))
            heads.append(s.masked_fill(~seen, -torch.inf).softmax(-1) @ v_h)
        return layer.out(torch.cat(heads, -1))

    def turned(x: Tensor) -> Tensor:
        assert c.rope is not None
        out = x.clone()
        for pair in range(c.rope.dim // 2):
            a, b = (2 * pair, 2 * pair + 1) if c.rope.interleaved else (pair, pair + c.rope.dim // 2)
            angle = torch.arange(T) * c.rope.theta ** (-2 * pair / c.rope.dim)
            out[:, a] = x[:, a] * angle.cos() - x[:, b] * angle.sin()
            out[:, b] = x[:, a] * angle.sin() + x[:, b] * angle.cos()
        return out

    for i, block in enumerate(network.blocks):
        window = c.windows[i] if c.windows else 0
        n1, n2 = block.norm_attention, block.norm_feedforward
        if c.parallel == "shared":
            x = x + attention(block.attention, norm(n1, x), window) + block.feedforward(norm(n1, x))
        elif c.parallel == "separate":
            x = x + attention(block.attention, norm(n1, x), window) + block.feedforward(norm(n2, x))
        elif c.placement == "post":
            x = norm(n1, x + attention(block.attention, x, window))
            x = norm(n2, x + block.feedforward(x))
        elif c.placement == "sandwich":
            x = x + norm(block.norm_attention_out, attention(block.attention, norm(n1, x), window))
            x = x + norm(block.norm_feedforward_out, block.feedforward(norm(n2, x)))
        else:
            x = x + attention(block.attention, norm(n1, x), window)
            x = x + block.feedforward(norm(n2, x))
    x = x if network.norm is None else norm(network.norm, x)
    logits = x @ (network.embed.weight if c.tie else network.head.weight).T
    return c.logit_softcap * torch.tanh(logits / c.logit_softcap) if c.logit_softcap else logits


@pytest.mark.parametrize("name", VARIANTS)
def test_formula(name: str) -> None:
    network, ids = built(VARIANTS[name]), tokens(2, 11)
    close(network(ids), torch.stack([formula(network, row) for row in ids]))


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_decoding_is_uncached_decoding(name: str) -> None:
    network, ids = built(VARIANTS[name]), tokens(2, 14)
    wanted = network(ids)
    cache = network.cache(2, 14)
    parts = [network(ids[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, 10), (10, 14))]
    close(torch.cat(parts, 1), wanted)
    cache = network.cache(2, 20)
    close(network(ids, cache=cache, last_only=True), wanted[:, -1:])


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_padded_on_the_left_are_as_alone(name: str) -> None:
    network, lengths = built(VARIANTS[name]), [6, 3, 1]
    rows = [tokens(1, n + 4, seed=n) for n in lengths]
    ids = torch.cat([F.pad(row[:, :n], (6 - n, 0)) for row, n in zip(rows, lengths, strict=True)])
    cache = network.cache(3, 10, padding=[6 - n for n in lengths])
    got = [network(ids, cache=cache, last_only=True)]
    for step in range(3):
        following = torch.cat([row[:, n + step : n + step + 1] for row, n in zip(rows, lengths, strict=True)])
        got += [network(following, cache=cache)]
    for b, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        close(torch.cat([part[b] for part in got]), network(row)[0, n - 1 : n + 3])


def test_kept_rows_go_on_as_they_were() -> None:
    network, ids = built(TINY), tokens(3, 9)
    cache = network.cache(3, 9, padding=[0, 0, 0])
    network(ids[:, :6], cache=cache)
    cache.keep([2, 0])
    close(network(ids[[2, 0], 6:], cache=cache), network(ids)[[2, 0], 6:])


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_documents_are_separate_documents(name: str) -> None:
    network, ids = built(VARIANTS[name]), tokens(2, 12)
    documents = torch.tensor([[0] * 5 + [1] * 1 + [2] * 6, [4] * 7 + [5] * 5])
    got = network(ids, documents=documents)
    for row, cuts in ((0, (0, 5, 6, 12)), (1, (0, 7, 12))):
        for a, b in pairwise(cuts):
            close(got[row, a:b], network(ids[row : row + 1, a:b])[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_later_token_never_changes_an_earlier_logit(name: str) -> None:
    network, ids = built(VARIANTS[name]), tokens(1, 10)
    before = network(ids)
    for t in range(1, 10):
        other = ids.clone()
        other[0, t] = (other[0, t] + 1) % 50
        after = network(other)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t:], before[:, t:])


def test_a_window_hides_what_is_further_back() -> None:
    """With one layer and a window of 4, the logits at t depend on tokens t - 3 to t and on nothing before."""
    network = built(replace(TINY, layers=1, windows=(4,), ngram=None))
    ids = tokens(1, 10)
    before = network(ids)[0, 7]
    for t in range(8):
        other = ids.clone()
        other[0, t] = (other[0, t] + 1) % 50
        assert torch.equal(network(other)[0, 7], before) == (t < 4)


@pytest.mark.parametrize("name", ["story", "gemma2", "neox"])
def test_loss_and_its_gradients_are_those_of_the_logits(name: str) -> None:
    network, ids, targets = built(VARIANTS[name]).requires_grad_(), tokens(2, 9), tokens(2, 9, seed=1)
    targets[0, :4] = IGNORED
    wanted = F.cross_entropy(network(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    got = network(ids, targets=targets)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=0)
    parameters = list(network.parameters())
    mine = torch.autograd.grad(got, parameters)
    theirs = torch.autograd.grad(wanted, parameters)
    largest = max(g.abs().max() for g in theirs)
    assert all((a - b).abs().max() <= 1e-5 * largest for a, b in zip(mine, theirs, strict=True))


def test_bfloat16_activations() -> None:
    network, ids = built(TINY), tokens(2, 9)
    wanted = network(ids)
    network.compute_dtype = torch.bfloat16
    got = network(ids)
    assert got.dtype == torch.float32 and not torch.equal(got, wanted)
    assert (got - wanted).abs().max() < 0.1 * wanted.abs().max()
    cache = network.cache(2, 9)
    close(torch.cat([network(ids[:, :5], cache=cache), network(ids[:, 5:], cache=cache)], 1)[:, -1], got[:, -1])


# ---------------------------------------------------------------- sizes, beginnings, errors


def test_parameters_of_the_story_recipe() -> None:
    with torch.device("meta"):
        network = Transformer(
            TransformerConfig(dim=192, heads=3, qk_norm=True, rope=Rope(dim=64), ngram=NGram(rows=49152, dim=64))
        )
    embedding, tables, project = 8192 * 192, 2 * 49152 * 64, 128 * 192
    block = 4 * 192**2 + 3 * 192 * 512 + 2 * 192 + 2 * 64
    assert sum(p.numel() for p in network.parameters()) == embedding + tables + project + 6 * block + 192


def test_flops_count_two_per_weight_and_the_causal_half_of_attention() -> None:
    config = TransformerConfig(vocab=50, dim=32, layers=2, heads=4, hidden=40, windows=(0, 4))
    matrices = 2 * (4 * 32**2 + 3 * 32 * 40) + 50 * 32
    pairs = 10 * 10 / 2 + (4 * 4 / 2 + 6 * 4)  # of query and key, in the full and in the narrow layer
    wanted = 3 * (10 * 2 * matrices + pairs * 2 * 2 * 32)
    assert Transformer(config).flops(3, 10) == pytest.approx(wanted)


def test_a_new_network_begins_as_its_embedding() -> None:
    """What writes into the residual stream starts at zero."""
    network = Transformer(replace(TINY, ngram=None))
    ids = tokens(1, 6)
    assert network.norm is not None
    close(network.hidden(ids), network.norm(network.embed(ids)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 30}, "heads to divide dim"),
        ({"kv_heads": 3}, "kv_heads to divide heads"),
        ({"positions": "learned"}, "max_length"),
        ({"max_length": 8}, "max_length"),
        ({"windows": (1, 2)}, "expected 3 numbers, got 2"),
        ({"parallel": "shared", "placement": "post"}, "placement pre"),
        ({"rope": Rope(dim=10)}, "at most the head width 8"),
    ],
)
def test_a_config_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_more_tokens_than_learned_positions() -> None:
    network = built(VARIANTS["gpt2"])
    with pytest.raises(ConjureError, match="at most 24 tokens, got 25"):
        network(tokens(1, 25))
    cache = network.cache(1, 30)
    network(tokens(1, 24), cache=cache)
    with pytest.raises(ConjureError, match="at most 24 tokens, got 25"):
        network(tokens(1, 1), cache=cache)


@pytest.mark.parametrize("name", ["story", "gemma2"])
def test_a_cache_of_eight_bits_changes_little_and_keeps_its_rows(name: str) -> None:
    network = built(VARIANTS[name])
    ids = torch.randint(0, 50, (2, 14), generator=torch.Generator().manual_seed(5))
    wanted = network(ids)
    network.int8_cache = True
    cache = network.cache(2, 20)
    got = torch.cat([network(ids[:, i : i + 1], cache=cache, last_only=True) for i in range(14)], dim=1)
    assert cache.keys[0].dtype == torch.int8
    error = (got - wanted).abs().max() / wanted.abs().max()
    assert 0 < error <= 0.08
    cache.truncate(13)
    cache.keep([1, 0])
    again = network(ids.flip(0)[:, 13:], cache=cache, last_only=True)
    assert (again - got.flip(0)[:, 13:]).abs().max() <= 1e-4 * wanted.abs().max()
    copy = network.cache(2, 20)
    copy.restore(cache.state())
    follow = torch.tensor([[3], [4]])
    assert torch.equal(network(follow, cache=copy, last_only=True), network(follow, cache=cache, last_only=True))
