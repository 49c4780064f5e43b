"""A small convolutional autoencoder: picture <-> latent grid, 8 pixels to a cell.

It is a linear code with corrections. Each 8x8 patch goes through one matrix and comes back through another, which
start as the patches' principal components (`start_from`), the best linear code there is; convolutions, which start at
zero, add what a patch's neighbours and non-linearity can tell. Training so begins at the linear optimum. Nearly all
work is done on the coarse grid, which is what makes it quick on a CPU. Latents come out with zero mean and unit
variance per channel, measured after training, so that any diffusion process can use them as they are.

Legend: B batch, C image channels, H and W pixels, Z latent channels, h = H/8, w = W/8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.convolution import ResidualBlock

DOWNSCALE = 8  # pixels per latent cell, by construction


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoderConfig:
    channels: int = 3
    latent_channels: int = 16
    width: int = 96
    encoder_blocks: int = 1
    decoder_blocks: int = 3
    fine_width: int = 48
    noise: float = 0.05  # standard deviation of noise put on latents in training: neighbours must decode alike


class ImageAutoencoder(nn.Module):
    """Pictures [B, C, H, W] in [-1, 1] <-> latents [B, Z, h, w]; `mean` and `std` [Z] are those of the raw latents."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        pixels, width, fine = config.channels * 64, config.width, config.fine_width
        self.to_latent = nn.Conv2d(pixels, config.latent_channels, 1)
        self.from_latent = nn.Conv2d(config.latent_channels, pixels, 1)
        self.encoder = nn.Sequential(
            nn.Conv2d(pixels, width, 1),
            *(ResidualBlock(width) for _ in range(config.encoder_blocks)),
            nn.Conv2d(width, config.latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, width, 3, padding=1),
            *(ResidualBlock(width) for _ in range(config.decoder_blocks)),
            nn.Conv2d(width, fine * 4, 1), nn.PixelShuffle(2),
            ResidualBlock(fine),
            nn.Conv2d(fine, config.channels * 16, 3, padding=1), nn.PixelShuffle(4),
        )
        for last in (self.encoder[-1], self.decoder[-2]):
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.register_buffer("mean", torch.zeros(config.latent_channels))
        self.register_buffer("std", torch.ones(config.latent_channels))

    @torch.no_grad()
    def start_from(self, x_BCHW: Tensor) -> None:
        """Set both matrices to the principal components of these pictures' patches.

        Legend: N patches, P values of a patch.
        """
        assert self.to_latent.bias is not None and self.from_latent.bias is not None
        patches_NP = F.pixel_unshuffle(x_BCHW, 8).movedim(1, -1).flatten(0, 2).double()
        mean_P = patches_NP.mean(0)
        centred_NP = patches_NP - mean_P
        _, axes_PP = torch.linalg.eigh(centred_NP.T @ centred_NP)
        axes_PZ = axes_PP.flip(-1)[:, : self.config.latent_channels]
        self.to_latent.weight.copy_(axes_PZ.T[..., None, None])
        self.to_latent.bias.copy_(-mean_P @ axes_PZ)
        self.from_latent.weight.copy_(axes_PZ[..., None, None])
        self.from_latent.bias.copy_(mean_P)

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Pixels in [-1, 1] -> normalised latents [B, Z, h, w]. Sides must be multiples of 8: `ConjureError`."""
        height, width = x_BCHW.shape[-2:]
        if height % DOWNSCALE or width % DOWNSCALE:
            raise ConjureError(f"expected sides that are multiples of {DOWNSCALE}, got {width} x {height} pixels",
                               hint="pad or resize the picture")
        return (self._code(x_BCHW) - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, z_BZhw: Tensor) -> Tensor:
        """Normalised latents -> pixels, about [-1, 1] (not clipped)."""
        return self._picture(z_BZhw * self.std[:, None, None] + self.mean[:, None, None])

    def _code(self, x_BCHW: Tensor) -> Tensor:
        patches_BPhw = F.pixel_unshuffle(x_BCHW, 8)
        return self.to_latent(patches_BPhw) + self.encoder(patches_BPhw)

    def _picture(self, z_BZhw: Tensor) -> Tensor:
        return F.pixel_shuffle(self.from_latent(z_BZhw), 8) + self.decoder(z_BZhw)

    def forward(self, x_BCHW: Tensor, noise_BZhw: Tensor | None = None) -> Tensor:
        """Reconstruct; `noise` (unit variance) is scaled by the config and the latents' own size."""
        z_BZhw = self._code(x_BCHW)
        if noise_BZhw is not None:
            spread = z_BZhw.detach().std(dim=(0, 2, 3), keepdim=True)
            z_BZhw = z_BZhw + self.config.noise * spread * noise_BZhw
        return self._picture(z_BZhw)

    @torch.no_grad()
    def normalise(self, x_BCHW: Tensor) -> None:
        """Measure the latents' mean and deviation per channel on these pictures."""
        z_BZhw = self._code(x_BCHW)
        self.mean.copy_(z_BZhw.mean((0, 2, 3)))
        self.std.copy_(z_BZhw.std((0, 2, 3)).clamp_min(1e-6))

    def flops(self, cells: int) -> float:
        """Multiply-adds times two of encoding and decoding `cells` latent cells (H W / 64 for one picture)."""
        c = self.config
        coarse = (c.encoder_blocks + c.decoder_blocks) * 18 * c.width**2
        coarse += c.width * (c.channels * 64 + 10 * c.latent_channels + 4 * c.fine_width)
        coarse += 2 * c.channels * 64 * c.latent_channels
        fine = 4 * (18 * c.fine_width**2 + 9 * c.fine_width * c.channels * 16)
        return 2.0 * cells * (coarse + fine)


def channels_last(network: ImageAutoencoder) -> ImageAutoencoder:
    """The same network with its kernels laid out as the convolutions of a CPU like them."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_pixels(x_BCHW: Tensor) -> Tensor:
    """[-1, 1] floats -> uint8 [B, H, W, C]."""
    return ((x_BCHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def from_pixels(pixels_BHWC: Tensor) -> Tensor:
    """uint8 [B, H, W, C] -> floats [B, C, H, W] in [-1, 1]."""
    return pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(out_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Per-sample L1 on pixels plus L1 on horizontal and vertical differences, which keeps edges sharp."""
    error = out_BCHW - target_BCHW
    across, down = error.diff(dim=-1).abs().mean((1, 2, 3)), error.diff(dim=-2).abs().mean((1, 2, 3))
    return error.abs().mean((1, 2, 3)) + across + down
