"""A network that takes noise away from small pictures, and the process it is trained in: any of two by any of three.

The network is a U-Net (Ho et al. 2020, arXiv 2006.11239) or a DiT (Peebles and Xie 2022, arXiv 2212.09748); the process
is that of DDPM (DDIM is a sampler of it), EDM or rectified flow. All of them are trained by the same code.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.diffusion.discrete import DiscreteFlow
from conjure.diffusion.edm import EDM
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.class_dit import ClassDiT, ClassDiTConfig
from conjure.models.unet import UNet, UNetConfig

CLOCK = 1000.0
"""Both networks tell times apart by waves made for 1000 steps; clocks of about 0 to 1 are stretched by it."""


@dataclass(frozen=True, kw_only=True)
class PixelDiffusionConfig:
    """One network and one process are given: `unet: {...}` and `edm: {}`, say."""

    unet: UNetConfig | None = None
    """`channels` and `channels_out` are those of the pictures times `patch` squared; `classes` counts one label more
    than there are classes, the last, which means none."""
    dit: ClassDiTConfig | None = None
    ddpm: DiscreteFlow | None = None
    edm: EDM | None = None
    flow: RectifiedFlow | None = None
    patch: int = 1
    """Pixels a side that the U-Net reads as one place: a quarter of the work at 2 (Luhman and Luhman 2022, arXiv
    2207.04316)."""
    drop: float = 0.1
    """Share of the classes that are not told in training, so that guidance has something to start from."""

    def __post_init__(self) -> None:
        for names in (("unet", "dit"), ("ddpm", "edm", "flow")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) != 1:
                raise ConjureError(f"expected one of {', '.join(names)}, got {', '.join(given) or 'none'}",
                                   hint=f"model.{names[-1]}={{}} has all its settings at their defaults")
        if not 0 <= self.drop < 1:
            raise ConjureError(f"drop: expected a share from 0 to below 1, got {self.drop}")
        channels, out = (self.unet.channels, self.unet.channels_out) if self.unet else \
            (self.dit.channels, self.dit.out_channels) if self.dit else (0, 0)
        if channels != out or self.patch < 1 or channels % self.patch**2 or (self.dit and self.patch != 1):
            raise ConjureError(f"expected as many channels out as in, {channels}, got {out}, and a patch that divides "
                               f"them (a DiT has its own), got {self.patch}")
        if self.unet and (self.unet.context or self.unet.added or self.unet.guidance):
            raise ConjureError("a U-Net over pixels is told time and class alone", hint="model.unet.context=0")

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return (self.unet or self._dit()).channels // self.patch**2

    @property
    def classes(self) -> int:
        """That the network is told; 0: none."""
        return max(self.unet.classes - 1, 0) if self.unet else self._dit().classes

    @property
    def process(self) -> DiscreteFlow | EDM | RectifiedFlow:
        process = self.ddpm or self.edm or self.flow
        assert process is not None
        return process

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be a multiple of."""
        return self.patch if self.unet else self._dit().patch

    def _dit(self) -> ClassDiTConfig:
        assert self.dit is not None
        return self.dit


class PixelDenoiser(nn.Module):
    """forward(x_BCHW, told_B, labels_B) -> float32 `[B, C, H, W]`, as `config.process` wants its network.

    The label `none` leaves the class open; a network without classes does not look at labels.
    """

    def __init__(self, config: PixelDiffusionConfig) -> None:
        super().__init__()
        self.config, self.none = config, config.classes
        self.network: UNet | ClassDiT = UNet(config.unet) if config.unet else ClassDiT(config._dit())
        steps = config.ddpm is not None and config.ddpm.clock == "step"
        self.stretch = 1.0 if steps else CLOCK
        self.compute_dtype: torch.dtype | None = None
        """What activations are; null: what the input is."""

    def forward(self, x_BCHW: Tensor, told_B: Tensor, labels_B: Tensor) -> Tensor:
        clock_B = told_B.float() * self.stretch
        if isinstance(self.network, ClassDiT):
            return self.network(x_BCHW.to(self.compute_dtype or x_BCHW.dtype), clock_B, labels_B).float()
        patch = self.config.patch
        out = self.network(functional.pixel_unshuffle(x_BCHW, patch), clock_B,
                           labels_B=labels_B if self.config.classes else None)
        return functional.pixel_shuffle(out, patch)

    def flops(self, height: int, width: int) -> float:
        """Multiply-adds times two of one forward pass over one picture, counted where nothing is computed."""
        with torch.device("meta"), torch.no_grad():
            empty = PixelDenoiser(self.config).eval()
            x_BCHW = torch.empty(1, self.config.channels, height, width)
            with FlopCounterMode(display=False) as counter:
                empty(x_BCHW, torch.empty(1), torch.empty(1, dtype=torch.long))
        return float(counter.get_total_flops())
