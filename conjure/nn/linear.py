"""A linear layer that computes in the precision of its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """y = x W^T + b with weight and bias cast to x.dtype: weights stay float32, precision follows activations."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Linear gave it
        """`[..., in] -> [..., out]`"""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


def embedding(rows: int, dim: int) -> nn.Embedding:
    """A table whose values are yet to be set: drawing them only to replace them takes time, and on the meta device it
    loads half of PyTorch."""
    return nn.Embedding(rows, dim, _weight=torch.empty(rows, dim))
