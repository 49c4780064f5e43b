"""Attention over the pixels of a picture: among themselves, and to a context such as the words of a prompt.

Legend: B batch, C channels, H height, W width, N = H * W pixels as tokens, S tokens of the context, D width of a token,
h heads, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conjure.nn.attention import attend
from conjure.nn.convolution import GroupNorm
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear
from conjure.nn.native import pixels as compiled
from conjure.nn.norm import LayerNorm


def tokens(x_BCHW: Tensor) -> Tensor:
    """`[B, C, H, W] -> [B, N, C]`, without a copy where channels lie innermost."""
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)


def pixels(x_BNC: Tensor, height: int, width: int) -> Tensor:
    """`[B, N, C] -> [B, C, H, W]` with channels innermost, without a copy."""
    return x_BNC.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class PixelAttention(nn.Module):
    """x + out(attention(norm x)) of all pixels to all pixels, as in DDPM and in the middle of picture autoencoders."""

    def __init__(self, channels: int, heads: int = 1, *, groups: int = 32, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps)
        self.attention = Attention(channels, heads, bias=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, C, H, W]`"""
        return x_BCHW + pixels(self.attention(tokens(self.norm(x_BCHW))), *x_BCHW.shape[2:])


class Attention(nn.Module):
    """Of tokens to themselves, or to a context of width `context` > 0. The output always has a bias."""

    def __init__(self, dim: int, heads: int, *, context: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        if context:
            self.q, self.kv = Linear(dim, dim, bias=bias), Linear(context, 2 * dim, bias=bias)
        else:
            self.qkv = Linear(dim, 3 * dim, bias=bias)
        self.out = Linear(dim, dim)

    def forward(self, x_BND: Tensor, context_BSD: Tensor | None = None) -> Tensor:
        """`[B, N, D] -> [B, N, D]`"""
        if context_BSD is None:
            q, k, v = self._heads(self.qkv(x_BND), 3)
        else:
            (q,), (k, v) = self._heads(self.q(x_BND), 1), self._heads(self.kv(context_BSD), 2)
        mixed = compiled.attention(q, k, v) if compiled.attends(q, k, v) else attend(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x_BNX: Tensor, parts: int) -> tuple[Tensor, ...]:
        """`parts` times [B, h, N, d]."""
        return x_BNX.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class TransformerBlock(nn.Module):
    """Attention among the tokens, attention to the context, feed-forward, each on a layer norm and added.

    With `context_only` the first attention reads the context as well.
    """

    def __init__(self, dim: int, heads: int, context: int, *, context_only: bool = False) -> None:
        super().__init__()
        self.context_only = context_only
        self.norm1, self.norm2, self.norm3 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)
        self.attention1 = Attention(dim, heads, context=context if context_only else 0)
        self.attention2 = Attention(dim, heads, context=context)
        self.feedforward = FeedForward(dim, 4 * dim, activation="gelu", gated=True, bias=True)

    def forward(self, x_BND: Tensor, context_BSD: Tensor) -> Tensor:
        """`[B, N, D] -> [B, N, D]`"""
        x_BND = x_BND + self.attention1(self.norm1(x_BND), context_BSD if self.context_only else None)
        x_BND = x_BND + self.attention2(self.norm2(x_BND), context_BSD)
        return x_BND + self.feedforward(self.norm3(x_BND))


class SpatialTransformer(nn.Module):
    """x + out(blocks(in(norm x))): a transformer over pixels that reads a context (Rombach et al. 2022, arXiv
    2112.10752, appendix E.2.1)."""

    def __init__(
        self, channels: int, heads: int, context: int, layers: int, *, groups: int = 32, context_only: bool = False
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, 1e-6)
        self.project_in, self.project_out = Linear(channels, channels), Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context, context_only=context_only) for _ in range(layers)
        )

    def forward(self, x_BCHW: Tensor, context_BSD: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, C, H, W]`"""
        h_BNC = self.project_in(tokens(self.norm(x_BCHW)))
        for block in self.blocks:
            h_BNC = block(h_BNC, context_BSD)
        return x_BCHW + pixels(self.project_out(h_BNC), *x_BCHW.shape[2:])


def innermost(x_BCHW: Tensor) -> Tensor:
    """The same picture with its channels innermost in memory."""
    return x_BCHW.contiguous(memory_format=torch.channels_last)
