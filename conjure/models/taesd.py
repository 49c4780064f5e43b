"""TAESD, the tiny autoencoder: decodes the latents of a large one in a fraction of its time, for previews.

O. Boer Bohan 2023, https://github.com/madebyollin/taesd. No norms and no attention: a pixel depends on its
neighbourhood alone.

Legend: B batch, C channels of the picture, H and W its sides, Z channels of a latent, h and w its sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.convolution import Conv2d
from conjure.nn.spatial import innermost


@dataclass(frozen=True, kw_only=True)
class TinyAutoencoderConfig:
    channels: int = 3
    latent: int = 4
    """Z"""
    widths_in: tuple[int, ...] = (64, 64, 64, 64)
    """Channels of each level of the encoder, the finest first; all are equal."""
    widths_out: tuple[int, ...] = (64, 64, 64, 64)
    """Of the decoder, the coarsest first."""
    blocks_in: tuple[int, ...] = (1, 3, 3, 3)
    blocks_out: tuple[int, ...] = (3, 3, 3, 1)
    scale: float = 1.0
    shift: float = 0.0
    """Diffusion runs on (latent - shift) * scale; as a rule the tiny one was taught those latents as they are."""

    def __post_init__(self) -> None:
        for widths, blocks in ((self.widths_in, self.blocks_in), (self.widths_out, self.blocks_out)):
            if not widths or len(widths) != len(blocks) or len(set(widths)) > 1 or min(*blocks, 1) < 0:
                raise ConjureError(f"expected equal widths, one for each number of blocks, got {widths} and {blocks}")
        if len(self.widths_in) != len(self.widths_out) or self.scale == 0:
            raise ConjureError("expected encoder and decoder of as many levels and a scale other than 0")

    @property
    def shrink(self) -> int:
        """Pixels a latent, along a side."""
        return 2 ** (len(self.widths_in) - 1)


class Block(nn.Module):
    """relu(x + conv relu conv relu conv x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(_relu(self.conv1(x)))
        return _relu(self.conv3(_relu(h)).add_(x))


class Level(nn.Module):
    """`resize` is a convolution of stride 2 before an encoder's blocks, or follows a doubling after a decoder's."""

    def __init__(self, width: int, blocks: int, resize: Conv2d | None) -> None:
        super().__init__()
        self.resize = resize
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))


class Encoder(nn.Module):
    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        width = config.widths_in[0]
        self.start = Conv2d(config.channels, width, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(width, blocks, Conv2d(width, width, 3, padding=1, stride=2, bias=False) if at else None)
            for at, blocks in enumerate(config.blocks_in)
        )
        self.out = Conv2d(width, config.latent, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Pixels in [-1, 1] to latents."""
        x = self.start(x_BCHW.add(1).div(2))
        for level in self.levels:
            assert isinstance(level, Level)
            x = x if level.resize is None else level.resize(x)
            for block in level.blocks:
                x = block(x)
        return self.out(x)


class Decoder(nn.Module):
    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        width, last = config.widths_out[0], len(config.widths_out) - 1
        self.start = Conv2d(config.latent, width, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(width, blocks, Conv2d(width, width, 3, padding=1, bias=False) if at < last else None)
            for at, blocks in enumerate(config.blocks_out)
        )
        self.out = Conv2d(width, config.channels, 3, padding=1)

    def forward(self, z_BZhw: Tensor) -> Tensor:
        """Latents, bent to lie within 3 of 0, to pixels in about [-1, 1]."""
        x = _relu(self.start(torch.tanh(z_BZhw / 3) * 3))
        for level in self.levels:
            assert isinstance(level, Level)
            for block in level.blocks:
                x = block(x)
            x = x if level.resize is None else level.resize(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.out(x).mul(2).sub(1)


class TinyAutoencoder(nn.Module):
    """The surface of `AutoencoderKL`; its Gaussian has no width: the logarithm of the variance is -30."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        """What activations are; null: what the weights are."""
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def encode(self, x_BCHW: Tensor, tile: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, float32 `[B, Z, h, w]` each, of the latents of pictures."""
        c = self.config
        if x_BCHW.shape[1] != c.channels or any(side % c.shrink for side in x_BCHW.shape[2:]):
            raise ConjureError(f"the autoencoder reads {c.channels} channels and sides that {c.shrink} divides, got "
                               f"{x_BCHW.shape[1]} channels, {x_BCHW.shape[3]} x {x_BCHW.shape[2]}")
        x = innermost(x_BCHW.to(self._dtype()))
        mean = _tiled(self.encoder, x, c.shrink, 1, tile, self._reach()).float()
        return mean, torch.full_like(mean, -30.0)

    def decode(self, z_BZhw: Tensor, tile: int = 0) -> Tensor:
        """Pictures float32 `[B, C, H, W]` in about [-1, 1] of latents."""
        if z_BZhw.shape[1] != self.config.latent:
            raise ConjureError(f"the autoencoder decodes {self.config.latent} channels, got {z_BZhw.shape[1]}",
                               hint="the latents are another model's")
        z = innermost(z_BZhw.to(self._dtype()))
        return _tiled(self.decoder, z, 1, self.config.shrink, tile, self._reach()).float()

    def to_latent(self, mean_BZhw: Tensor) -> Tensor:
        """What diffusion runs on."""
        return (mean_BZhw - self.config.shift) * self.config.scale

    def from_latent(self, x_BZhw: Tensor) -> Tensor:
        """What is decoded."""
        return x_BZhw / self.config.scale + self.config.shift

    def _reach(self) -> int:
        """How many latents away something can still matter: each convolution looks one pixel further."""
        most = max(max(self.config.blocks_in), max(self.config.blocks_out))
        return 2 * (3 * most + 2) + 1

    def _dtype(self) -> torch.dtype:
        return self.compute_dtype or self.decoder.start.weight.dtype


def _tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, shrink: int, grow: int, tile: int, reach: int
) -> Tensor:
    """In bands of `tile` rows of latents with all that can matter around them: nothing has to be blended."""
    rows = x.shape[2] // shrink
    if tile < 1 or tile + 2 * reach >= rows:
        return network(x)
    parts = []
    for top in range(0, rows, tile):
        first, last = max(top - reach, 0), min(top + tile + reach, rows)
        made = network(x[:, :, first * shrink : last * shrink])
        parts.append(made[:, :, (top - first) * grow : (min(top + tile, rows) - first) * grow])
    return torch.cat(parts, dim=2)


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=not x.requires_grad)
