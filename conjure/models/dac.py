"""DAC: convolutions with Snake make frames of a wave, and books of few dimensions numbers of them (Kumar et al. 2023,
arXiv 2306.06546). For use; it is not trained here.

Legend: B rows, C channels, N samples, T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.sound_codes import SoundCodes
from conjure.nn.residual_quantiser import FactorisedQuantiser
from conjure.nn.wave_convolution import Snake

DILATIONS = (1, 3, 9)


@dataclass(frozen=True, kw_only=True)
class DACConfig:
    rate: int = 44_100
    width_in: int = 64
    """Channels of the encoder's first convolution; each step doubles them."""
    width_out: int = 1536
    """Of the decoder's; each step halves them."""
    ratios: tuple[int, ...] = (2, 4, 8, 8)
    """Of the encoder; the decoder has them backwards."""
    dim: int = 1024
    books: int = 9
    codes: int = 1024
    code_dim: int = 8

    def __post_init__(self) -> None:
        for name in ("rate", "width_in", "width_out", "dim", "books", "codes", "code_dim"):
            if getattr(self, name) < 1:
                raise ConjureError(f"codec: {name}: expected at least 1, got {getattr(self, name)}")
        if not self.ratios or min(self.ratios) < 1 or self.width_out % 2 ** len(self.ratios):
            raise ConjureError("codec: expected ratios above 0, and a width_out that can be halved for each of them")

    @property
    def channels(self) -> int:
        return 1

    @property
    def hop(self) -> int:
        return math.prod(self.ratios)


class ResidualUnit(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Snake(width), nn.Conv1d(width, width, 7, dilation=dilation, padding=3 * dilation),
            Snake(width), nn.Conv1d(width, width, 1),
        )  # fmt: skip

    def forward(self, x_BCT: Tensor) -> Tensor:
        return x_BCT + self.layers(x_BCT)


class DAC(nn.Module):
    def __init__(self, config: DACConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder, self.decoder = nn.Sequential(*_down(c)), nn.Sequential(*_up(c))
        self.quantiser = FactorisedQuantiser(c.books, c.codes, c.dim, c.code_dim)

    @torch.no_grad()
    def encode(self, x_BCN: Tensor, books: int = 0) -> SoundCodes:
        """Filled up with silence to whole frames."""
        samples = x_BCN.shape[-1]
        if x_BCN.shape[1] != 1 or not samples:
            raise ConjureError(f"expected sound of 1 channel, got {list(x_BCN.shape)}")
        frames_BDT = self.encoder(F.pad(x_BCN, (0, -samples % self.config.hop)))
        return SoundCodes((self.quantiser.encode(frames_BDT, books),), (None,), samples)

    @torch.no_grad()
    def decode(self, codes: SoundCodes) -> Tensor:
        """The sound `[B, 1, N]`, within -1 and 1. Where a ratio is odd, a few samples at the end are missing and 0."""
        (part_BQT,) = codes.parts
        made_BCN = self.decoder(self.quantiser.decode(part_BQT))
        return F.pad(made_BCN, (0, max(0, codes.samples - made_BCN.shape[-1])))[..., : codes.samples]


def _down(c: DACConfig) -> list[nn.Module]:
    width = c.width_in
    layers: list[nn.Module] = [nn.Conv1d(1, width, 7, padding=3)]
    for ratio in c.ratios:
        layers += [ResidualUnit(width, dilation) for dilation in DILATIONS]
        layers += [Snake(width), nn.Conv1d(width, 2 * width, 2 * ratio, ratio, padding=math.ceil(ratio / 2))]
        width *= 2
    return [*layers, Snake(width), nn.Conv1d(width, c.dim, 3, padding=1)]


def _up(c: DACConfig) -> list[nn.Module]:
    width = c.width_out
    layers: list[nn.Module] = [nn.Conv1d(c.dim, width, 7, padding=3)]
    for ratio in reversed(c.ratios):
        layers += [Snake(width), nn.ConvTranspose1d(width, width // 2, 2 * ratio, ratio, padding=math.ceil(ratio / 2))]
        width //= 2
        layers += [ResidualUnit(width, dilation) for dilation in DILATIONS]
    return [*layers, Snake(width), nn.Conv1d(width, 1, 7, padding=3), nn.Tanh()]
