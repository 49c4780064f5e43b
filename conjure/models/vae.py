"""Variational autoencoder of black-and-white pictures: plain, with beta, told a class, or trained on the IWAE bound.

p(x | z) is Bernoulli for each pixel, p(z) standard normal, q(z | x) normal with a diagonal covariance (Kingma and
Welling 2013, arXiv 1312.6114). With `beta` the divergence is weighed (Higgins et al. 2017); with `classes` both halves
are told the class of the picture (Sohn et al. 2015); with `samples` above 1 the loss is the importance-weighted bound
(Burda et al. 2015, arXiv 1509.00519).

Legend: B batch, H, W and C of a picture, P = HWC pixels, K samples of the latent, Z latent values, Y classes, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.metrics.bits import importance_bound
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    side: int = 28
    channels: int = 1
    latent: int = 40
    hidden: tuple[int, ...] = (400, 400)
    """Widths of the dense layers between picture and latent; the decoder has them in reverse."""
    width: int = 0
    """Above 0: convolutions of this width on a grid a quarter as fine, in place of the dense layers."""
    blocks: int = 1
    """Residual blocks of the encoder, and of the decoder, where there are convolutions."""
    classes: int = 0
    """Above 0: encoder and decoder are told which of so many classes the picture shows."""
    beta: float = 1.0
    """Weight of the divergence in the loss; above 1 for latents that vary alone."""
    samples: int = 1
    """Of the latent for each picture in training; above 1: the importance-weighted bound."""

    def __post_init__(self) -> None:
        for name in ("side", "channels", "latent", "samples"):
            if getattr(self, name) < 1:
                raise ConjureError(f"model.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 1 or self.classes < 0 or self.beta < 0:
            raise ConjureError("model: expected hidden widths of at least 1, classes and beta not below 0")
        if self.width < 0 or self.width % 4 or (self.width and self.side % 4):
            raise ConjureError(f"model.width: expected 4 to divide it and the side, got {self.width} and {self.side}")
        if self.samples > 1 and self.beta != 1:
            raise ConjureError("model.beta: the bound of several samples has no separate divergence to weigh",
                               hint="model.samples=1, or model.beta=1")

    @property
    def pixels(self) -> int:
        return self.side**2 * self.channels


class VAE(nn.Module):
    """forward(x_BHWC, noise_BKZ, labels_B) -> the lower bound on log p(x) of each picture, in nats, `[B]`."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = c = config
        if c.width:
            cells = (c.side // 4) ** 2 * c.width
            self.look, self.draw = convolutions(c)
            self.encoder = layers((cells + c.classes, 2 * c.latent))
            self.decoder = layers((c.latent + c.classes, cells))
        else:
            self.look, self.draw = nn.Identity(), nn.Identity()
            self.encoder = layers((c.pixels + c.classes, *c.hidden, 2 * c.latent))
            self.decoder = layers((c.latent + c.classes, *reversed(c.hidden), c.pixels))

    def encode(self, x_BHWC: Tensor, labels_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), float32 `[B, Z]` each; x is 0 or 1."""
        seen = self.look((2 * x_BHWC - 1).movedim(-1, 1)).flatten(1)
        mean_BZ, logvar_BZ = self.encoder(self._told(seen, labels_B)).float().chunk(2, dim=-1)
        return mean_BZ, logvar_BZ

    def decode(self, z_BZ: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Logits of the pixels, `[B, H, W, C]`."""
        c = self.config
        shape = (c.width, c.side // 4, c.side // 4) if c.width else (c.channels, c.side, c.side)
        return self.draw(self.decoder(self._told(z_BZ, labels_B)).unflatten(-1, shape)).movedim(1, -1)

    def terms(self, x_BHWC: Tensor, noise_BKZ: Tensor, labels_B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x | z) of each sample `[K, B]`, the divergence of q(z | x) from p(z) in closed form `[B]`, and
        log p(z) - log q(z | x) of each sample `[K, B]`; float32 nats."""
        mean_BZ, logvar_BZ = self.encode(x_BHWC, labels_B)
        noise_KBZ = noise_BKZ.float().transpose(0, 1)
        z_KBZ = mean_BZ + (0.5 * logvar_BZ).exp() * noise_KBZ
        K = len(z_KBZ)
        repeated = None if labels_B is None else labels_B.repeat(K)
        logits = self.decode(z_KBZ.flatten(0, 1).to(x_BHWC.dtype), repeated).float().flatten(1).unflatten(0, (K, -1))
        target = x_BHWC.flatten(1).float().expand_as(logits)
        likelihood_KB = -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        divergence_B = 0.5 * (mean_BZ.square() + logvar_BZ.exp() - 1 - logvar_BZ).sum(-1)
        ratio_KB = 0.5 * (noise_KBZ.square() - z_KBZ.square() + logvar_BZ).sum(-1)
        return likelihood_KB, divergence_B, ratio_KB

    def forward(self, x_BHWC: Tensor, noise_BKZ: Tensor, labels_B: Tensor | None = None) -> Tensor:
        likelihood_KB, divergence_B, ratio_KB = self.terms(x_BHWC, noise_BKZ, labels_B)
        if len(likelihood_KB) == 1:  # the divergence in closed form varies less than its estimate
            return likelihood_KB[0] - self.config.beta * divergence_B
        return importance_bound(likelihood_KB + ratio_KB)

    def flops(self, pictures: int, samples: int = 1) -> float:
        """Multiply-adds times two of one pass over so many pictures."""

        c = self.config

        def dense(part: nn.Module) -> float:
            return sum(m.weight.numel() for m in part.modules() if isinstance(m, Linear))

        block, cells = 18 * c.width**2, (c.side // 4) ** 2
        look = cells * (16 * 9 * c.channels * c.width + c.blocks * block)
        draw = cells * (c.blocks * block + 18 * c.width**2 + 4 * 4.5 * c.width**2 + 16 * 2.25 * c.width * c.channels)
        return 2.0 * pictures * (dense(self.encoder) + look + samples * (dense(self.decoder) + draw))

    def _told(self, x_BD: Tensor, labels_B: Tensor | None) -> Tensor:
        if not self.config.classes:
            return x_BD
        assert labels_B is not None, "a network with classes is told one for each picture"
        return torch.cat([x_BD, F.one_hot(labels_B, self.config.classes).to(x_BD.dtype)], dim=-1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity; the second starts at zero, so that a new block changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Convolution(width, width), Convolution(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return x_BDhw + self.second(F.silu(self.first(F.silu(x_BDhw))))


class Convolution(nn.Conv2d):
    """3x3, the grid kept, in the precision of its input."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1)
        if not self.weight.is_meta and self.bias is not None:
            nn.init.normal_(self.weight, 0, (9 * before) ** -0.5)
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d gave it
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return self._conv_forward(input, self.weight.to(input.dtype), bias)


def convolutions(c: VAEConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """From a picture to a grid a quarter as fine, and from such a grid to the logits of the pixels."""
    look = nn.Sequential(
        nn.PixelUnshuffle(4), Convolution(16 * c.channels, c.width),
        *(ResidualBlock(c.width) for _ in range(c.blocks)), nn.SiLU(),
    )  # fmt: skip
    draw = nn.Sequential(
        *(ResidualBlock(c.width) for _ in range(c.blocks)), nn.SiLU(),
        Convolution(c.width, 2 * c.width), nn.PixelShuffle(2), nn.SiLU(),
        Convolution(c.width // 2, c.width), nn.PixelShuffle(2), nn.SiLU(),
        Convolution(c.width // 4, c.channels),
    )  # fmt: skip
    return look, draw


def layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with SiLU between them; weights normal with 1/sqrt(fan-in), biases 0."""
    parts: list[nn.Module] = []
    for before, after in pairwise(widths):
        layer = Linear(before, after)
        if not layer.weight.is_meta:
            nn.init.normal_(layer.weight, 0, math.sqrt(1 / before))
            nn.init.zeros_(layer.bias)
        parts += [layer, nn.SiLU()]
    return nn.Sequential(*parts[:-1])
