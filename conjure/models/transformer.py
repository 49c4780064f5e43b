"""The transformer: one stack of layers whose knobs cover the public families, as decoder or as encoder.

Pre-, post- and sandwich norms, parallel residuals, grouped queries, latent attention, experts, rotary, learned, fixed
and relative positions, sliding windows, soft caps, attention across to another stack, and hashed n-gram embeddings.
Weights are float32 unless loaded otherwise; activations have the type `compute_dtype`.

Legend: B rows, T tokens, S keys, M tokens of the other stack, D width, H query heads, K key-value heads, C head width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.ngram import NGram, NGramEmbedding
from conjure.nn.attention import attend, causal_mask
from conjure.nn.cache import Cache
from conjure.nn.cross_entropy import linear_cross_entropy
from conjure.nn.disentangled import ConvolutionBranch, Disentangled, DisentangledAttention, RelativeTable
from conjure.nn.experts import ExpertLayer, Experts
from conjure.nn.feedforward import Activation, FeedForward
from conjure.nn.latent import Latent, LatentAttention
from conjure.nn.linear import Linear, embedding
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.position import Rope, rope_tables, rotate, sinusoid_table
from conjure.nn.quantised import project
from conjure.nn.relative import Relative, RelativeBias, alibi


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of a stack. Bias, norm and position knobs are named as in the papers of the families they serve."""

    vocab: int = 8192
    """0: no embedding and no head; what comes in are vectors."""
    dim: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int | None = None
    """Heads of keys and values; null is `heads`. Fewer is grouped-query attention."""
    head_dim: int | None = None
    """Width of a head; null is dim / heads."""
    hidden: int | None = None
    """Width of the feed-forward layer; null is 4 dim, or 8/3 dim rounded up to 32 where gated."""
    causal: bool = True
    """False: every token sees all, as in encoders."""
    cross: bool = False
    """Layers also attend to the output of another stack."""
    activation: Activation = "silu"
    gated: bool = True
    norm: Literal["rms", "layer", "rms1"] = "rms"
    """rms1 multiplies by 1 + weight."""
    norm_eps: float = 1e-6
    norm_affine: bool = True
    placement: Literal["pre", "post", "sandwich"] = "pre"
    """x + f(norm x), norm(x + f x), or x + norm(f(norm x))."""
    final_norm: bool | None = None
    """A norm after the last layer; null: unless placement is post."""
    parallel: Literal["none", "shared", "separate"] = "none"
    """Attention and feed-forward side by side on the same input: x + a(n x) + f(n x), or with a norm each."""
    residual_from_norm: bool = False
    """norm x + f(norm x), an option of BLOOM."""
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised per head, before rotation."""
    rope: Rope | None = None
    rope_local: Rope | None = None
    """Of the layers with a window, where it differs."""
    positions: Literal["none", "learned", "sinusoid", "sinusoid_spaced"] = "none"
    """Added to the embedding; the sinusoids are those of Marian and of M2M100, which no file holds."""
    positions_from: Literal["order", "mask", "ids"] = "order"
    """Counted from the first token; from the first that the mask lets pass (OPT); or from the first id that is not
    `pad` (RoBERTa)."""
    position_offset: int = 0
    """Unused rows in front of the table, which are not part of `max_length`."""
    pad: int = 0
    max_length: int = 0
    """Tokens that the table of positions holds; 0 where positions have no end."""
    alibi: Literal["none", "bloom", "falcon"] = "none"
    """Linear biases; falcon divides them by the root of the head width and computes them in bfloat16."""
    relative: Relative | None = None
    disentangled: Disentangled | None = None
    windows: tuple[int, ...] = ()
    """Tokens that each layer sees back, itself included; 0 is all. Empty: all layers see all."""
    attention_scale: float | None = None
    """Null is head_dim^-0.5."""
    scale_by_layer: bool = False
    """The scale of layer i is divided by i + 1."""
    sinks: bool = False
    latent: Latent | None = None
    experts: Experts | None = None
    expert_layers: tuple[int, ...] = ()
    """Layers whose feed-forward part is `experts`; empty: all, where there are experts."""
    bottleneck: int = 0
    """Width of an adapter after each layer (MMS); 0: none."""
    types: int = 0
    """Kinds of tokens that have an embedding (BERT: first and second text)."""
    embedding_dim: int | None = None
    """Width of the embedding, where matrices without bias lead from it to `dim` and back."""
    embedding_scale: float = 1.0
    embedding_norm: bool = False
    tie: bool = True
    """The output matrix is the embedding."""
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    attention_softcap: float = 0.0
    ngram: NGram | None = None

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ConjureError(f"model.{name}: expected above 0, got {getattr(self, name)}")
        if self.head_dim is None and self.dim % self.heads:
            raise ConjureError(f"model: expected heads to divide dim, got {self.dim} / {self.heads}")
        if self.key_heads < 1 or self.heads % self.key_heads:
            raise ConjureError(f"model: expected kv_heads to divide heads, got {self.heads} / {self.key_heads}")
        if (self.positions != "none") != (self.max_length > 0):
            raise ConjureError("model.max_length: expected above 0 with a table of positions, and 0 without")
        if self.windows and len(self.windows) != self.layers:
            raise ConjureError(f"model.windows: expected {self.layers} numbers, got {len(self.windows)}")
        if self.parallel != "none" and self.placement != "pre":
            raise ConjureError(f"model.parallel: expected placement pre, got {self.placement}")
        for rope in (self.rope, self.rope_local):
            if rope is not None and rope.dim > (self.latent.rotated if self.latent else self.width):
                raise ConjureError(f"model.rope.dim: expected at most the head width {self.width}, got {rope.dim}")

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def width(self) -> int:
        """Of a head."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    def scale(self, layer: int) -> float:
        """What scores of this layer are multiplied by."""
        scale = self.width**-0.5 if self.attention_scale is None else self.attention_scale
        return scale / (layer + 1) if self.scale_by_layer else scale

    @property
    def feedforward(self) -> int:
        if self.hidden is not None:
            return self.hidden
        return -(-8 * self.dim // 96) * 32 if self.gated else 4 * self.dim


@dataclass(frozen=True)
class Context:
    """What every layer of one forward pass shares."""

    turns: dict[bool, tuple[Tensor, Tensor] | None]
    """Has the layer a window -> cos and sin of the rotation."""
    masks: dict[int, Tensor | None]
    """window -> which keys each query may see; None is the plain causal triangle, or everything in an encoder."""
    bias: Tensor | None
    """Added to the scores of all layers."""
    cache: Cache | None
    memory: Tensor | None
    """The output of the other stack `[B, M, D]`."""
    memory_mask: Tensor | None


def make_norm(config: TransformerConfig, dim: int) -> RMSNorm | LayerNorm:
    if config.norm == "layer":
        return LayerNorm(dim, config.norm_eps, config.norm_affine)
    return RMSNorm(dim, config.norm_eps, config.norm_affine, plus_one=config.norm == "rms1")


def masked(bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Both as one mask for `attend`."""
    if bias is None or mask is None:
        return mask if bias is None else bias
    return bias.masked_fill(~mask, -torch.inf)


class Attention(nn.Module):
    """Self-attention; queries, keys and values are one matrix `qkv` [(H + 2K) C, D] in that order."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        self.window = config.windows[layer] if config.windows else 0
        self.scale = config.scale(layer)
        self.sizes = [config.heads * config.width, *[config.key_heads * config.width] * 2]
        self.qkv = Linear(config.dim, sum(self.sizes), bias=config.qkv_bias)
        self.out = Linear(self.sizes[0], config.dim, bias=config.out_bias)
        self.norm_q = make_norm(config, config.width) if config.qk_norm else None
        self.norm_k = make_norm(config, config.width) if config.qk_norm else None
        self.sinks = nn.Parameter(torch.zeros(config.heads)) if config.sinks else None
        own = config.relative is not None and config.relative.per_layer
        self.relative = RelativeBias(config.relative, config.heads) if own and config.relative else None

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        B, T, _ = x_BTD.shape
        q, k, v = (part.view(B, T, -1, self.config.width) for part in self.qkv(x_BTD).split(self.sizes, dim=-1))
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        q_BHTC, k_BKSC, v_BKSC = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        turn = context.turns[self.window > 0]
        if turn is not None and self.config.rope is not None:
            q_BHTC = rotate(q_BHTC, *turn, self.config.rope.interleaved)
            k_BKSC = rotate(k_BKSC, *turn, self.config.rope.interleaved)
        if context.cache is not None:
            k_BKSC, v_BKSC = context.cache.append(self.layer, k_BKSC, v_BKSC)
        mask, bias = context.masks[self.window], context.bias
        causal = mask is None and self.config.causal
        if self.relative is not None:
            bias = self.relative(T, k_BKSC.shape[2])
        if bias is not None:
            mask = causal_mask(T, k_BKSC.shape[2], x_BTD.device) if causal else mask
            mask, causal = masked(bias.to(q_BHTC.dtype), mask), False
        out_BHTC = attend(
            q_BHTC, k_BKSC, v_BKSC, mask=mask, causal=causal, scale=self.scale,
            softcap=self.config.attention_softcap, sinks=self.sinks,
        )  # fmt: skip
        return self.out(out_BHTC.transpose(1, 2).reshape(B, T, -1))


class CrossAttention(nn.Module):
    """Queries from this stack, keys and values (one matrix) from the output of the other one."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.config, self.scale = layer, config, config.scale(layer)
        width = config.heads * config.width
        self.q = Linear(config.dim, width, bias=config.qkv_bias)
        self.kv = Linear(config.dim, 2 * width, bias=config.qkv_bias)
        self.out = Linear(width, config.dim, bias=config.out_bias)

    def read(self, memory_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each `[B, H, M, C]`."""
        both = self.kv(memory_BMD).unflatten(-1, (2, self.config.heads, self.config.width))
        return both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        if context.cache is not None and context.cache.memory:
            k, v = context.cache.memory[self.layer]
        else:
            assert context.memory is not None, "a stack that attends across needs `memory`"
            k, v = self.read(context.memory)
        q_BHTC = self.q(x_BTD).unflatten(-1, (self.config.heads, self.config.width)).transpose(1, 2)
        out_BHTC = attend(q_BHTC, k, v, mask=context.memory_mask, scale=self.scale)
        return self.out(out_BHTC.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward around the residual stream."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.placement, self.parallel = config.placement, config.parallel
        self.attention = self._attention(config, layer)
        if config.experts is not None and layer in (config.expert_layers or range(config.layers)):
            self.feedforward = ExpertLayer(
                config.experts, config.dim, activation=config.activation, gated=config.gated
            )
        else:
            self.feedforward = FeedForward(
                config.dim, config.feedforward, activation=config.activation, gated=config.gated, bias=config.mlp_bias
            )
        sandwich = config.placement == "sandwich"
        self.norm_attention = make_norm(config, config.dim)
        self.norm_feedforward = None if config.parallel == "shared" else make_norm(config, config.dim)
        self.norm_attention_out = make_norm(config, config.dim) if sandwich else None
        self.norm_feedforward_out = make_norm(config, config.dim) if sandwich else None
        self.cross = CrossAttention(config, layer) if config.cross else None
        self.norm_cross = make_norm(config, config.dim) if config.cross else None
        self.adapter = Adapter(config) if config.bottleneck else None

    @staticmethod
    def _attention(config: TransformerConfig, layer: int) -> nn.Module:
        if config.disentangled is not None:
            return DisentangledAttention(config.disentangled, config.dim, config.heads)
        if config.latent is not None:
            assert config.rope is not None, "latent attention has rotary positions"
            return LatentAttention(
                config.latent, config.dim, config.heads, layer=layer, bias=config.qkv_bias,
                interleaved=config.rope.interleaved, scale=config.attention_scale,
            )  # fmt: skip
        return Attention(config, layer)

    def attend(self, x_BTD: Tensor, context: Context) -> Tensor:
        if isinstance(self.attention, LatentAttention):
            turn = context.turns[False]
            assert turn is not None
            return self.attention(x_BTD, turn, context.masks[0], context.cache)
        if isinstance(self.attention, DisentangledAttention):
            return self.attention(x_BTD, context.bias, context.masks[0])
        return self.attention(x_BTD, context)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        if self.norm_feedforward is None:
            h_BTD = self.norm_attention(x_BTD)
            return x_BTD + self.attend(h_BTD, context) + self.feedforward(h_BTD)
        if self.parallel == "separate":
            attended_BTD = self.attend(self.norm_attention(x_BTD), context)
            return x_BTD + attended_BTD + self.feedforward(self.norm_feedforward(x_BTD))
        if self.placement == "post":
            x_BTD = self.norm_attention(x_BTD + self.attend(x_BTD, context))
            if self.cross is not None and self.norm_cross is not None:
                x_BTD = self.norm_cross(x_BTD + self.cross(x_BTD, context))
            return self.norm_feedforward(x_BTD + self.feedforward(x_BTD))
        n_BTD = self.norm_attention(x_BTD)
        h_BTD = self.attend(n_BTD, context)
        x_BTD = n_BTD if self.config.residual_from_norm else x_BTD
        x_BTD = x_BTD + (h_BTD if self.norm_attention_out is None else self.norm_attention_out(h_BTD))
        if self.cross is not None and self.norm_cross is not None:
            x_BTD = x_BTD + self.cross(self.norm_cross(x_BTD), context)
        n_BTD = self.norm_feedforward(x_BTD)
        h_BTD = self.feedforward(n_BTD)
        x_BTD = n_BTD if self.config.residual_from_norm else x_BTD
        x_BTD = x_BTD + (h_BTD if self.norm_feedforward_out is None else self.norm_feedforward_out(h_BTD))
        return x_BTD if self.adapter is None else x_BTD + self.adapter(x_BTD)


class Adapter(nn.Module):
    """A narrow layer per language that leaves the rest of the network alone (Houlsby et al. 2019, arXiv 1902.00751)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = make_norm(config, config.dim)
        self.down = Linear(config.dim, config.bottleneck)
        self.up = Linear(config.bottleneck, config.dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.up(F.relu(self.down(self.norm(x_BTD))))


class Transformer(nn.Module):
    """A stack with its embedding and head. Weights start from the global generator: seed it (`torch.random.fork_rng`)
    when training."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.compute_dtype = torch.float32
        self.int8_cache = False
        """Keys and values of decoding are held in eight bits: a quarter of the memory, for long texts."""
        inner = c.embedding_dim or c.dim
        self.embed = embedding(c.vocab, inner) if c.vocab else None
        self.project_in = Linear(inner, c.dim, bias=False) if c.embedding_dim else None
        self.project_out = Linear(c.dim, inner, bias=False) if c.embedding_dim else None
        self.ngram = NGramEmbedding(c.ngram, c.vocab, c.dim) if c.ngram else None
        self.kind = embedding(c.types, c.dim) if c.types else None
        self.place = embedding(c.max_length + c.position_offset, c.dim) if c.positions == "learned" else None
        self.norm_embedding = make_norm(c, c.dim) if c.embedding_norm else None
        self.relative = RelativeBias(c.relative, c.heads) if c.relative and not c.relative.per_layer else None
        self.distances = RelativeTable(c.disentangled, c.dim, c.norm_eps) if c.disentangled else None
        convolved = c.disentangled if c.disentangled is not None and c.disentangled.convolution else None
        self.convolution = ConvolutionBranch(convolved, c.dim, c.norm_eps) if convolved else None
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.layers))
        final = c.placement != "post" if c.final_norm is None else c.final_norm
        self.norm = make_norm(c, c.dim) if final else None
        self.head = None if c.tie or not c.vocab else Linear(inner, c.vocab, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(c.vocab)) if c.head_bias else None
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Normal 0.02 for embeddings, 1/sqrt(fan-in) for matrices; what writes into the residual stream starts at 0,
        so every block begins as the identity (Zhang et al. 2019, arXiv 1901.09321)."""
        if any(parameter.is_meta for parameter in self.parameters()):
            return  # a file will fill it
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, 0.02)
            elif isinstance(module, Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for block in self.blocks:
            assert isinstance(block, Block)
            for name, module in block.named_modules():
                if isinstance(module, Linear) and name.split(".")[-1] in ("out", "down") and "latent" not in name:
                    module.weight.zero_()

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` tokens, `padding[b]` of which are padding on the left."""
        c = self.config
        wide = {"kv_heads": c.key_heads, "head_dim": c.width}
        if c.latent is not None:
            wide = {"kv_heads": 1, "head_dim": c.latent.rank + c.latent.rotated, "value_dim": 0}
        return Cache(
            layers=c.layers, batch=batch, capacity=capacity, padding=padding, windows=c.windows,
            int8=self.int8_cache and c.latent is None,
            dtype=self.compute_dtype, device=next(self.parameters()).device, **wide,
        )  # fmt: skip

    def forward(
        self,
        ids_BT: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
        targets: Tensor | None = None,
        mask_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        embedded: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits float32 `[B, T, V]` (`[B, 1, V]` with `last_only`); given `targets` `[B, T]`, the sum of their
        cross-entropies instead, leaving out those at `cross_entropy.IGNORED`, without ever holding all logits.

        The other arguments are those of `hidden`. Later tokens never change earlier logits where `causal`.
        """
        x_BTD = self.hidden(
            ids_BT, positions=positions, documents=documents, cache=cache, mask_BT=mask_BT, types_BT=types_BT,
            embedded=embedded, memory=memory, memory_mask=memory_mask,
        )  # fmt: skip
        if targets is not None:
            assert self.head_bias is None and self.project_out is None and self.config.logit_scale == 1
            weight = self.head_weight
            return linear_cross_entropy(x_BTD.flatten(0, 1), weight, targets.flatten(), self.config.logit_softcap)
        return self.logits(x_BTD[:, -1:] if last_only else x_BTD)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix `[V, D]`."""
        if self.head is not None:
            return self.head.weight
        assert self.embed is not None, "a stack without a vocabulary has no head"
        return self.embed.weight

    def logits(self, x_BTD: Tensor) -> Tensor:
        """float32 `[B, T, V]` from last hidden states."""
        if self.project_out is not None:
            x_BTD = self.project_out(x_BTD)
        if self.config.logit_scale != 1:
            x_BTD = x_BTD * self.config.logit_scale
        assert self.embed is not None, "a stack without a vocabulary has no head"
        logits_BTV = (project(self.embed, x_BTD) if self.head is None else self.head(x_BTD)).float()
        if self.head_bias is not None:
            logits_BTV = logits_BTV + self.head_bias.float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits_BTV / cap) if cap else logits_BTV

    def hidden(
        self,
        ids_BT: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        mask_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        embedded: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        depth: int | None = None,
    ) -> Tensor:
        """The last hidden states `[B, T, D]` after the final norm.

        `documents` int `[B, T]` numbers the documents packed into a row: no token sees another document, and positions
        begin anew in each. `positions` `[T]` or `[B, T]` replace 0, 1, 2, ... With a `cache`, the ids are the next ones
        of each row. `mask_BT` is true where there is a token, not padding. `embedded` `[B, T, D]` comes in place of the
        embedding of ids. `memory` `[B, M, D]` is what `cross` layers attend to, where `memory_mask` `[B, M]` is true.
        With `depth` n, what the first n layers give, without the final norm.
        """
        assert cache is None or documents is None, "packed documents are for training, the cache for decoding"
        shaped = ids_BT if ids_BT is not None else embedded
        assert shaped is not None, "ids or vectors"
        T = shaped.shape[1]
        end = T + (cache.length if cache else 0)
        if positions is None and documents is None and 0 < self.config.max_length < end:
            raise ConjureError(f"this model reads at most {self.config.max_length} tokens, got {end}")
        if positions is None:
            positions = self._positions(shaped, ids_BT, mask_BT, documents, cache)
        x_BTD = self._embedded(ids_BT, embedded, positions, types_BT, documents, cache)
        if mask_BT is not None and self.config.disentangled is not None:
            x_BTD = x_BTD * mask_BT[..., None].to(x_BTD.dtype)
        if cache is not None and cache.memory_mask is not None:
            memory_mask = cache.memory_mask
        context = Context(
            self._turns(positions), self._masks(x_BTD, mask_BT, documents, cache), self._bias(x_BTD, mask_BT, cache),
            cache, memory, None if memory_mask is None else memory_mask[:, None, None, :].bool(),
        )  # fmt: skip
        first_BTD = x_BTD
        for index, block in enumerate(self.blocks[:depth]):
            x_BTD = block(x_BTD, context)
            if index == 0 and self.convolution is not None:
                x_BTD = self.convolution(first_BTD, x_BTD, mask_BT)
        if cache is not None:
            cache.advance(T)
        return x_BTD if self.norm is None or depth is not None else self.norm(x_BTD)

    def hidden_of(self, ids_BT: Tensor, *, cache: Cache) -> tuple[Tensor, Tensor]:
        """Of the next ids, the hidden states `[B, T, D]`, and the logits after the last of them `[B, V]`."""
        x_BTD = self.hidden(ids_BT, cache=cache)
        return x_BTD, self.logits(x_BTD[:, -1:])[:, 0]

    def _embedded(
        self, ids_BT: Tensor | None, embedded: Tensor | None, positions: Tensor, types_BT: Tensor | None,
        documents: Tensor | None, cache: Cache | None,
    ) -> Tensor:  # fmt: skip
        c = self.config
        if embedded is not None:
            x_BTD = embedded
        else:
            assert ids_BT is not None and self.embed is not None
            x_BTD: Tensor = self.embed(ids_BT)
            x_BTD = x_BTD if c.embedding_scale == 1 else x_BTD * self._embedding_scale()
        x_BTD = x_BTD if self.project_in is None else self.project_in(x_BTD.to(self.compute_dtype))
        if self.ngram is not None and ids_BT is not None:
            x_BTD = x_BTD + self.ngram(ids_BT, documents=documents, cache=cache)
        if self.kind is not None:
            x_BTD = x_BTD + (self.kind.weight[0] if types_BT is None else self.kind(types_BT))
        if c.positions != "none":
            x_BTD = x_BTD + self._places((positions + c.position_offset).clamp_min(0))  # below 0 is padding
        x_BTD = x_BTD.to(self.compute_dtype)
        return x_BTD if self.norm_embedding is None else self.norm_embedding(x_BTD)

    def _embedding_scale(self) -> float:
        # The factor has the precision of the weights: in bfloat16 Gemma's sqrt(3072) is 55.5.
        assert self.embed is not None
        return float(torch.tensor(self.config.embedding_scale, dtype=self.embed.weight.dtype))

    def _places(self, rows: Tensor) -> Tensor:
        """These rows of the table of positions."""
        if self.place is not None:
            return self.place(rows)
        spacing = int(self.config.positions == "sinusoid_spaced")
        table = sinusoid_table(int(rows.max()) + 1, self.config.dim, spacing).to(rows.device)
        if self.config.positions_from == "ids" and len(table) > self.config.pad:
            table[self.config.pad] = 0
        return table[rows]

    def _positions(
        self, shaped: Tensor, ids_BT: Tensor | None, mask_BT: Tensor | None, documents: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:  # fmt: skip
        T, c = shaped.shape[1], self.config
        if cache is not None:
            return cache.positions(T)
        if c.positions_from == "ids" and ids_BT is not None:
            real_BT = (ids_BT != c.pad).long()
            return real_BT.cumsum(1) * real_BT - 1
        if c.positions_from == "mask" and mask_BT is not None:
            return mask_BT.long().cumsum(1) - 1
        at_T = torch.arange(T, device=shaped.device)
        if documents is None:
            return at_T
        begins_BT = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
        return at_T - (at_T * begins_BT).cummax(dim=1).values

    def _turns(self, positions: Tensor) -> dict[bool, tuple[Tensor, Tensor] | None]:
        c = self.config
        plain = rope_tables(positions, c.rope) if c.rope else None
        return {False: plain, True: plain if c.rope_local is None else rope_tables(positions, c.rope_local)}

    def _bias(self, x_BTD: Tensor, mask_BT: Tensor | None, cache: Cache | None) -> Tensor | None:
        c, queries = self.config, x_BTD.shape[1]
        keys = queries + (cache.length if cache else 0)
        if self.relative is not None:
            return self.relative(queries, keys)
        if self.distances is not None:
            return self.distances()
        if c.alibi == "none":
            return None
        at_S = torch.arange(keys, device=x_BTD.device)
        if cache is not None and cache.padded:
            at_S = (at_S - cache.padding_B[:, None]).clamp_min(0)
        elif mask_BT is not None:
            at_S = (mask_BT.long().cumsum(1) - 1) * mask_BT.long()
        return alibi(c.heads, at_S) if c.alibi == "bloom" else alibi(c.heads, at_S, scale=c.width**-0.5, rounded=True)

    def _masks(
        self, x_BTD: Tensor, mask_BT: Tensor | None, documents: Tensor | None, cache: Cache | None
    ) -> dict[int, Tensor | None]:
        """Window -> bool mask that broadcasts to [B, H, T, S], or None where nothing is hidden but by the triangle."""
        T, c = x_BTD.shape[1], self.config
        S, device = T + (cache.length if cache else 0), x_BTD.device
        own = None
        if documents is not None:
            own = (documents[:, :, None] == documents[:, None, :])[:, None]
        elif mask_BT is not None or (cache is not None and cache.padded):
            if cache is None or not cache.padded:
                assert mask_BT is not None
                real_BS = mask_BT.bool()
            else:
                real_BS = torch.arange(S, device=device) >= cache.padding_B[:, None]
            own = real_BS[:, None, None]
            if c.causal:
                # Padding reads whatever is there: were it to read nothing, its values would be no numbers, and 0 times
                # such a value is none either.
                own = own | ~real_BS[:, None, S - T :, None]
        masks: dict[int, Tensor | None] = {}
        for window in set(c.windows or (0,)):
            begin = cache.begins(window, T) if cache is not None else 0
            narrow = 0 < window < S - begin
            seen = None if own is None else own[..., begin:] if own.shape[-1] == S else own
            if c.causal and (seen is not None or narrow):
                triangle_TS = causal_mask(T, S - begin, device, window if narrow else 0)
                seen = triangle_TS if seen is None else seen & triangle_TS
            masks[window] = seen
        return masks

    def flops(self, batch: int, length: int) -> float:
        """Multiply-adds times two of one forward pass over `batch` rows of `length` tokens, logits included; a causal
        query meets half the keys. Three times that with the backward pass."""
        c = self.config
        matrices = sum(m.weight.numel() for m in self.modules() if isinstance(m, Linear))
        matrices += c.vocab * c.dim if c.tie else 0
        seen = sum(min(w or length, length) - min(w or length, length) ** 2 / (2 * length) for w in c.windows or (0,))
        seen *= 1 if c.windows else c.layers
        return 2.0 * batch * length * (matrices + 2 * seen * c.heads * c.width)
