"""Normalisation over the last axis: computed in float32, returned in the precision of the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv 1910.07467).

    `plus_one` multiplies by 1 + weight, with weights that start at 0, as Gemma does.
    """

    def __init__(self, dim: int, eps: float = 1e-6, affine: bool = True, plus_one: bool = False) -> None:
        super().__init__()
        self.dim, self.eps, self.plus_one = dim, eps, plus_one
        start = torch.zeros(dim) if plus_one else torch.ones(dim)
        self.weight = nn.Parameter(start) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim] -> [..., dim]`"""
        weight = self.weight
        if weight is not None and self.plus_one:
            weight = weight + 1
        return F.rms_norm(x.float(), (self.dim,), weight, self.eps).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, dim: int, eps: float = 1e-5, affine: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim] -> [..., dim]`"""
        return F.layer_norm(x.float(), (self.dim,), self.weight, self.bias, self.eps).to(x.dtype)
