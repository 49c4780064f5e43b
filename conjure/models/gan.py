"""Generative adversarial networks: a generator draws, a critic tells drawn pictures from real ones.

Convolutions of stride 2 as in DCGAN (Radford et al. 2016, arXiv 1511.06434), and three ways to play: its own, the
Wasserstein critic with a gradient penalty, and the hinge with spectral normalisation. Classes reach the generator
beside the noise and the critic as a projection (Miyato and Koyama 2018, arXiv 1802.05637). A generator that is told
classes soon draws one picture of each, unless it is paid for heeding the noise (Mao et al. 2019, arXiv 1903.05628).

Legend: B batch, Z latent, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from conjure.core.errors import ConjureError
from conjure.nn.adversarial import judged

SLOPE = 0.2  # of the critic's leaky ReLU
SPREAD = 0.02  # of new weights
NEAR = 1e-5  # so that equal pictures do not divide by nothing


@dataclass(frozen=True, kw_only=True)
class GANConfig:
    """Pictures of `side` pixels grow from `side / 2^len(widths)`; `widths`: channels of small to large pictures."""

    game: Literal["nonsaturating", "wasserstein", "hinge"] = "nonsaturating"
    side: int = 28
    channels: int = 1
    latent: int = 64
    widths: tuple[int, ...] = (128, 64)
    critic_widths: tuple[int, ...] = ()
    """Empty: `widths` the other way round."""
    classes: int = 0
    """0: the networks are told no classes."""
    batch_norm: bool = True
    """In the generator, and in the critic of the game nonsaturating. Samples of a finished generator do not depend on
    each other all the same: it uses the averages over training."""
    penalty: float = 10.0
    """Weight of the Wasserstein critic's gradient penalty."""
    seek: float = 0.0
    """Weight of the term that keeps pictures of one class apart as far as their noise is."""

    def __post_init__(self) -> None:
        if not self.widths or self.side % 2 ** len(self.widths) or self.side % 2 ** len(self.of_critic):
            raise ConjureError(f"model.side: {self.side} cannot be halved {len(self.widths)} times")
        for name, weight in (("penalty", self.penalty), ("seek", self.seek)):
            if weight < 0:
                raise ConjureError(f"model.{name}: expected 0 or more, got {weight}")

    @property
    def of_critic(self) -> tuple[int, ...]:
        return self.critic_widths or self.widths[::-1]


class Generator(nn.Module):
    """Noise `[B, Z]` -> pictures `[B, C, H, W]` in [-1, 1]."""

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        c = self.config = config
        self.start = c.side // 2 ** len(c.widths)
        self.embed = nn.Embedding(c.classes, c.latent) if c.classes else None
        self.first = nn.Linear(c.latent * (2 if c.classes else 1), c.widths[0] * self.start**2, bias=not c.batch_norm)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) if c.batch_norm else nn.Identity() for width in c.widths)
        after = (*c.widths[1:], c.channels)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(width, out, 4, stride=2, padding=1, bias=not c.batch_norm or place == len(after) - 1)
            for place, (width, out) in enumerate(zip(c.widths, after, strict=True))
        )

    def forward(self, z_BZ: Tensor, labels_B: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            assert labels_B is not None, "a conditional generator needs labels"
            z_BZ = torch.cat([z_BZ, self.embed(labels_B).to(z_BZ.dtype)], dim=1)
        x_BCHW = self.first(z_BZ).unflatten(1, (-1, self.start, self.start))
        for norm, up in zip(self.norms, self.ups, strict=True):
            x_BCHW = up(F.relu(norm(x_BCHW)))
        return torch.tanh(x_BCHW)


class Critic(nn.Module):
    """Pictures `[B, C, H, W]` -> scores `[B]`, high for what looks real."""

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        c, widths = config, config.of_critic
        normal = spectral_norm if c.game == "hinge" else lambda module: module
        normed = c.batch_norm and c.game == "nonsaturating"
        self.downs = nn.ModuleList(
            normal(nn.Conv2d(before, width, 4, stride=2, padding=1, bias=not normed or not place))
            for place, (before, width) in enumerate(pairwise((c.channels, *widths)))
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if normed and place else nn.Identity() for place, width in enumerate(widths)
        )
        last = widths[-1] * (c.side // 2 ** len(widths)) ** 2
        self.score = normal(nn.Linear(last, 1))
        self.embed = None
        if c.classes:
            embed = nn.Embedding(c.classes, last)
            nn.init.normal_(embed.weight, 0, last**-0.5)  # so that a class weighs as much as the score at first
            self.embed = normal(embed)

    def forward(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        for down, norm in zip(self.downs, self.norms, strict=True):
            x_BCHW = F.leaky_relu(norm(down(x_BCHW)), SLOPE)
        x_BD = x_BCHW.flatten(1)
        score_B = self.score(x_BD)[:, 0]
        if self.embed is None:
            return score_B
        assert labels_B is not None, "a conditional critic needs labels"
        return score_B + (self.embed(labels_B) * x_BD).sum(1)


class GAN(nn.Module):
    """Both networks, and the losses of both in one pass: the critic sees fakes cut off from the generator, and the
    generator is judged by a critic whose weights stand still. So one step moves both, by one optimiser."""

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = config
        self.generator, self.critic = Generator(config), Critic(config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                with torch.no_grad():
                    module.weight.normal_(0, SPREAD)

    def forward(
        self, x_BCHW: Tensor, z_BZ: Tensor, mix_B: Tensor, labels_B: Tensor, turn_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(the critic's loss `[B]`, the generator's `[B]`, the scores of real minus those of fake pictures `[B]`).

        `mix_B` in [0, 1] says where between real and fake the penalty is taken; where `turn_B` is 0 the generator sits
        out, and its loss is 0.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(turn_B.any())):
            fake_BCHW = self.generator(z_BZ, labels_B)
        real_B, fake_B = self.critic(x_BCHW, labels_B), self.critic(fake_BCHW.detach(), labels_B)
        game = self.config.game
        if game == "nonsaturating":  # Goodfellow et al. 2014, arXiv 1406.2661, with -log D for the generator
            critic_B = F.softplus(-real_B) + F.softplus(fake_B)
        elif game == "hinge":  # Miyato et al. 2018, arXiv 1802.05957, equation 16
            critic_B = F.relu(1 - real_B) + F.relu(1 + fake_B)
        else:  # Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1
            critic_B = fake_B - real_B + self.config.penalty * self.slope_penalty(
                x_BCHW, fake_BCHW.detach(), mix_B, labels_B
            )
        judged_B = torch.zeros_like(fake_B)
        if bool(turn_B.any()):
            score_B = judged(self.critic, fake_BCHW, labels_B)
            judged_B = turn_B * (F.softplus(-score_B) if game == "nonsaturating" else -score_B)
            if self.config.seek:
                judged_B = judged_B + turn_B * self.config.seek * self.likeness(z_BZ, fake_BCHW, labels_B)
        return critic_B, judged_B, (real_B - fake_B).detach()

    def likeness(self, z_BZ: Tensor, fake_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """How far apart the noise of neighbours in the batch is, beside pictures of one class drawn from both (equation
        3 of Mao et al., upside down): a scalar."""
        other_BZ = z_BZ.roll(1, 0)
        other_BCHW = self.generator(other_BZ, labels_B)
        return (z_BZ - other_BZ).abs().mean() / ((fake_BCHW - other_BCHW).abs().mean() + NEAR)

    def slope_penalty(self, real_BCHW: Tensor, fake_BCHW: Tensor, mix_B: Tensor, labels_B: Tensor) -> Tensor:
        """(|slope of the critic| - 1)^2 at points between real and fake pictures, `[B]`."""
        mix_B111 = mix_B[:, None, None, None].to(real_BCHW.dtype)
        with torch.enable_grad():
            between = (mix_B111 * real_BCHW + (1 - mix_B111) * fake_BCHW).requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(between, labels_B).sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1).square()

    def flops(self, pictures: int) -> float:
        """Multiply-adds times two of one pass of each network."""
        c, total = self.config, 0
        side = self.generator.start
        for width, out in pairwise((*c.widths, c.channels)):
            total += 16 * width * out * side**2
            side *= 2
        for before, width in pairwise((c.channels, *c.of_critic)):
            side //= 2
            total += 16 * before * width * side**2
        return 2.0 * pictures * (total + self.generator.first.weight.numel())
