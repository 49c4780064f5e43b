"""Biases on attention scores that depend on how far apart two tokens stand: learned by bucket (T5), or linear (ALiBi).

Legend: B rows, H heads, T queries, S keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.nn.linear import embedding
from conjure.nn.position import alibi_slopes


@dataclass(frozen=True, kw_only=True)
class Relative:
    """Learned biases (Raffel et al. 2020, arXiv 1910.10683): near distances singly, far ones in logarithmic steps."""

    buckets: int = 32
    farthest: int = 128
    """Distances from here on share the last bucket."""
    both_ways: bool = False
    """Later keys have buckets of their own, as encoders need."""
    per_layer: bool = False
    """Every layer has a table, as in UMT5; else all share one."""


class RelativeBias(nn.Module):
    """forward(T, S) -> float32 `[1, H, T, S]`; the last query is the token of the last key."""

    def __init__(self, config: Relative, heads: int) -> None:
        super().__init__()
        self.config = config
        self.table = embedding(config.buckets, heads)

    def forward(self, queries: int, keys: int) -> Tensor:
        device = self.table.weight.device
        at_T = torch.arange(keys - queries, keys, device=device)
        bucket_TS = buckets(torch.arange(keys, device=device) - at_T[:, None], self.config)
        return self.table(bucket_TS).permute(2, 0, 1)[None].float()


def buckets(distance: Tensor, config: Relative) -> Tensor:
    """The bucket of each distance key - query; int64 of the same shape."""
    n = config.buckets
    base = torch.zeros_like(distance)
    if config.both_ways:
        n //= 2
        base = (distance > 0).long() * n
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    exact = n // 2
    ratio = torch.log(distance.float().clamp_min(1) / exact) / math.log(config.farthest / exact)
    far = (exact + (ratio * (n - exact)).long()).clamp_max(n - 1)
    return base + torch.where(distance < exact, distance, far)


def alibi(heads: int, at_S: Tensor, *, scale: float = 1.0, rounded: bool = False) -> Tensor:
    """slope_h * position float32 `[B or 1, H, 1, S]` for key positions `[S]` or `[B, S]` (arXiv 2108.12409).

    Softmax sees differences only, so the query's own position need not be taken off. `rounded` computes it in bfloat16,
    as Falcon does.
    """
    at_BS = at_S if at_S.dim() == 2 else at_S[None]
    slopes_H11 = alibi_slopes(heads).to(at_S.device)[:, None, None]
    if rounded:
        return (slopes_H11.bfloat16() * at_BS[:, None, None]).float() * scale
    return slopes_H11 * at_BS[:, None, None] * scale
