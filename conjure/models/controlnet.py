"""ControlNet: a copy of a U-Net's way down that reads a guide picture and steers the U-Net (Zhang et al. 2023, arXiv
2302.05543).

Legend as in `unet.py`; a guide is `[B, 3, 8H, 8W]` in [0, 1] for latents `[B, 4, H, W]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.unet import Condition, Middle, UNetConfig, inputs, way_down
from conjure.nn.convolution import Conv2d
from conjure.nn.spatial import innermost


@dataclass(frozen=True, kw_only=True)
class ControlNetConfig:
    unet: UNetConfig = field(default_factory=UNetConfig)
    """Of the network that it steers."""
    hint_channels: int = 3
    hint_widths: tuple[int, ...] = (16, 32, 96, 256)
    """Each after the first halves the guide's sides."""
    reversed_colours: bool = False
    """It was trained on blue, green, red."""
    averaged: bool = False
    """What it puts out is averaged over the picture."""

    def __post_init__(self) -> None:
        if not self.hint_widths or min(self.hint_widths) < 1 or self.unet.middle is None:
            raise ConjureError(f"expected hint_widths from 1 and a network with a middle, got {self.hint_widths}")

    @property
    def shrink(self) -> int:
        """Pixels of the guide a latent, along a side."""
        return 2 ** (len(self.hint_widths) - 1)


class Hint(nn.Module):
    """The guide as channels of the first level; the last convolution starts at 0."""

    def __init__(self, channels: int, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.start = Conv2d(channels, widths[0], 3, padding=1)
        layers = []
        for before, width in pairwise(widths):
            layers += [Conv2d(before, before, 3, padding=1), Conv2d(before, width, 3, padding=1, stride=2)]
        self.layers = nn.ModuleList(layers)
        self.out = _zero(Conv2d(widths[-1], out, 3, padding=1))

    def forward(self, hint_BCHW: Tensor) -> Tensor:
        h = nn.functional.silu(self.start(hint_BCHW))
        for layer in self.layers:
            h = nn.functional.silu(layer(h))
        return self.out(h)


class ControlNet(nn.Module):
    """forward(x_BCHW, t_B, context_BSD, hint_BCHW=...) -> the `residuals` that a `UNet` adds."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        """What activations are; null: what the weights are."""
        unet = config.unet
        self.condition = Condition(unet)
        self.start = Conv2d(unet.channels, unet.widths[0], 3, padding=1)
        self.hint = Hint(config.hint_channels, config.hint_widths, unet.widths[0])
        self.down = way_down(unet)
        self.middle = Middle(unet)
        self.outs = nn.ModuleList(_zero(Conv2d(width, width, 1)) for width in unet.skips)
        self.middle_out = _zero(Conv2d(unet.widths[-1], unet.widths[-1], 1))

    def forward(
        self, x_BCHW: Tensor, t_B: Tensor, context_BSD: Tensor | None = None, *, hint_BCHW: Tensor,
        scale: float | Sequence[float] = 1.0, pooled_BP: Tensor | None = None, sizes_BN: Tensor | None = None,
        labels_B: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """One residual for each output of the way down, and one for the middle. `scale` multiplies all of them, or is a
        factor for each."""
        config, dtype = self.config, self.compute_dtype or self.start.weight.dtype
        x, context = inputs(config.unet, x_BCHW, context_BSD, dtype)
        time_BE = self.condition(t_B, dtype, pooled_BP, sizes_BN, labels_B, None)
        x = self.start(x) + self.hint(self._guide(hint_BCHW, x_BCHW).to(dtype))
        made = [self.outs[0](x)]
        for stage, out in zip(self.down, list(self.outs)[1:], strict=True):
            x = stage(x, time_BE, context)
            made.append(out(x))
        made.append(self.middle_out(self.middle(x, time_BE, context)))
        factors = [float(scale)] * len(made) if isinstance(scale, int | float) else list(scale)
        if config.averaged:
            made = [each.mean((2, 3), keepdim=True) for each in made]
        return tuple(each * factor for each, factor in zip(made, factors, strict=True))

    def _guide(self, hint_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """With channels innermost and colours in its order; `ConjureError` where it does not lie over the latents."""
        config, (H, W) = self.config, x_BCHW.shape[2:]
        channels, height, width = config.hint_channels, H * config.shrink, W * config.shrink
        if tuple(hint_BCHW.shape[1:]) != (channels, height, width):
            got = f"{hint_BCHW.shape[1]} and {hint_BCHW.shape[3]} x {hint_BCHW.shape[2]}"
            raise ConjureError(f"the ControlNet expects a guide of {channels} channels and {width} x {height} pixels, "
                               f"got {got}",
                               hint="bring the guide to the picture's size")
        return innermost(hint_BCHW.flip(1) if config.reversed_colours else hint_BCHW)


def summed(residuals: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What several ControlNets say to the same U-Net."""
    first, *others = residuals
    return tuple(sum((other[at] for other in others), start=each) for at, each in enumerate(first))


def faded(scale: float, count: int) -> tuple[float, ...]:
    """Factors from a tenth of `scale` for the finest residual to all of it for the middle, evenly on a logarithmic
    scale: what a ControlNet is given that has to guess without a prompt."""
    return tuple(scale * 10 ** (k / (count - 1) - 1) for k in range(count))


def _zero(layer: Conv2d) -> Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
