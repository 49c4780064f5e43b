"""EnCodec: convolutions and an LSTM make frames of a wave, residual quantisation makes numbers of them, and the same
backwards (Defossez et al. 2022, arXiv 2210.13438). For use; it is not trained here.

The published layouts differ by config alone: 24 kHz and 32 kHz mono, read at once; 48 kHz stereo, read in overlapping
parts of a second that are each brought to one loudness.

Legend: B rows, C channels, N samples, D width of a frame, T frames, Q books.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.sound_codes import SoundCodes
from conjure.nn.residual_quantiser import ResidualQuantiser
from conjure.nn.wave_convolution import Norm, PaddedConv1d, PaddedConvTranspose1d, Padding

QUIETEST = 1e-8
"""Added to a loudness."""


@dataclass(frozen=True, kw_only=True)
class EncodecConfig:
    rate: int = 24_000
    channels: int = 1
    filters: int = 32
    """Channels of the first convolution; each step down doubles them."""
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    """Of the decoder, the coarsest first; their product is the hop."""
    residuals: int = 1
    """Residual blocks of each step."""
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    growth: int = 2
    """By which the dilation grows from block to block of a step."""
    compress: int = 2
    """A residual block is so much narrower inside."""
    shortcut: bool = True
    """A convolution beside each residual block."""
    lstm: int = 2
    """Layers between convolutions and codes, on either side."""
    dim: int = 128
    books: int = 32
    codes: int = 1024
    causal: bool = True
    trim: float = 1.0
    """Share of what a step up has too much that is cut off at the right, where causal."""
    padding: Padding = "reflect"
    norm: Norm = "none"
    normalise: bool = False
    """Every part is brought to one loudness."""
    part: int = 0
    """Samples that are read at once; 0: all."""
    overlap: float = 0.0
    """Share of a part that the next one reads again."""

    def __post_init__(self) -> None:
        for name in ("rate", "channels", "filters", "kernel", "last_kernel", "residual_kernel", "growth", "compress",
                     "dim", "books", "codes"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConjureError(f"codec: {name}: expected at least 1, got {getattr(self, name)}")
        if not self.ratios or min(self.ratios) < 1 or min(self.residuals, self.lstm, self.part) < 0:
            raise ConjureError("codec: expected ratios above 0, and residuals, lstm and part of 0 or more")
        if not 0 <= self.overlap < 1:
            raise ConjureError("codec: expected overlap from 0 to below 1")
        if not 0 <= self.trim <= 1 or (self.trim != 1 and not self.causal):
            raise ConjureError("codec: trim: expected a share, and 1 where the codec is not causal")

    @property
    def hop(self) -> int:
        return math.prod(self.ratios)

    @property
    def stride(self) -> int:
        """Samples from one part to the next; 0: there is one."""
        return max(1, int((1 - self.overlap) * self.part)) if self.part else 0


class Residual(nn.Module):
    """ELU and convolution, twice, beside a convolution of one tap."""

    def __init__(self, config: EncodecConfig, width: int, dilation: int) -> None:
        super().__init__()
        c, inner = config, max(1, width // config.compress)
        self.first = _conv(c, width, inner, c.residual_kernel, dilation=dilation)
        self.second = _conv(c, inner, width, 1)
        self.shortcut = _conv(c, width, width, 1) if c.shortcut else nn.Identity()
        self.activation = nn.ELU()

    def forward(self, x_BCT: Tensor) -> Tensor:
        inner_BCT = self.first(self.activation(x_BCT))
        return self.shortcut(x_BCT) + self.second(self.activation(inner_BCT))


class SkipLSTM(nn.Module):
    """LSTM layers over frames, beside a way past them."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm, self.layers = nn.LSTM(width, width, layers), layers

    def forward(self, x_BCT: Tensor) -> Tensor:
        x_TBC = x_BCT.permute(2, 0, 1)
        start = x_TBC.new_zeros(self.layers, x_TBC.shape[1], x_TBC.shape[2])
        # By hand, since nn.LSTM goes on with the weights that it was made with when a loader puts others in place.
        weights: list[Tensor] = [*self.lstm.parameters()]
        made_TBC, *_ = torch.lstm(x_TBC, (start, start), weights, True, self.layers, 0.0, self.training, False, False)
        return (made_TBC + x_TBC).permute(1, 2, 0)


class Encodec(nn.Module):
    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder, self.decoder = nn.Sequential(*_down(c)), nn.Sequential(*_up(c))
        self.quantiser = ResidualQuantiser(c.books, c.codes, c.dim)

    @torch.no_grad()
    def encode(self, x_BCN: Tensor, books: int = 0) -> SoundCodes:
        """Part by part."""
        c, samples = self.config, x_BCN.shape[-1]
        if x_BCN.shape[1] != c.channels or not samples:
            raise ConjureError(f"expected sound of {c.channels} channel{'s' * (c.channels > 1)}, got "
                               f"{list(x_BCN.shape)}")  # fmt: skip
        parts, scales = [], []
        for start in range(0, samples, c.stride or samples):
            part_BCN, scale_B1 = self._levelled(x_BCN[..., start : start + (c.part or samples)])
            parts.append(self.quantiser.encode(self.encoder(part_BCN), books))
            scales.append(scale_B1)
        return SoundCodes(tuple(parts), tuple(scales), samples)

    @torch.no_grad()
    def decode(self, codes: SoundCodes) -> Tensor:
        """The sound `[B, C, N]`, within -1 and 1 or a little more."""
        made = []
        for part_BQT, scale_B1 in zip(codes.parts, codes.scales, strict=True):
            part_BCN = self.decoder(self.quantiser.decode(part_BQT))
            made.append(part_BCN if scale_B1 is None else part_BCN * scale_B1[..., None])
        whole_BCN = made[0] if not self.config.part else joined(made, self.config.stride)
        return whole_BCN[..., : codes.samples]

    def _levelled(self, x_BCN: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.config.normalise:
            return x_BCN, None
        scale_B11 = x_BCN.mean(1, keepdim=True).square().mean(-1, keepdim=True).sqrt() + QUIETEST
        return x_BCN / scale_B11, scale_B11[:, 0]


def joined(parts: list[Tensor], stride: int) -> Tensor:
    """Overlapping parts `[B, C, n]` as one sound: each weighs most in its middle and least at its ends."""
    length = parts[0].shape[-1]
    total = stride * (len(parts) - 1) + parts[-1].shape[-1]
    at_n = torch.linspace(0, 1, length + 2, dtype=parts[0].dtype, device=parts[0].device)[1:-1]
    weight_n = 0.5 - (at_n - 0.5).abs()
    sum_BCN, weights_N = parts[0].new_zeros(*parts[0].shape[:-1], total), parts[0].new_zeros(total)
    for place, part in enumerate(parts):
        where = slice(place * stride, place * stride + part.shape[-1])
        sum_BCN[..., where] += weight_n[: part.shape[-1]] * part
        weights_N[where] += weight_n[: part.shape[-1]]
    return sum_BCN / weights_N


def _conv(c: EncodecConfig, before: int, after: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Module:
    return PaddedConv1d(before, after, kernel, stride=stride, dilation=dilation, causal=c.causal, padding=c.padding,
                        norm=c.norm)  # fmt: skip


def _down(c: EncodecConfig) -> list[nn.Module]:
    width = c.filters
    layers = [_conv(c, c.channels, width, c.kernel)]
    for ratio in reversed(c.ratios):
        layers += [Residual(c, width, c.growth**place) for place in range(c.residuals)]
        layers += [nn.ELU(), _conv(c, width, 2 * width, 2 * ratio, stride=ratio)]
        width *= 2
    layers += [SkipLSTM(width, c.lstm)] if c.lstm else []
    return [*layers, nn.ELU(), _conv(c, width, c.dim, c.last_kernel)]


def _up(c: EncodecConfig) -> list[nn.Module]:
    width = c.filters * 2 ** len(c.ratios)
    layers = [_conv(c, c.dim, width, c.kernel)]
    layers += [SkipLSTM(width, c.lstm)] if c.lstm else []
    for ratio in c.ratios:
        layers += [nn.ELU(), PaddedConvTranspose1d(width, width // 2, 2 * ratio, stride=ratio, causal=c.causal,
                                                   trim=c.trim, norm=c.norm)]  # fmt: skip
        width //= 2
        layers += [Residual(c, width, c.growth**place) for place in range(c.residuals)]
    return [*layers, nn.ELU(), _conv(c, width, c.channels, c.last_kernel)]
