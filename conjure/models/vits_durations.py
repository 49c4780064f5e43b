"""The part of VITS that says how long each character sounds: drawn at random through splines, or always the same.

Kim et al. 2021, arXiv 2106.06103, 2.2.2 and A. What only training needs is not here.

Legend: B rows, T characters, D width, E width of a speaker's embedding, K bins of a spline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.nn import spline
from conjure.nn.norm import LayerNorm

EPS = 1e-5
"""Of the norms between separable convolutions, which no config changes."""


@dataclass(frozen=True, kw_only=True)
class VitsDurationsConfig:
    dim: int = 192
    random: bool = True
    """Drawn, not always the same."""
    kernel: int = 3
    layers: int = 3
    """Of separable convolutions in a row."""
    flows: int = 4
    bins: int = 10
    bound: float = 5.0
    """Of the splines."""
    hidden: int = 256
    """Width of the predictor that is not random."""
    norm_eps: float = 1e-5
    """Of that one's norms."""
    speaker: int = 0


class Separable(nn.Module):
    """Convolutions of each channel alone, with wider and wider gaps, and of all channels at one place, in turn."""

    def __init__(self, dim: int, kernel: int, layers: int) -> None:
        super().__init__()
        gaps = [kernel**layer for layer in range(layers)]
        self.along = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, groups=dim, dilation=gap, padding=(kernel - 1) * gap // 2) for gap in gaps
        )
        self.across = nn.ModuleList(nn.Conv1d(dim, dim, 1) for _ in gaps)
        self.norm_along = nn.ModuleList(LayerNorm(dim, EPS) for _ in gaps)
        self.norm_across = nn.ModuleList(LayerNorm(dim, EPS) for _ in gaps)

    def forward(self, x_BDT: Tensor) -> Tensor:
        """`[B, D, T] -> [B, D, T]`"""
        for along, across, first, second in zip(
            self.along, self.across, self.norm_along, self.norm_across, strict=True
        ):
            h = F.gelu(first(along(x_BDT).mT)).mT
            x_BDT = x_BDT + F.gelu(second(across(h).mT)).mT
        return x_BDT


class SplineFlow(nn.Module):
    """The second of two channels through a spline that the first chooses."""

    def __init__(self, config: VitsDurationsConfig) -> None:
        super().__init__()
        self.config = c = config
        self.first = nn.Conv1d(1, c.dim, 1)
        self.between = Separable(c.dim, c.kernel, c.layers)
        self.last = nn.Conv1d(c.dim, 3 * c.bins - 1, 1)

    def inverse(self, y_B2T: Tensor, told_BDT: Tensor) -> Tensor:
        """`[B, 2, T] -> [B, 2, T]`"""
        seen_B1T, other_B1T = y_B2T.chunk(2, dim=1)
        c = self.config
        told_BTK = self.last(self.between(self.first(seen_B1T) + told_BDT)).mT
        wide = told_BTK[..., : 2 * c.bins] / math.sqrt(c.dim)
        told_BTK = torch.cat([wide, told_BTK[..., 2 * c.bins :]], dim=-1)
        return torch.cat([seen_B1T, spline.inverse(other_B1T[:, 0], told_BTK, c.bound)[:, None]], dim=1)


class Affine(nn.Module):
    """exp(log_scale) x + shift of each of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(2, 1)), nn.Parameter(torch.zeros(2, 1))

    def inverse(self, y_B2T: Tensor) -> Tensor:
        """`[B, 2, T] -> [B, 2, T]`"""
        return (y_B2T - self.shift) * torch.exp(-self.log_scale)


class RandomDurations(nn.Module):
    """Log-durations through flows that begin in noise."""

    def __init__(self, config: VitsDurationsConfig) -> None:
        super().__init__()
        self.config = c = config
        self.first, self.last = nn.Conv1d(c.dim, c.dim, 1), nn.Conv1d(c.dim, c.dim, 1)
        self.between = Separable(c.dim, c.kernel, c.layers)
        self.speaker = nn.Conv1d(c.speaker, c.dim, 1) if c.speaker else None
        self.affine = Affine()
        # The second flow of a file changes only the channel that is not read in the end.
        self.flows = nn.ModuleList(nn.Identity() if n < 2 else SplineFlow(c) for n in range(c.flows + 1))

    def forward(self, x_BDT: Tensor, speaker_BE1: Tensor | None, noise_B2T: Tensor) -> Tensor:
        """Log-durations `[B, T]`."""
        told_BDT = self.first(x_BDT)
        if self.speaker is not None and speaker_BE1 is not None:
            told_BDT = told_BDT + self.speaker(speaker_BE1)
        told_BDT = self.last(self.between(told_BDT))
        y_B2T = noise_B2T
        for flow in reversed(self.flows):
            if isinstance(flow, SplineFlow):
                y_B2T = flow.inverse(y_B2T.flip(1), told_BDT)
        return self.affine.inverse(y_B2T.flip(1))[:, 0]


class SteadyDurations(nn.Module):
    """Log-durations by two convolutions: the same each time."""

    def __init__(self, config: VitsDurationsConfig) -> None:
        super().__init__()
        c = config
        self.first = nn.Conv1d(c.dim, c.hidden, c.kernel, padding=c.kernel // 2)
        self.second = nn.Conv1d(c.hidden, c.hidden, c.kernel, padding=c.kernel // 2)
        self.norm_first, self.norm_second = LayerNorm(c.hidden, c.norm_eps), LayerNorm(c.hidden, c.norm_eps)
        self.last = nn.Conv1d(c.hidden, 1, 1)
        self.speaker = nn.Conv1d(c.speaker, c.dim, 1) if c.speaker else None

    def forward(self, x_BDT: Tensor, speaker_BE1: Tensor | None, noise_B2T: Tensor | None = None) -> Tensor:
        """Log-durations `[B, T]`; noise changes nothing."""
        if self.speaker is not None and speaker_BE1 is not None:
            x_BDT = x_BDT + self.speaker(speaker_BE1)
        h = self.norm_first(F.relu(self.first(x_BDT)).mT).mT
        return self.last(self.norm_second(F.relu(self.second(h)).mT).mT)[:, 0]
