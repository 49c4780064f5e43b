"""Disentangled attention: scores from content and from relative position, each against the other (DeBERTa, arXiv
2006.03654; version 3, arXiv 2111.09543).

Legend: B rows, T tokens, D width, H heads, C head width, P rows of the table of relative positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.nn.feedforward import ACTIVATIONS
from conjure.nn.linear import Linear, embedding
from conjure.nn.norm import LayerNorm


@dataclass(frozen=True, kw_only=True)
class Disentangled:
    buckets: int = 256
    """Distances up to half of it have a row each, farther ones share rows in logarithmic steps; 0: no buckets."""
    farthest: int = 512
    content_to_position: bool = True
    position_to_content: bool = True
    shared: bool = True
    """Positions go through the layer's own query and key matrices; else through matrices of their own."""
    key_bias: bool = True
    """Of the matrix of their own for position keys."""
    norm: bool = True
    """The table is normalised once."""
    convolution: int = 0
    """Width of a convolution beside the first layer (v2-xlarge); 0: none."""
    convolution_groups: int = 1
    convolution_activation: str = "gelu"

    @property
    def span(self) -> int:
        return self.buckets or self.farthest


class RelativeTable(nn.Module):
    """forward() -> `[P, D]`, the embedding of relative positions that all layers share."""

    def __init__(self, config: Disentangled, dim: int, eps: float) -> None:
        super().__init__()
        self.table = embedding(2 * config.span, dim)
        self.norm = LayerNorm(dim, eps) if config.norm else None

    def forward(self) -> Tensor:
        return self.table.weight if self.norm is None else self.norm(self.table.weight)


class DisentangledAttention(nn.Module):
    """Bidirectional self-attention over `[B, T, D]`."""

    def __init__(self, config: Disentangled, dim: int, heads: int) -> None:
        super().__init__()
        self.config, self.heads = config, heads
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)
        own = not config.shared
        self.position_k = Linear(dim, dim, bias=config.key_bias) if own and config.content_to_position else None
        self.position_q = Linear(dim, dim) if own and config.position_to_content else None

    def forward(self, x_BTD: Tensor, table_PD: Tensor | None, mask: Tensor | None) -> Tensor:
        assert table_PD is not None
        (B, T, D), c = x_BTD.shape, self.config
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x_BTD).chunk(3, dim=-1))
        terms = 1 + c.content_to_position + c.position_to_content
        scale = 1 / math.sqrt(q.shape[-1] * terms)
        scores = q @ k.mT * scale
        row_TT = (bucketed(T, c, x_BTD.device) + c.span).clamp(0, 2 * c.span - 1)
        if c.content_to_position:
            pk_HPC = self._positions(table_PD.to(x_BTD.dtype), key=True)
            scores = scores + (q @ pk_HPC.mT).gather(-1, row_TT.expand(B, self.heads, T, T)) * scale
        if c.position_to_content:
            pq_HPC = self._positions(table_PD.to(x_BTD.dtype), key=False)
            scores = scores + (k @ pq_HPC.mT).gather(-1, row_TT.mT.expand(B, self.heads, T, T)).mT * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        out_BHTC = scores.softmax(-1) @ v
        return self.out(out_BHTC.transpose(1, 2).reshape(B, T, D))

    def _positions(self, table_PD: Tensor, key: bool) -> Tensor:
        """Keys or queries of the relative positions, `[H, P, C]`."""
        own = self.position_k if key else self.position_q
        if own is not None:
            found = own(table_PD)
        else:
            found = self.qkv(table_PD).chunk(3, dim=-1)[1 if key else 0]
        return found.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class ConvolutionBranch(nn.Module):
    """norm(first layer + act(convolution of its input)), 0 at padding."""

    def __init__(self, config: Disentangled, dim: int, eps: float) -> None:
        super().__init__()
        width = config.convolution
        self.activation = torch.tanh if config.convolution_activation == "tanh" else ACTIVATIONS["gelu"]
        self.convolution = nn.Conv1d(dim, dim, width, padding=(width - 1) // 2, groups=config.convolution_groups)
        self.norm = LayerNorm(dim, eps)

    def forward(self, before_BTD: Tensor, after_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        found_BTD = self.convolution(before_BTD.mT).mT
        if mask_BT is None:
            return self.norm(after_BTD + self.activation(found_BTD))
        real_BT1 = mask_BT[..., None].to(found_BTD.dtype)
        return self.norm(after_BTD + self.activation(found_BTD * real_BT1)) * real_BT1


def bucketed(length: int, config: Disentangled, device: torch.device | None = None) -> Tensor:
    """query - key in buckets, int64 `[T, T]`; row i holds the distances of query i."""
    at_T = torch.arange(length, device=device)
    distance = at_T[:, None] - at_T
    if not config.buckets:
        return distance
    middle = config.buckets // 2
    size = distance.abs().clamp_min(1).float()
    steps = torch.log(size / middle) / math.log((config.farthest - 1) / middle) * (middle - 1)
    far = (torch.ceil(steps) + middle).long() * distance.sign()
    return torch.where(distance.abs() <= middle, distance, far)
