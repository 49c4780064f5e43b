"""Normalisation over the last axis: computed in float32, returned in the precision of the input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
        weight = None if self.weight is None else self.weight.float()
        if weight is not None and self.plus_one:
            weight = weight + 1
        if weight is not None and x.requires_grad and x.is_cpu and not torch.compiler.is_compiling():
            scaled: Tensor = _RMSNorm.apply(x.float(), weight, self.eps)
            return scaled.to(x.dtype)
        return F.rms_norm(x.float(), (self.dim,), weight, self.eps).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """The same by hand for training on a CPU. PyTorch has no kernel for it there and runs a chain of small operations
    each way, each of which reads and writes all of x: bytes moved are what it costs. This moves half as many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        (d_out,) = grads
        dim = x.shape[-1]
        product = (d_out * x).reshape(-1, dim)
        d_weight = scale.reshape(-1) @ product
        slope = (product @ weight).view_as(scale) * scale.pow(3).div_(-dim)  # through the mean of x^2
        return (d_out * weight).mul_(scale).addcmul_(x, slope), d_weight, None


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, dim: int, eps: float = 1e-5, affine: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim] -> [..., dim]`"""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), (self.dim,), weight, bias, self.eps).to(x.dtype)
