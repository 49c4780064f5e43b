"""The position-wise feed-forward layer, plain or gated.

Legend: D model width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from conjure.nn.linear import Linear

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "clamped_swish"]


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the sigmoid approximation of GELU that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)^2, So et al. 2021, arXiv 2109.08668."""
    return F.relu(x).square()


def clamped_swish(gate: Tensor) -> Tensor:
    """g sigmoid(1.702 g) with g = min(gate, 7), the gate of gpt-oss; what it gates is clamped too: `FeedForward`."""
    return quick_gelu(gate.clamp_max(LIMIT))


LIMIT = 7.0
"""Where gpt-oss clamps."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu2,
    "clamped_swish": clamped_swish,
}


class FeedForward(nn.Module):
    """down(act(up x)), or gated down(act(gate x) * up x) (Shazeer 2020, arXiv 2002.05202).

    Gate and up are one matrix `up` [2F, D], gate first.
    """

    def __init__(
        self, dim: int, hidden: int, *, activation: Activation = "silu", gated: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        self.gated, self.activation = gated, ACTIVATIONS[activation]
        self.up = Linear(dim, 2 * hidden if gated else hidden, bias=bias)
        self.down = Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D] -> [..., D]`"""
        h = self.up(x)
        if not self.gated:
            return self.down(self.activation(h))
        if self.activation is F.silu and h.requires_grad and h.is_cpu and not torch.compiler.is_compiling():
            return self.down(_GatedSiLU.apply(h))
        gate, up = h.chunk(2, dim=-1)
        if self.activation is clamped_swish:
            up = up.clamp(-LIMIT, LIMIT) + 1
        return self.down(self.activation(gate) * up)


class _GatedSiLU(torch.autograd.Function):
    """silu(gate) * up of `[..., 2F]`, by hand for training on a CPU, where bytes moved are what it costs: both halves
    of the gradient are written where they belong, not joined by a copy, and silu(gate) is not kept."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.save_for_backward(h)
        gate, up = h.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        (h,), (d_out,) = ctx.saved_tensors, grads
        gate, up = h.chunk(2, dim=-1)
        d_h = torch.empty_like(h)
        d_gate, d_up = d_h.chunk(2, dim=-1)
        torch.mul(F.silu(gate), d_out, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_out * up, gate, grad_input=d_gate)
        return d_h
