"""The part of VITS between text and sound: couplings that can be run backwards, each with a WaveNet inside.

Kim et al. 2021, arXiv 2106.06103, 2.1.3; WaveNet by van den Oord et al. 2016, arXiv 1609.03499.

Legend: B rows, T frames, L width of the latents, D width inside, E width of a speaker's embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError


@dataclass(frozen=True, kw_only=True)
class VitsFlowConfig:
    latents: int = 192
    dim: int = 192
    couplings: int = 4
    layers: int = 4
    """Of each WaveNet."""
    kernel: int = 5
    dilation: int = 1
    """By how much the gaps of a layer are wider than those of the one before."""
    speaker: int = 0

    def __post_init__(self) -> None:
        if self.latents % 2 or self.kernel % 2 == 0:
            got = f"{self.latents} and {self.kernel}"
            raise ConjureError(f"VITS: expected an even width of latents and an odd kernel, got {got}")


class WaveNet(nn.Module):
    """Layers of gated convolutions; the sum of what each says besides what it hands on."""

    def __init__(self, config: VitsFlowConfig) -> None:
        super().__init__()
        self.config = c = config
        gaps = [c.dilation**layer for layer in range(c.layers)]
        self.gated = nn.ModuleList(
            nn.Conv1d(c.dim, 2 * c.dim, c.kernel, dilation=gap, padding=(c.kernel - 1) * gap // 2) for gap in gaps
        )
        self.split = nn.ModuleList(nn.Conv1d(c.dim, (2 if n < c.layers - 1 else 1) * c.dim, 1) for n in range(c.layers))
        self.speaker = nn.Conv1d(c.speaker, 2 * c.dim * c.layers, 1) if c.speaker else None

    def forward(self, x_BDT: Tensor, speaker_BE1: Tensor | None) -> Tensor:
        """`[B, D, T] -> [B, D, T]`"""
        told = None
        if self.speaker is not None and speaker_BE1 is not None:
            told = self.speaker(speaker_BE1).chunk(self.config.layers, dim=1)
        said = torch.zeros_like(x_BDT)
        for layer, (gated, split) in enumerate(zip(self.gated, self.split, strict=True)):
            h = gated(x_BDT)
            what, how_much = (h if told is None else h + told[layer]).chunk(2, dim=1)
            h = split(torch.tanh(what) * torch.sigmoid(how_much))
            if layer < self.config.layers - 1:
                on, h = h.chunk(2, dim=1)
                x_BDT = x_BDT + on
            said = said + h
        return said


class Coupling(nn.Module):
    """The second half of the channels, moved by what the first half says."""

    def __init__(self, config: VitsFlowConfig) -> None:
        super().__init__()
        half = config.latents // 2
        self.first, self.last = nn.Conv1d(half, config.dim, 1), nn.Conv1d(config.dim, half, 1)
        self.between = WaveNet(config)

    def inverse(self, y_BLT: Tensor, speaker_BE1: Tensor | None) -> Tensor:
        """`[B, L, T] -> [B, L, T]`"""
        seen, other = y_BLT.chunk(2, dim=1)
        return torch.cat([seen, other - self.last(self.between(self.first(seen), speaker_BE1))], dim=1)


class VitsFlow(nn.Module):
    """From latents that follow the text to latents that sound."""

    def __init__(self, config: VitsFlowConfig) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(config) for _ in range(config.couplings))

    def inverse(self, y_BLT: Tensor, speaker_BE1: Tensor | None) -> Tensor:
        """`[B, L, T] -> [B, L, T]`; between couplings the halves change places."""
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, Coupling)
            y_BLT = coupling.inverse(y_BLT.flip(1), speaker_BE1)
        return y_BLT
