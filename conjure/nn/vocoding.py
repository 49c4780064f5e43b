"""From frames to a wave: the generator of HiFi-GAN (Kong et al. 2020, arXiv 2010.05646).

Each stage makes the frames some times as many and half as wide, and takes the mean of blocks that look at different
stretches of them. VITS and SpeechT5 end in it.

Legend: B rows, C channels of a frame, E width of a speaker's embedding, T frames, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError

ENDS = 7
"""Kernel of the first and the last convolution."""
LAST_SLOPE = 0.01
"""Of the leaky ReLU before the last convolution, which no config changes."""


@dataclass(frozen=True, kw_only=True)
class HifiGanConfig:
    channels: int
    """Of the frames that come in."""
    width: int = 512
    """Behind the first convolution; each stage halves it."""
    rates: tuple[int, ...] = (4, 4, 4, 4)
    """By how much each stage multiplies the frames."""
    kernels: tuple[int, ...] = (8, 8, 8, 8)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    slope: float = 0.1
    """Of the leaky ReLUs."""
    speaker: int = 0
    """Width of a speaker's embedding; 0: none is heard."""
    last_bias: bool = True
    scaled: bool = False
    """Frames are first brought to mean 0 and scale 1, by what the file says."""

    def __post_init__(self) -> None:
        if not len(self.rates) == len(self.kernels) > 0:
            raise ConjureError(
                f"vocoder: expected a rate and a kernel for each stage, got {len(self.rates)} and {len(self.kernels)}"
            )
        if not len(self.block_kernels) == len(self.block_dilations) > 0:
            got = f"{len(self.block_kernels)} and {len(self.block_dilations)}"
            raise ConjureError(f"vocoder: expected a kernel and dilations for each block, got {got}")
        if any(kernel < rate or (kernel - rate) % 2 for kernel, rate in zip(self.kernels, self.rates, strict=True)):
            raise ConjureError(
                f"vocoder: expected kernels that are longer than their rate by an even number, got {self.kernels} for "
                f"{self.rates}"
            )
        if any(kernel % 2 == 0 for kernel in self.block_kernels):
            raise ConjureError(f"vocoder: expected odd kernels of blocks, got {self.block_kernels}")
        if self.width % 2 ** len(self.rates) or self.channels < 1:
            raise ConjureError(f"vocoder: {len(self.rates)} stages cannot halve a width of {self.width}")

    @property
    def hop(self) -> int:
        """Samples for a frame."""
        product = 1
        for rate in self.rates:
            product *= rate
        return product


class Block(nn.Module):
    """Pairs of convolutions, the first of each dilated; each pair is added to what it reads."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], slope: float) -> None:
        super().__init__()
        self.slope = slope

        def layer(dilation: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)

        self.dilated = nn.ModuleList(layer(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(layer(1) for _ in dilations)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """`[B, C, T] -> [B, C, T]`"""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            h = dilated(F.leaky_relu(x_BCT, self.slope))
            x_BCT = x_BCT + plain(F.leaky_relu(h, self.slope))
        return x_BCT


class HifiGan(nn.Module):
    """Frames `[B, C, T]` -> samples `[B, T hop]` between -1 and 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: HifiGanConfig) -> None:
        super().__init__()
        self.config = c = config
        self.first = nn.Conv1d(c.channels, c.width, ENDS, padding=ENDS // 2)
        widths = [c.width >> stage for stage in range(len(c.rates) + 1)]
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(widths[n], widths[n + 1], kernel, rate, padding=(kernel - rate) // 2)
            for n, (kernel, rate) in enumerate(zip(c.kernels, c.rates, strict=True))
        )
        self.blocks = nn.ModuleList(
            Block(width, kernel, dilations, c.slope)
            for width in widths[1:]
            for kernel, dilations in zip(c.block_kernels, c.block_dilations, strict=True)
        )
        self.last = nn.Conv1d(widths[-1], 1, ENDS, padding=ENDS // 2, bias=c.last_bias)
        self.speaker = nn.Conv1d(c.speaker, c.width, 1) if c.speaker else None
        if c.scaled:
            self.register_buffer("mean", torch.zeros(c.channels))
            self.register_buffer("scale", torch.ones(c.channels))

    def forward(self, x_BCT: Tensor, speaker_BE1: Tensor | None = None) -> Tensor:
        """`[B, C, T] -> [B, N]`, N = T hop."""
        if self.config.scaled:
            x_BCT = (x_BCT - self.mean[:, None]) / self.scale[:, None]
        h = self.first(x_BCT)
        if self.speaker is not None and speaker_BE1 is not None:
            h = h + self.speaker(speaker_BE1)
        several = len(self.config.block_kernels)
        for stage, up in enumerate(self.up):
            h = up(F.leaky_relu(h, self.config.slope))
            heard = torch.zeros_like(h)
            for block in self.blocks[stage * several : (stage + 1) * several]:
                heard += block(h)
            h = heard / several
        return torch.tanh(self.last(F.leaky_relu(h, LAST_SLOPE)))[:, 0]
