"""The decoder transformer: one network whose knobs cover the public families.

Pre-, post- and sandwich norms, parallel residuals, grouped queries, rotary or learned positions, sliding windows, soft
caps, and hashed n-gram embeddings. Weights are float32; activations have the type `compute_dtype`.

Legend: B rows, T tokens, S keys, D width, H query heads, K key-value heads, C head width, V vocabulary.
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
from conjure.nn.feedforward import Activation, FeedForward
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.position import Rope, rope_tables, rotate


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The shape of a decoder. Bias, norm and position knobs are named as in the papers of the families they serve."""

    vocab: int = 8192
    dim: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int | None = None
    """Heads of keys and values; null is `heads`. Fewer is grouped-query attention."""
    head_dim: int | None = None
    """Width of a head; null is dim / heads."""
    hidden: int | None = None
    """Width of the feed-forward layer; null is 4 dim, or 8/3 dim rounded up to 32 where gated."""
    activation: Activation = "silu"
    gated: bool = True
    norm: Literal["rms", "layer", "rms1"] = "rms"
    """rms1 multiplies by 1 + weight."""
    norm_eps: float = 1e-6
    placement: Literal["pre", "post", "sandwich"] = "pre"
    """x + f(norm x), norm(x + f x), or x + norm(f(norm x))."""
    parallel: Literal["none", "shared", "separate"] = "none"
    """Attention and feed-forward side by side on the same input: x + a(n x) + f(n x), or with a norm each."""
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised per head, before rotation."""
    rope: Rope | None = None
    positions: Literal["none", "learned"] = "none"
    max_length: int = 0
    """Rows of the table of learned positions; 0 with other positions, which have no end."""
    windows: tuple[int, ...] = ()
    """Tokens that each layer sees back, itself included; 0 is all. Empty: all layers see all."""
    tie: bool = True
    """The output matrix is the embedding."""
    embedding_scale: float = 1.0
    logit_softcap: float = 0.0
    attention_softcap: float = 0.0
    ngram: NGram | None = None

    def __post_init__(self) -> None:
        if self.head_dim is None and self.dim % self.heads:
            raise ConjureError(f"model: expected heads to divide dim, got {self.dim} / {self.heads}")
        if self.heads % self.key_heads:
            raise ConjureError(f"model: expected kv_heads to divide heads, got {self.heads} / {self.key_heads}")
        if (self.positions == "learned") != (self.max_length > 0):
            raise ConjureError("model.max_length: expected above 0 with learned positions, and 0 without")
        if self.windows and len(self.windows) != self.layers:
            raise ConjureError(f"model.windows: expected {self.layers} numbers, got {len(self.windows)}")
        if self.parallel != "none" and self.placement != "pre":
            raise ConjureError(f"model.parallel: expected placement pre, got {self.placement}")
        if self.rope is not None and self.rope.dim > self.width:
            raise ConjureError(f"model.rope.dim: expected at most the head width {self.width}, got {self.rope.dim}")

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def width(self) -> int:
        """Of a head."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @property
    def feedforward(self) -> int:
        if self.hidden is not None:
            return self.hidden
        return -(-8 * self.dim // 96) * 32 if self.gated else 4 * self.dim


@dataclass(frozen=True)
class Context:
    """What every layer of one forward pass shares."""

    turn: tuple[Tensor, Tensor] | None
    """cos and sin of the rotation."""
    masks: dict[int, Tensor | None]
    """window -> which keys each query may see; None is the plain causal triangle."""
    cache: Cache | None


def make_norm(config: TransformerConfig, dim: int) -> RMSNorm | LayerNorm:
    if config.norm == "layer":
        return LayerNorm(dim, config.norm_eps)
    return RMSNorm(dim, config.norm_eps, plus_one=config.norm == "rms1")


class Attention(nn.Module):
    """Causal self-attention; queries, keys and values are one matrix `qkv` [(H + 2K) C, D] in that order."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        self.window = config.windows[layer] if config.windows else 0
        self.sizes = [config.heads * config.width, *[config.key_heads * config.width] * 2]
        self.qkv = Linear(config.dim, sum(self.sizes), bias=config.qkv_bias)
        self.out = Linear(self.sizes[0], config.dim, bias=config.out_bias)
        self.norm_q = make_norm(config, config.width) if config.qk_norm else None
        self.norm_k = make_norm(config, config.width) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        B, T, _ = x_BTD.shape
        q, k, v = (part.view(B, T, -1, self.config.width) for part in self.qkv(x_BTD).split(self.sizes, dim=-1))
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        q_BHTC, k_BKSC, v_BKSC = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if context.turn is not None and self.config.rope is not None:
            q_BHTC = rotate(q_BHTC, *context.turn, self.config.rope.interleaved)
            k_BKSC = rotate(k_BKSC, *context.turn, self.config.rope.interleaved)
        if context.cache is not None:
            k_BKSC, v_BKSC = context.cache.append(self.layer, k_BKSC, v_BKSC)
        mask = context.masks[self.window]
        out_BHTC = attend(
            q_BHTC, k_BKSC, v_BKSC, mask=mask, causal=mask is None, softcap=self.config.attention_softcap
        )
        return self.out(out_BHTC.transpose(1, 2).reshape(B, T, -1))


class Block(nn.Module):
    """Attention and feed-forward around the residual stream."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.placement, self.parallel = config.placement, config.parallel
        self.attention = Attention(config, layer)
        self.feedforward = FeedForward(
            config.dim, config.feedforward, activation=config.activation, gated=config.gated, bias=config.mlp_bias
        )
        self.norm_attention = make_norm(config, config.dim)
        self.norm_feedforward = None if config.parallel == "shared" else make_norm(config, config.dim)
        sandwich = config.placement == "sandwich"
        self.norm_attention_out = make_norm(config, config.dim) if sandwich else None
        self.norm_feedforward_out = make_norm(config, config.dim) if sandwich else None

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        if self.norm_feedforward is None:
            h_BTD = self.norm_attention(x_BTD)
            return x_BTD + self.attention(h_BTD, context) + self.feedforward(h_BTD)
        if self.parallel == "separate":
            attended_BTD = self.attention(self.norm_attention(x_BTD), context)
            return x_BTD + attended_BTD + self.feedforward(self.norm_feedforward(x_BTD))
        if self.placement == "post":
            x_BTD = self.norm_attention(x_BTD + self.attention(x_BTD, context))
            return self.norm_feedforward(x_BTD + self.feedforward(x_BTD))
        h_BTD = self.attention(self.norm_attention(x_BTD), context)
        x_BTD = x_BTD + (h_BTD if self.norm_attention_out is None else self.norm_attention_out(h_BTD))
        h_BTD = self.feedforward(self.norm_feedforward(x_BTD))
        return x_BTD + (h_BTD if self.norm_feedforward_out is None else self.norm_feedforward_out(h_BTD))


class Transformer(nn.Module):
    """Next-token logits. Weights start from the global generator: seed it (`torch.random.fork_rng`) when training."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.ngram = NGramEmbedding(config.ngram, config.vocab, config.dim) if config.ngram else None
        self.place = nn.Embedding(config.max_length, config.dim) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = None if config.placement == "post" else make_norm(config, config.dim)
        self.head = None if config.tie else Linear(config.dim, config.vocab, bias=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Normal 0.02 for embeddings, 1/sqrt(fan-in) for matrices; what writes into the residual stream starts at 0,
        so every block begins as the identity (Zhang et al. 2019, arXiv 1901.09321)."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, 0.02)
            elif isinstance(module, Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.zero_()
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.out.weight.zero_()
            block.feedforward.down.weight.zero_()

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` tokens, `padding[b]` of which are padding on the left."""
        c = self.config
        return Cache(
            layers=c.layers, batch=batch, kv_heads=c.key_heads, head_dim=c.width, capacity=capacity, padding=padding,
            dtype=self.compute_dtype, device=self.embed.weight.device,
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
    ) -> Tensor:
        """Logits float32 `[B, T, V]` (`[B, 1, V]` with `last_only`); given `targets` `[B, T]`, the sum of their
        cross-entropies instead, leaving out those at `cross_entropy.IGNORED`, without ever holding all logits.

        `documents` int `[B, T]` numbers the documents packed into a row: no token sees another document, and
        positions begin anew in each. `positions` `[T]` or `[B, T]` replace 0, 1, 2, ... With a `cache`, the ids are
        the next ones of each row. Later tokens never change earlier logits.
        """
        x_BTD = self.hidden(ids_BT, positions=positions, documents=documents, cache=cache)
        weight = self.embed.weight if self.head is None else self.head.weight
        if targets is not None:
            return linear_cross_entropy(x_BTD.flatten(0, 1), weight, targets.flatten(), self.config.logit_softcap)
        if last_only:
            x_BTD = x_BTD[:, -1:]
        logits_BTV = F.linear(x_BTD, weight.to(x_BTD.dtype)).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits_BTV / cap) if cap else logits_BTV

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The last hidden states `[B, T, D]` after the final norm; arguments as in `forward`."""
        assert cache is None or documents is None, "packed documents are for training, the cache for decoding"
        end = ids_BT.shape[1] + (cache.length if cache else 0)
        if positions is None and documents is None and 0 < self.config.max_length < end:
            raise ConjureError(f"this model reads at most {self.config.max_length} tokens, got {end}")
        if positions is None:
            positions = self._positions(ids_BT, documents, cache)
        x_BTD = self.embed(ids_BT) * self.config.embedding_scale
        if self.ngram is not None:
            x_BTD = x_BTD + self.ngram(ids_BT, documents=documents, cache=cache)
        if self.place is not None:
            x_BTD = x_BTD + self.place(positions.clamp_min(0))  # below 0 is padding
        x_BTD = x_BTD.to(self.compute_dtype)
        turn = rope_tables(positions, self.config.rope) if self.config.rope else None
        context = Context(turn, self._masks(ids_BT, documents, cache), cache)
        for block in self.blocks:
            x_BTD = block(x_BTD, context)
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def _positions(self, ids_BT: Tensor, documents: Tensor | None, cache: Cache | None) -> Tensor:
        T = ids_BT.shape[1]
        if cache is not None:
            return cache.positions(T)
        at_T = torch.arange(T, device=ids_BT.device)
        if documents is None:
            return at_T
        begins_BT = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
        return at_T - (at_T * begins_BT).cummax(dim=1).values

    def _masks(self, ids_BT: Tensor, documents: Tensor | None, cache: Cache | None) -> dict[int, Tensor | None]:
        """Window -> bool mask that broadcasts to [B, H, T, S], or None where the causal triangle says it all."""
        T = ids_BT.shape[1]
        S = T + (cache.length if cache else 0)
        own = None
        if documents is not None:
            own = (documents[:, :, None] == documents[:, None, :])[:, None]
        elif cache is not None and cache.padded:
            real_BS = torch.arange(S, device=ids_BT.device) >= cache.padding_B[:, None]
            # Padding reads whatever is there: were it to read nothing, its values would be no numbers, and 0 times
            # such a value is none either.
            own = (real_BS[:, None] | ~real_BS[:, S - T :, None])[:, None]
        masks: dict[int, Tensor | None] = {}
        for window in set(self.config.windows or (0,)):
            narrow = 0 < window < S
            if own is None and not narrow:
                masks[window] = None
                continue
            seen_TS = causal_mask(T, S, ids_BT.device, window if narrow else 0)
            masks[window] = seen_TS if own is None else own & seen_TS
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
