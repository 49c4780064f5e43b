"""The position-wise feed-forward layer, plain or gated.

Legend: D model width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.nn.linear import Linear

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2"]


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the sigmoid approximation of GELU that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)^2, So et al. 2021, arXiv 2109.08668."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu2,
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
        gate, up = h.chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)
