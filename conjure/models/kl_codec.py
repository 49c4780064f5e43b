"""The variational autoencoder that scenes are drawn in: `AutoencoderKL` over patches of pixels, with the scale of its
latents measured after training.

Legend: B batch, C channels, H and W pixels, Z latent channels, h and w cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from conjure.codecs.image_autoencoder import ImageAutoencoder
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from conjure.models.folder import load_weights, read_config
from conjure.models.image_codec import load_codec

CERTAIN = -4.0
"""Logarithm of the variance that a new network starts from: at 0 the noise would drown what it has still to learn."""


@dataclass(frozen=True, kw_only=True)
class KLCodecConfig:
    """What it is, and how its loss is put together (Rombach et al. 2022, arXiv 2112.10752, section 3.1)."""

    autoencoder: AutoencoderKLConfig = field(default_factory=AutoencoderKLConfig)
    """Its `channels` are 3 times `patch` squared."""
    patch: int = 1
    """Pixels a side that the network reads as one place: a quarter of the work at 2."""
    kl: float = 1e-3
    """Weight of the divergence, in nats for each value of the picture."""
    perceptual: float = 0.3
    """Weight of the distance of features; 0 leaves them out."""
    features: str = ""
    """Folder of the network whose features they are; "" is an untrained one."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.autoencoder.channels != 3 * self.patch**2:
            raise ConjureError(f"expected 3 channels for each of {self.patch} x {self.patch} pixels, got "
                               f"{self.autoencoder.channels}", hint=f"autoencoder.channels={3 * self.patch**2}")
        if min(self.kl, self.perceptual) < 0:
            raise ConjureError(f"kl and perceptual: expected weights from 0, got {self.kl} and {self.perceptual}")

    @property
    def shrink(self) -> int:
        """Pixels to a cell, along a side."""
        return self.patch * self.autoencoder.shrink


class KLCodec(nn.Module):
    """forward(x_BCHW, noise_BZhw) -> (picture, mean and logarithm of the variance of its latents)."""

    def __init__(self, config: KLCodecConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.autoencoder = AutoencoderKL(config.autoencoder)
        self._config = config
        last = self.autoencoder.mix_in or self.autoencoder.encoder.out
        assert last.bias is not None
        nn.init.constant_(last.bias[config.autoencoder.latent :], CERTAIN)

    @property
    def config(self) -> KLCodecConfig:
        """With the scale and shift of the latents as last measured."""
        return replace(self._config, autoencoder=self.autoencoder.config)

    def forward(self, x_BCHW: Tensor, noise_BZhw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Through a sample of the latents, mean + deviation * noise."""
        mean, logvar = self.moments(x_BCHW)
        return self._picture(mean + (0.5 * logvar).exp() * noise_BZhw), mean, logvar

    def moments(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latents `[B, Z, h, w]`; `ConjureError` for other sides."""
        by, (height, width) = self._config.shrink, x_BCHW.shape[-2:]
        if height % by or width % by:
            raise ConjureError(f"expected sides that are multiples of {by}, got {width} x {height} pixels",
                               hint="pad or resize the picture")
        return self.autoencoder.encode(functional.pixel_unshuffle(x_BCHW, self.patch))

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Pictures in [-1, 1] -> the means of their latents, scaled for diffusion."""
        return self.autoencoder.to_latent(self.moments(x_BCHW)[0])

    def decode(self, z_BZhw: Tensor) -> Tensor:
        """Scaled latents -> pictures, about [-1, 1]."""
        return self._picture(self.autoencoder.from_latent(z_BZhw))

    def _picture(self, z_BZhw: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.autoencoder.decode(z_BZhw), self.patch)

    @torch.no_grad()
    def normalise(self, x_BCHW: Tensor) -> None:
        """Measure scale and shift on these pictures: latents for diffusion have mean 0 and deviation 1 over all."""
        means = torch.cat([self.moments(part)[0] for part in x_BCHW.split(16)])
        shift, scale = means.mean().item(), 1 / max(means.std().item(), 1e-6)
        self.autoencoder.config = replace(self.autoencoder.config, shift=shift, scale=scale)

    def flops(self, height: int, width: int) -> float:
        """Multiply-adds times two of one picture there and back, counted where nothing is computed."""
        with torch.device("meta"), torch.no_grad():
            empty, x_BCHW = KLCodec(self._config), torch.empty(1, 3, height, width)
            with FlopCounterMode(display=False) as counter:
                empty.decode(empty.encode(x_BCHW))
        return float(counter.get_total_flops())


def divergence(mean_BZhw: Tensor, logvar_BZhw: Tensor) -> Tensor:
    """KL of N(mean, variance) from N(0, 1) in nats `[B]`, summed over all latents (Kingma and Welling 2013, arXiv
    1312.6114, appendix B)."""
    return 0.5 * (mean_BZhw.square() + logvar_BZhw.exp() - 1 - logvar_BZhw).flatten(1).sum(1)


def load_kl_codec(folder: Path) -> KLCodec:
    """The one in its own folder, or in that of a model that draws in its latents; no gradients."""
    saved = read_config(folder).get("codec", {})
    if "autoencoder" not in saved:
        raise ConjureError(f"{folder}: expected a variational autoencoder of pictures, found none",
                           hint="conjure train scenes-autoencoder makes one")
    network = KLCodec(from_dict(KLCodecConfig, saved, where="codec"))
    load_weights(network, folder / "codec.safetensors")
    return network.eval().requires_grad_(False)


def load_any_codec(folder: Path) -> KLCodec | ImageAutoencoder:
    """Whichever autoencoder of pictures the folder has; both have `encode` to latents for diffusion, and `decode`."""
    kind = load_kl_codec if "autoencoder" in read_config(folder).get("codec", {}) else load_codec
    return kind(folder)
