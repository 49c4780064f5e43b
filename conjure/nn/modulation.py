"""How a diffusion transformer is told time and condition: one vector from which every block takes what it shifts,
scales and gates its tokens by (adaLN-Zero, Peebles and Xie 2022, arXiv 2212.09748, section 3.2).

Legend: B batch, T tokens, D model width, P values of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm

GATE = 0.1
"""Where gates start: not at 0, so that a short training need not first learn to open them."""


def modulated(x_BTD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """x (1 + scale) + shift, of tokens that were normalised."""
    return x_BTD * (1 + scale_B1D) + shift_B1D


def leave_to_adam(parameter: Tensor) -> None:
    """Small tables, and what meets pixels, are no place for orthogonal updates."""
    parameter.adam = True  # type: ignore[attr-defined]


class Embedder(nn.Module):
    """down(silu(up x)): from features of time, or from a pooled text, to the condition."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.up, self.down = Linear(features, dim), Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, features] -> [B, D]`"""
        return self.down(F.silu(self.up(x)))


class Modulation(nn.Module):
    """The condition as `parts` vectors. A new one shifts and scales by nothing; the parts `gates` start at `GATE`."""

    def __init__(self, dim: int, parts: int, gates: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.parts = parts
        self.linear = Linear(dim, parts * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        leave_to_adam(self.linear.weight)
        with torch.no_grad():
            for gate in gates:
                self.linear.bias[gate * dim : (gate + 1) * dim].fill_(GATE)

    def forward(self, condition_BD: Tensor) -> tuple[Tensor, ...]:
        """`parts` times `[B, 1, D]`."""
        return self.linear(F.silu(condition_BD)).unsqueeze(1).chunk(self.parts, dim=-1)


class Ending(nn.Module):
    """The last layer: tokens to patches. A new one says nothing yet."""

    def __init__(self, dim: int, values: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim, eps=1e-6, affine=False)
        self.modulation = Modulation(dim, 2)
        self.linear = Linear(dim, values)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BTD: Tensor, condition_BD: Tensor) -> Tensor:
        """`[B, T, D] -> [B, T, P]`"""
        return self.linear(modulated(self.norm(x_BTD), *self.modulation(condition_BD)))
