"""Joint attention: streams of tokens with weights of their own meet in one softmax (MMDiT, Esser et al. 2024,
arXiv 2403.03206, section 4). One stream alone is the block of DiT (arXiv 2212.09748).

Legend: B batch, T tokens of a stream, S tokens of the context, N of the picture, H heads, C head width, D = H C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from conjure.nn import fused
from conjure.nn.attention import attend
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear
from conjure.nn.modulation import Modulation, modulated
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.position import rotate

Triple = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each `[B, H, T, C]`."""
Turns = tuple[Tensor, Tensor]
"""cos and sin `[S + N, C / 2]` that turn queries and keys of all streams."""

EPS = 1e-6
GATES = (2, 5)


class Heads(nn.Module):
    """The queries, keys and values of a stream, and the way back. With `qk_norm`, queries and keys have norm sqrt(C)
    times a learned weight (Dehghani et al. 2023, arXiv 2302.05442, there with LayerNorm)."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False, back: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.norm_q = RMSNorm(dim // heads, EPS) if qk_norm else None
        self.norm_k = RMSNorm(dim // heads, EPS) if qk_norm else None
        self.out = Linear(dim, dim) if back else None

    def forward(self, x_BTD: Tensor) -> Triple:
        """`[B, T, D]` -> three of `[B, H, T, C]`"""
        q, k, v = rearrange(fused.linear(x_BTD, self.qkv), "b t (three h c) -> three b h t c", three=3, h=self.heads)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        return q, k, v


def together(streams: Sequence[Triple], mask_B11T: Tensor | None = None, turns: Turns | None = None) -> list[Tensor]:
    """Each stream's tokens after all have attended to all, `[B, T, D]`; `mask` is True where there is a token."""
    q, k, v = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2) for parts in zip(*streams, strict=True))
    if turns is not None:  # in float32: half precision has too few digits for the angles of far places
        q, k = (rotate(each.float(), *turns, interleaved=True).to(v.dtype) for each in (q, k))
    mixed_BTD = rearrange(attend(q, k, v, mask=mask_B11T), "b h t c -> b t (h c)")
    return list(mixed_BTD.split([stream[0].shape[2] for stream in streams], dim=1))


def finite(x: Tensor) -> Tensor:
    """Values too large for half precision stay at its end; networks that were trained in bfloat16 have some."""
    return x.clamp(-65504, 65504) if x.dtype == torch.float16 else x


class Stream(nn.Module):
    """What the tokens of one stream have of their own in a block: attention's ends and the feed-forward layer, both
    shifted, scaled and gated. With `second`, its tokens also attend to each other alone (SD 3.5 medium)."""

    def __init__(
        self, dim: int, heads: int, hidden: int, *, qk_norm: bool = False, second: bool = False, eps: float = EPS
    ) -> None:
        """`eps` is that of the norm before the feed-forward layer."""
        super().__init__()
        self.modulation = Modulation(dim, 9 if second else 6, (*GATES, 8) if second else GATES)
        self.norm_attention = LayerNorm(dim, EPS, affine=False)
        self.heads = Heads(dim, heads, qk_norm=qk_norm)
        self.second = Heads(dim, heads, qk_norm=qk_norm) if second else None
        self.norm_feedforward = LayerNorm(dim, eps, affine=False)
        self.feedforward = FeedForward(dim, hidden, activation="gelu_tanh", gated=False, bias=True)

    def forward(self, x_BTD: Tensor, condition_BD: Tensor) -> Tensor:
        """The block of a network that has no other stream."""
        asked, signals = self.begin(x_BTD, condition_BD)
        return self.end(x_BTD, together([asked])[0], signals)

    def begin(self, x_BTD: Tensor, condition_BD: Tensor) -> tuple[Triple, tuple[Tensor, ...]]:
        """What goes into the attention, and the signals that `end` needs."""
        signals = self.modulation(condition_BD)
        return self.heads(modulated(self.norm_attention(x_BTD), *signals[:2])), signals

    def end(self, x_BTD: Tensor, mixed_BTD: Tensor, signals: tuple[Tensor, ...]) -> Tensor:
        """The tokens after the block."""
        gate_a, shift_f, scale_f, gate_f = signals[2:6]
        assert self.heads.out is not None
        y_BTD = torch.addcmul(x_BTD, gate_a, fused.linear(mixed_BTD, self.heads.out))
        if self.second is not None and self.second.out is not None:
            shift, scale, gate = signals[6:]
            asked = self.second(modulated(self.norm_attention(x_BTD), shift, scale))
            y_BTD = torch.addcmul(y_BTD, gate, self.second.out(together([asked])[0]))
        asked_BTD = modulated(self.norm_feedforward(y_BTD), shift_f, scale_f)
        up_BTF = fused.linear(asked_BTD, self.feedforward.up, "gelu_tanh")
        h_BTD = fused.linear(up_BTF, self.feedforward.down)
        return finite(torch.addcmul(y_BTD, gate_f, h_BTD))


class Listened(nn.Module):
    """A stream in its last block: it is attended to, and ends there."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.modulation = Modulation(dim, 2)
        self.norm_attention = LayerNorm(dim, EPS, affine=False)
        self.heads = Heads(dim, heads, qk_norm=qk_norm, back=False)

    def begin(self, x_BTD: Tensor, condition_BD: Tensor) -> Triple:
        return self.heads(modulated(self.norm_attention(x_BTD), *self.modulation(condition_BD)))


class JointBlock(nn.Module):
    """Context and picture, a stream each; with `last` the context ends here."""

    def __init__(
        self, dim: int, heads: int, hidden: int, *, qk_norm: bool = False, second: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        self.picture = Stream(dim, heads, hidden, qk_norm=qk_norm, second=second)
        self.context = None if last else Stream(dim, heads, hidden, qk_norm=qk_norm)
        self.listened = Listened(dim, heads, qk_norm=qk_norm) if last else None

    def forward(
        self, context_BSD: Tensor, x_BND: Tensor, condition_BD: Tensor, mask_B11T: Tensor | None = None,
        turns: Turns | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(context, picture), in the order in which `mask` and `turns` have them."""
        asked, signals = self.picture.begin(x_BND, condition_BD)
        if self.context is None:
            assert self.listened is not None
            heard = self.listened.begin(context_BSD, condition_BD)
            mixed_BND = together([heard, asked], mask_B11T, turns)[1]
        else:
            heard, told = self.context.begin(context_BSD, condition_BD)
            mixed_BSD, mixed_BND = together([heard, asked], mask_B11T, turns)
            context_BSD = self.context.end(context_BSD, mixed_BSD, told)
        return context_BSD, self.picture.end(x_BND, mixed_BND, signals)
