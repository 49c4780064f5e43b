"""The autoencoder of latent diffusion: pictures to a Gaussian over a small grid, and back.

Rombach et al. 2022 (arXiv 2112.10752, appendix G): convolutions and group norm at each level, attention over pixels
only in the middle. The same network, of other widths and channels, serves Stable Diffusion 1 to 3 and Flux.

Legend: B batch, C channels of the picture, H and W its sides, Z channels of a latent, h and w its sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.convolution import (
    Bands,
    Conv2d,
    Downsample,
    GroupNorm,
    Residual,
    Upsample,
    banded_conv,
    in_bands,
)
from conjure.nn.pages import steady
from conjure.nn.spatial import PixelAttention, innermost

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class AutoencoderKLConfig:
    """The default is that of Stable Diffusion 1."""

    channels: int = 3
    latent: int = 4
    """Z"""
    widths: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level, the finest first; each level halves the sides of the one before."""
    residuals: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""
    groups: int = 32
    attends: bool = True
    """Attention in the middle of both halves."""
    mixed_in: bool = True
    """A 1x1 convolution over mean and variance."""
    mixed_out: bool = True
    """A 1x1 convolution over what is decoded."""
    scale: float = 0.18215
    shift: float = 0.0
    """Diffusion runs on (latent - shift) * scale."""
    overflows: bool = True
    """In float16; such ones are computed in float32 or bfloat16."""

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 or width % self.groups for width in self.widths):
            raise ConjureError(f"expected widths that {self.groups} groups divide, got {self.widths}")
        if min(self.channels, self.latent, self.residuals) < 1 or self.scale == 0:
            raise ConjureError("expected channels, latent and residuals from 1 and a scale other than 0, got "
                               f"{self.channels}, {self.latent}, {self.residuals} and {self.scale}")

    @property
    def shrink(self) -> int:
        """Pixels a latent, along a side."""
        return 2 ** (len(self.widths) - 1)


class Level(nn.Module):
    """Residual blocks, then a change of size."""

    def __init__(self, blocks: list[Residual], resample: Downsample | Upsample | None) -> None:
        super().__init__()
        self.residuals, self.resample = nn.ModuleList(blocks), resample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.residuals:
            x = block(x)
        return x if self.resample is None else self.resample(x)

    def banded(self, bands: Bands) -> Bands:
        for block in self.residuals:
            assert isinstance(block, Residual)
            bands = block.banded(bands)
        return bands if self.resample is None else self.resample.banded(bands)


class Middle(nn.Module):
    """Residual block, attention, residual block: the only place where distant pixels meet."""

    def __init__(self, width: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.first, self.second = (Residual(width, width, groups=groups, eps=EPS) for _ in range(2))
        self.attention = PixelAttention(width, groups=groups, eps=EPS) if attends else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x if self.attention is None else self.attention(x))


class Encoder(nn.Module):
    """Pictures `[B, C, H, W]` to `[B, 2Z, h, w]`."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths = config.widths
        self.start = Conv2d(config.channels, widths[0], 3, padding=1)
        levels, before = [], widths[0]
        for at, width in enumerate(widths):
            blocks = _blocks(config, config.residuals, before, width)
            levels.append(Level(blocks, Downsample(width, lopsided=True) if at < len(widths) - 1 else None))
            before = width
        self.down = nn.ModuleList(levels)
        self.middle = Middle(before, config.groups, config.attends)
        self.norm_out = GroupNorm(config.groups, before, EPS, silu=True)
        self.out = Conv2d(before, 2 * config.latent, 3, padding=1)

    def forward(self, x_BCHW: Tensor, rows: int = 0) -> Tensor:
        """In bands of `rows` rows, or at once."""
        if rows:
            bands = banded_conv(self.start, in_bands(x_BCHW, rows))
            for level in self.down:
                assert isinstance(level, Level)
                bands = level.banded(bands)
            x = torch.cat(bands, dim=2)
        else:
            x = self.start(x_BCHW)
            for level in self.down:
                x = level(x)
        return self.out(self.norm_out(self.middle(x)))


class Decoder(nn.Module):
    """`[B, Z, h, w]` to pictures `[B, C, H, W]`."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.start = Conv2d(config.latent, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], config.groups, config.attends)
        levels, before = [], widths[0]
        for at, width in enumerate(widths):
            blocks = _blocks(config, config.residuals + 1, before, width)
            levels.append(Level(blocks, Upsample(width) if at < len(widths) - 1 else None))
            before = width
        self.up = nn.ModuleList(levels)
        self.norm_out = GroupNorm(config.groups, before, EPS, silu=True)
        self.out = Conv2d(before, config.channels, 3, padding=1)

    def forward(self, z_BZhw: Tensor, rows: int = 0) -> Tensor:
        """In bands of `rows` rows of the latent, or at once."""
        x = self.middle(self.start(z_BZhw))
        if rows:
            bands = in_bands(x, rows)
            del x
            for level in self.up:
                assert isinstance(level, Level)
                bands = level.banded(bands)
            return torch.cat(banded_conv(self.out, bands, self.norm_out.over(bands)), dim=2)
        for level in self.up:
            x = level(x)
        return self.out(self.norm_out(x))


class AutoencoderKL(nn.Module):
    """`encode` to mean and logarithm of the variance, `decode` latents; pixels are in [-1, 1].

    `tile` > 0 works in bands of as many rows of the latent. They give the same picture to rounding, without seams,
    because group norm still sees all of it (`nn/convolution.py`), and what is held at a time is less.
    """

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        """What activations are; null: what the weights are."""
        Z = config.latent
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.mix_in = Conv2d(2 * Z, 2 * Z, 1) if config.mixed_in else None
        self.mix_out = Conv2d(Z, Z, 1) if config.mixed_out else None

    @steady
    def encode(self, x_BCHW: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, float32 `[B, Z, h, w]` each, of the latents of pictures."""
        c = self.config
        if x_BCHW.shape[1] != c.channels or min(x_BCHW.shape[2:]) < c.shrink:
            raise ConjureError(f"the autoencoder reads {c.channels} channels and sides from {c.shrink} pixels, got "
                               f"{x_BCHW.shape[1]} channels, {x_BCHW.shape[3]} x {x_BCHW.shape[2]}")
        moments = self.encoder(innermost(x_BCHW.to(self._dtype())), tile * c.shrink)
        mean, logvar = (moments if self.mix_in is None else self.mix_in(moments)).float().chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    @steady
    def decode(self, z_BZhw: Tensor, tile: int = 0) -> Tensor:
        """Pictures float32 `[B, C, H, W]`, nearly in [-1, 1], of latents."""
        if z_BZhw.shape[1] != self.config.latent:
            raise ConjureError(f"the autoencoder decodes {self.config.latent} channels, got {z_BZhw.shape[1]}",
                               hint="the latents are another model's")
        z = innermost(z_BZhw.to(self._dtype()))
        return self.decoder(z if self.mix_out is None else self.mix_out(z), tile).float()

    def to_latent(self, mean_BZhw: Tensor) -> Tensor:
        """What diffusion runs on."""
        return (mean_BZhw - self.config.shift) * self.config.scale

    def from_latent(self, x_BZhw: Tensor) -> Tensor:
        """What is decoded."""
        return x_BZhw / self.config.scale + self.config.shift

    def _dtype(self) -> torch.dtype:
        return self.compute_dtype or self.decoder.start.weight.dtype


def _blocks(config: AutoencoderKLConfig, count: int, before: int, width: int) -> list[Residual]:
    return [Residual(width if at else before, width, groups=config.groups, eps=EPS) for at in range(count)]
