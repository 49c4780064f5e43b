"""The compiled decoder gives what the transformer gives, for every knob it knows."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.compiled import Compiled
from conjure.models.ngram import NGram
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.linear import Linear
from conjure.nn.native.build import native
from conjure.nn.position import Rope
from conjure.nn.quantised import quantise
from conjure.nn.rope_scaling import RopeScaling
from conjure.nn.rounding import restored, rounded

BASE: dict[str, Any] = {"vocab": 97, "dim": 32, "layers": 2, "heads": 4, "hidden": 64, "rope": Rope(dim=8)}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries": {"kv_heads": 2},
    "one key head, odd widths": {"heads": 5, "kv_heads": 1, "head_dim": 12, "hidden": 50, "rope": Rope(dim=12)},
    "wide heads": {"dim": 80, "heads": 2, "head_dim": 72, "rope": Rope(dim=72)},
    "biases": {"norm": "layer", "qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "gemma": {"norm": "rms1", "placement": "sandwich", "embedding_scale": 5.7, "activation": "gelu_tanh",
              "qk_norm": True, "windows": (5, 0), "rope_local": Rope(dim=8, theta=100.0)},
    "post": {"placement": "post", "norm": "layer"},
    "post, final norm": {"placement": "post", "final_norm": True},
    "no final norm, scaled": {"final_norm": False, "logit_scale": 0.3},
    "parallel, one norm": {"parallel": "shared", "norm": "layer", "gated": False, "activation": "gelu"},
    "parallel, two norms": {"parallel": "separate", "gated": False, "activation": "quick_gelu"},
    "pairs side by side": {"rope": Rope(dim=4, interleaved=True)},
    "llama3 scaling": {"rope": Rope(dim=8, scaling=RopeScaling(kind="llama3", factor=8, original=16))},
    "learned": {"rope": None, "positions": "learned", "max_length": 64, "position_offset": 2},
    "sinusoid": {"rope": None, "positions": "sinusoid", "max_length": 64},
    "soft caps": {"attention_softcap": 3.0, "logit_softcap": 2.0},
    "alibi": {"rope": None, "alibi": "bloom", "embedding_norm": True},
    "sinks": {"sinks": True},
    "own head": {"tie": False, "head_bias": True, "logit_scale": 0.7},
    "relu2": {"activation": "relu2", "gated": False},
    "relu": {"activation": "relu"},
    "scales": {"attention_scale": 0.2, "scale_by_layer": True, "norm_affine": False, "norm": "layer"},
    "n-grams": {"ngram": NGram(rows=50, dim=8)},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of compiled code share a folder, so that it is compiled once."""
    monkeypatch.setenv("CONJURE_CACHE", str(Path(tempfile.gettempdir()) / f"conjure-native-{os.getuid()}"))


def made(**knobs: Any) -> Transformer:
    """Random weights everywhere, norms and biases too."""
    network, random = Transformer(TransformerConfig(**{**BASE, **knobs})), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            centre = 1.0 if parameter.dim() == 1 and network.config.norm != "rms1" else 0.0
            size = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(centre + size * torch.randn(parameter.shape, generator=random))
    return network.eval().requires_grad_(False)


def twin(network: Transformer, weights: Any = "fp32") -> Compiled | None:
    """The compiled network; None without a compiler, where it has to refuse with the reason."""
    if native().library is not None:
        return Compiled(copy.deepcopy(network), weights, threads=2)
    with pytest.raises(ConjureError, match="cannot run in compiled code"):
        Compiled(copy.deepcopy(network), weights)
    return None


def ids(B: int, T: int, seed: int = 0) -> Tensor:
    return torch.randint(0, BASE["vocab"], (B, T), generator=torch.Generator().manual_seed(seed))


def said(network: Any, padding: list[int]) -> list[Tensor]:
    """A padded batch: a prompt, a step, other rows, some tokens taken back, and on."""
    given = ids(3, 24)
    cache = network.cache(3, 40, padding)
    prompt = network(given[:, :17], cache=cache, last_only=False)
    real = torch.arange(17) >= torch.tensor(padding)[:, None]
    found = [prompt[real], network(given[:, 17:18], cache=cache, last_only=True)]
    cache.keep([1, 0, 1])
    found.append(network(given[[1, 0, 1], 18:21], cache=cache, last_only=True))
    cache.truncate(19)
    found.append(network(given[:, 21:24], cache=cache, last_only=False))
    assert cache.length == 22
    return found


def apart(got: list[Tensor], wanted: list[Tensor]) -> float:
    assert [x.shape for x in got] == [x.shape for x in wanted]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_float32_is_the_transformer(name: str) -> None:
    network = made(**CASES[name])
    if (compiled := twin(network)) is not None:
        for padding in ([0, 0, 0], [0, 4, 2]):
            assert apart(said(compiled, padding), said(network, padding)) <= 1e-5


@pytest.mark.parametrize(("weights", "bound"), [("bf16", 0.02), ("int8", 0.06), ("int4", 0.06)])
@pytest.mark.parametrize("name", ["plain", "biases", "gemma", "own head"])
@torch.inference_mode()
def test_small_weights_are_those_of_the_rounded_transformer(name: str, weights: Any, bound: float) -> None:
    network = made(**CASES[name])
    compiled = twin(network, weights)
    assert network.embed is not None
    for module in [*network.modules()]:
        if isinstance(module, Linear) or module is network.embed:
            weight = module.weight
            module.weight.data = weight.bfloat16().float() if weights == "bf16" else restored(*rounded(weight, weights))
    if compiled is not None:  # what is left is the rounding of activations
        assert apart(said(compiled, [0, 4, 2]), said(network, [0, 4, 2])) <= bound


@torch.inference_mode()
def test_networks_that_are_quantised_already() -> None:
    for weights in ("int8", "int4"):
        network = made(tie=False)
        compiled_before = twin(network, weights)
        small = quantise(copy.deepcopy(network), weights, embeddings=weights)
        assert isinstance(small, Transformer)
        if compiled_before is not None:
            again = Compiled(small, weights, threads=2)
            for a, b in zip(said(compiled_before, [0, 4, 2]), said(again, [0, 4, 2]), strict=True):
                assert torch.equal(a, b)


@torch.inference_mode()
def test_greedy_decoding_and_long_prompts() -> None:
    network = made(kv_heads=2)
    if (compiled := twin(network)) is None:
        return
    for B, T in ((1, 300), (3, 60)):
        found = []
        for each in (network, compiled):
            cache, tokens = each.cache(B, T + 20), []
            last = each(ids(B, T), cache=cache, last_only=True)[:, -1].argmax(-1)
            for _ in range(20):
                tokens.append(last)
                last = each(last[:, None], cache=cache, last_only=True)[:, -1].argmax(-1)
            found.append(torch.stack(tokens))
        assert torch.equal(*found)
    whole = [each(ids(1, 300), cache=each.cache(1, 300), last_only=False) for each in (compiled, network)]
    assert apart([whole[0]], [whole[1]]) <= 1e-5


@torch.inference_mode()
def test_a_row_alone_and_in_a_batch() -> None:
    if (compiled := twin(made(), "int8")) is None:
        return
    given = ids(5, 9)
    together = compiled(given, cache=compiled.cache(5, 9), last_only=True)
    for row in range(5):
        own = compiled(given[row : row + 1], cache=compiled.cache(1, 9), last_only=True)
        assert apart([own[0]], [together[row]]) <= 1e-5


@torch.inference_mode()
def test_the_state_of_a_cache_goes_into_another() -> None:
    for name in ("plain", "n-grams"):
        if (compiled := twin(made(**CASES[name]), "bf16")) is None:
            return
        first = compiled.cache(2, 40, [0, 3])
        compiled(ids(2, 19), cache=first, last_only=True)
        second = compiled.cache(2, 64)
        second.restore({name: tensor.clone() for name, tensor in first.state().items()})
        after = [compiled(ids(2, 3, seed=1), cache=cache, last_only=True) for cache in (first, second)]
        assert torch.equal(*after)
        with pytest.raises(ConjureError, match="holds 16"):
            compiled.cache(2, 16).restore(first.state())
        with pytest.raises(ConjureError, match="another way"):
            compiled.cache(2, 40).restore({"length": torch.tensor(3), "padding": torch.tensor([0, 0])})


def test_what_it_cannot_do_is_said() -> None:
    refused = {
        "causal": {"causal": False}, "residual_from_norm": {"residual_from_norm": True}, "types": {"types": 2},
        "clamped_swish": {"activation": "clamped_swish"}, "positions": {"rope": None, "alibi": "falcon"},
        "longrope": {"rope": Rope(dim=2, scaling=RopeScaling(kind="longrope", original=9, short=(1.0,), long=(2.0,)))},
    }  # fmt: skip
    for word, knobs in refused.items():
        config = TransformerConfig(**{**BASE, **knobs})
        assert word in Compiled.supports(config)
    with pytest.raises(ConjureError, match="types"):
        Compiled(Transformer(TransformerConfig(**{**BASE, "types": 2})))
    assert Compiled.supports(TransformerConfig(**BASE)) == native().reason


def test_it_is_not_there_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_NATIVE", "0")
    assert "CONJURE_NATIVE" in Compiled.supports(TransformerConfig(**BASE))
    with pytest.raises(ConjureError, match="CONJURE_NATIVE"):
        Compiled(made())


@torch.inference_mode()
def test_bad_calls_are_refused() -> None:
    if (compiled := twin(made(rope=None, positions="learned", max_length=8))) is None:
        return
    with pytest.raises(ConjureError, match="the cache holds 4"):
        compiled(ids(1, 5), cache=compiled.cache(1, 4), last_only=True)
    with pytest.raises(ConjureError, match="at most 8"):
        compiled(ids(1, 9), cache=compiled.cache(1, 20), last_only=True)
    for wrong in (-1, 97):
        with pytest.raises(ConjureError, match="expected 0 to 96"):
            compiled(torch.tensor([[3, wrong]]), cache=compiled.cache(1, 4), last_only=True)


@torch.inference_mode()
def test_parts_can_be_filled_as_they_are_needed() -> None:
    network, asked = made(tie=False), []
    if native().library is not None:
        compiled = Compiled(copy.deepcopy(network), fill=asked.append)
        assert asked == ["blocks.0", "blocks.1", "embed", "head"]
        assert apart(said(compiled, [0, 4, 2]), said(network, [0, 4, 2])) <= 1e-5
