"""Convolutions over samples as codecs of sound use them: padded so that nothing is lost, and Snake.

Legend: B rows, C channels, T samples or frames.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["reflect", "constant", "replicate"]
Norm = Literal["none", "group"]
TINY = 1e-9
"""Keeps Snake from dividing by 0."""


class PaddedConv1d(nn.Module):
    """A convolution of stride s that makes ceil(T / s) frames of T: `causal` ones see nothing behind their frame.

    As in SEANet (Tagliasacchi et al. 2020, arXiv 2009.02095) and EnCodec (arXiv 2210.13438); `norm` "group" is over all
    channels and all of time.
    """

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, dilation: int = 1, causal: bool = True,
        padding: Padding = "reflect", norm: Norm = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv1d(before, after, kernel, stride, dilation=dilation)
        self.norm = nn.GroupNorm(1, after) if norm == "group" else None
        self.stride, self.causal = stride, causal
        self.padding: Padding = padding
        self.reach = (kernel - 1) * dilation + 1 - stride
        """Samples that are added in all."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        right = 0 if self.causal else self.reach // 2
        whole = -x_BCT.shape[-1] % self.stride
        x_BCT = self.conv(padded(x_BCT, self.reach - right, right + whole, self.padding))
        return x_BCT if self.norm is None else self.norm(x_BCT)


class PaddedConvTranspose1d(nn.Module):
    """The way back: s T samples of T frames. Of what is too much, `trim` (a share) is cut off at the right where
    `causal`, else half of it at either side."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int, causal: bool = True, trim: float = 1.0,
        norm: Norm = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.ConvTranspose1d(before, after, kernel, stride)
        self.norm = nn.GroupNorm(1, after) if norm == "group" else None
        spare = kernel - stride
        self.right = math.ceil(spare * trim) if causal else spare // 2
        self.left = spare - self.right

    def forward(self, x_BCT: Tensor) -> Tensor:
        x_BCT = self.conv(x_BCT)
        x_BCT = x_BCT if self.norm is None else self.norm(x_BCT)
        return x_BCT[..., self.left : x_BCT.shape[-1] - self.right]


class Snake(nn.Module):
    """x + sin^2(a x) / a with its own a for each channel (Ziyin et al. 2020, arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x_BCT: Tensor) -> Tensor:
        return x_BCT + (self.alpha + TINY).reciprocal() * torch.sin(self.alpha * x_BCT).square()


def padded(x_BCT: Tensor, left: int, right: int, mode: Padding) -> Tensor:
    """More samples at both ends. What is too short to be mirrored is filled up with 0 at the right before, and cut
    after."""
    if mode != "reflect":
        return F.pad(x_BCT, (left, right), mode)
    short = max(0, max(left, right) - x_BCT.shape[-1] + 1)
    longer_BCT = F.pad(F.pad(x_BCT, (0, short)), (left, right), mode)
    return longer_BCT[..., : longer_BCT.shape[-1] - short]
