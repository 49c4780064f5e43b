"""ConvNeXt blocks over time: a depthwise convolution, then two layers at each step.

Liu et al., arXiv 2201.03545, in one dimension as in Vocos (Siuzdak, arXiv 2306.00814, section 3.2). A block may be
shifted, scaled and gated by a condition as the blocks of a diffusion transformer are (`modulation.py`).

Legend: B batch, T steps, D width, H hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.nn.linear import Linear
from conjure.nn.modulation import leave_to_adam, modulated
from conjure.nn.norm import LayerNorm


class TimeConvolution(nn.Module):
    """A convolution along time of `[B, T, in]`, zeros beyond the ends; `depthwise` keeps channels apart."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, dilation: int = 1,
                 depthwise: bool = False) -> None:  # fmt: skip
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel, got {kernel}")
        self.dilation, self.groups = dilation, channels_in if depthwise else 1
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in // self.groups, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        nn.init.normal_(self.weight, std=(kernel * channels_in / self.groups) ** -0.5)
        leave_to_adam(self.weight)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`[B, T, in] -> [B, T, out]`"""
        reach = self.dilation * (self.weight.shape[2] // 2)
        weight, bias = self.weight.to(x_BTD.dtype), self.bias.to(x_BTD.dtype)
        y_BDT = F.conv1d(x_BTD.transpose(1, 2), weight, bias, padding=reach, dilation=self.dilation, groups=self.groups)
        return y_BDT.transpose(1, 2)


class ConvNeXt(nn.Module):
    """x + gate * down(gelu(up(norm(depthwise(x))))): the gate is a vector of its own, times that of the condition."""

    def __init__(self, dim: int, hidden: int, *, kernel: int = 7, dilation: int = 1, gate: float = 0.3) -> None:
        super().__init__()
        self.depthwise = TimeConvolution(dim, dim, kernel, dilation=dilation, depthwise=True)
        self.norm = LayerNorm(dim, eps=1e-6)
        self.up, self.down = Linear(dim, hidden), Linear(hidden, dim)
        self.gate = nn.Parameter(torch.full((dim,), gate))

    def forward(
        self, x_BTD: Tensor, mask_BT1: Tensor | None = None, condition: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Tensor:
        """`mask` is 1 where there is something: nothing comes in from elsewhere. `condition` is shift, scale and gate,
        `[B, 1, D]` each."""
        h_BTD = self.norm(self.depthwise(x_BTD if mask_BT1 is None else x_BTD * mask_BT1))
        gate = self.gate.to(x_BTD.dtype)
        if condition is not None:
            shift_B1D, scale_B1D, gate_B1D = condition
            h_BTD = modulated(h_BTD, shift_B1D, scale_B1D)
            gate = gate * (1 + gate_B1D)
        return x_BTD + gate * self.down(F.gelu(self.up(h_BTD)))
