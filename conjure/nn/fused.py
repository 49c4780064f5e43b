"""Linear layers by oneDNN, with what follows them in the same pass, for a CPU that computes in float32.

PyTorch leaves plain products to MKL, which shares few rows out badly among threads. The operators are those that
`torch.compile` uses.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.nn.linear import Linear

After = Literal["none", "gelu", "gelu_tanh"]
FEWEST = 64
"""Rows from which it pays: below, the matrix itself is what is waited for."""


def linear(x: Tensor, layer: Linear, after: After = "none") -> Tensor:
    """`[..., in] -> [..., out]`: the layer and an activation."""
    if _fits(x, layer):
        kind, algorithm = ("none", "") if after == "none" else ("gelu", "tanh" if after == "gelu_tanh" else "none")
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, kind, [], algorithm)
    h = layer(x)
    return h if after == "none" else F.gelu(h, approximate="tanh" if after == "gelu_tanh" else "none")


def _fits(x: Tensor, layer: Linear) -> bool:
    if torch.is_grad_enabled() or not x.is_cpu or not x.dtype == layer.weight.dtype == torch.float32:
        return False
    enough = x.numel() >= FEWEST * x.shape[-1] and x.is_contiguous() and not torch.compiler.is_compiling()
    return enough and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
