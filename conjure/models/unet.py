"""The U-Net that takes noise away: Stable Diffusion 1, 2 and XL, their variants, and small ones over pixels.

Ho et al. 2020 (arXiv 2006.11239) with attention at chosen levels; with a context, every attention becomes a transformer
that also reads the words (Rombach et al. 2022, arXiv 2112.10752; Podell et al. 2023, arXiv 2307.01952 for XL). What the
way down puts out is kept, and the way up reads it again, last first.

Legend: B batch, C channels, H height, W width, S tokens of the context, D their width, E width of the time embedding,
P width of the pooled context, N numbers that describe the picture's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.convolution import Conv2d, Downsample, GroupNorm, Residual, Upsample
from conjure.nn.linear import Linear, embedding
from conjure.nn.native import pixels as compiled
from conjure.nn.pages import steady
from conjure.nn.spatial import PixelAttention, SpatialTransformer, innermost


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The default is Stable Diffusion 1. Tuples have a value for each level, the finest first."""

    channels: int = 4
    """Of the input: 8 and 9 where a second picture, or one and a mask, is stacked below the noisy one."""
    channels_out: int = 4
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    residuals: int = 2
    """Residual blocks of a level on the way down; the way up has one more."""
    depth: tuple[int, ...] = (1, 1, 1, 0)
    """Layers of the transformer after each residual block; without a context, 1 is one attention over pixels."""
    middle: int | None = 1
    """The same between the ways down and up; None leaves the middle out."""
    heads: tuple[int, ...] = (8, 8, 8, 8)
    context: int = 768
    """Width D of the context; 0: there is none."""
    context_only: tuple[bool, ...] = ()
    """Levels whose first attention reads the context too (the upscaler of Stable Diffusion)."""
    added: int = 0
    """Width of what joins the time in XL: the pooled context, and `size_width` values for each of the sizes."""
    size_width: int = 256
    classes: int = 0
    """Rows of a table of labels; 0: no labels."""
    guidance: int = 0
    """Width of the embedding of the guidance scale that distilled networks are told; 0: they are not."""
    groups: int = 32
    eps: float = 1e-5
    """Of the group norms of residual blocks."""
    dropout: float = 0.0
    scales: bool = False
    """Time scales and shifts in residual blocks, and does not only shift."""
    cosine_first: bool = True
    spacing: int = 0
    """1 where the slowest wave of time is one of 1/10000 (DDPM), 0 where it is a little faster."""
    lopsided: bool = False
    """On the way down zeros stand only below and to the right (DDPM)."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if not levels or any(len(each) != levels for each in (self.depth, self.heads)) or \
                len(self.context_only) not in (0, levels):
            raise ConjureError(f"expected a value of depth and heads for each of {levels} widths, got {self.depth} and "
                               f"{self.heads}")
        attending = [each > 0 for each in self.depth]
        attending[-1] |= bool(self.middle)
        for width, heads, attends in zip(self.widths, self.heads, attending, strict=True):
            if width < 1 or width % self.groups or width % 2 or (attends and (heads < 1 or width % heads)):
                raise ConjureError(f"expected even widths that {self.groups} groups and the heads divide, got {width} "
                                   f"with {heads} heads")
        if self.residuals < 1 or min(self.depth) < 0 or self.channels < 1 or self.channels_out < 1:
            raise ConjureError("expected residuals, channels and channels_out from 1 and depth from 0, got "
                               f"{self.residuals}, {self.channels}, {self.channels_out}, {self.depth}")
        if not self.context and max(*self.depth, self.middle or 0) > 1:
            raise ConjureError(f"depth above 1 needs a context, got {self.depth} and {self.middle}")

    @property
    def embedding(self) -> int:
        """E"""
        return 4 * self.widths[0]

    @property
    def skips(self) -> tuple[int, ...]:
        """Channels of what the way down leaves for the way up, in the order in which it is made."""
        made = [self.widths[0]]
        for level, width in enumerate(self.widths):
            made += [width] * (self.residuals + (level < len(self.widths) - 1))
        return tuple(made)


class Condition(nn.Module):
    """Time, and all that joins it, as one vector that every residual block reads."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        E = config.embedding
        self.time1, self.time2 = Linear(config.widths[0], E), Linear(E, E)
        self.guidance = Linear(config.guidance, config.widths[0], bias=False) if config.guidance else None
        self.labels = embedding(config.classes, E) if config.classes else None
        self.added1 = Linear(config.added, E) if config.added else None
        self.added2 = Linear(E, E) if config.added else None
        if self.labels is not None:
            nn.init.normal_(self.labels.weight)

    def forward(
        self, t_B: Tensor, dtype: torch.dtype, pooled_BP: Tensor | None, sizes_BN: Tensor | None,
        labels_B: Tensor | None, guidance_B: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """`[B, E]`, through its activation."""
        c = self.config
        h = waves(t_B, c.widths[0], c.cosine_first, c.spacing).to(dtype)
        if self.guidance is not None:
            told = _given(guidance_B, "guidance_B")
            h = h + self.guidance(waves(told * 1000, c.guidance, False, 1).to(dtype))
        time_BE = self.time2(nn.functional.silu(self.time1(h)))
        if self.labels is not None:
            time_BE = time_BE + self.labels(_given(labels_B, "labels_B")).to(dtype)
        if self.added1 is not None and self.added2 is not None:
            pooled, sizes = _given(pooled_BP, "pooled_BP"), _given(sizes_BN, "sizes_BN")
            each = waves(sizes.flatten(), c.size_width, c.cosine_first, c.spacing).view(len(sizes), -1)
            both = torch.cat([pooled.to(dtype), each.to(dtype)], dim=-1)
            if both.shape[-1] != c.added:
                raise ConjureError(f"the network joins {c.added} values to the time, got {pooled.shape[-1]} of the "
                                   f"pooled context and {sizes.shape[-1]} sizes of {c.size_width} each",
                                   hint="the text encoder belongs to another model")
            time_BE = time_BE + self.added2(nn.functional.silu(self.added1(both)))
        return nn.functional.silu(time_BE)


class Stage(nn.Module):
    """A residual block and what follows it, or a change of size alone."""

    def __init__(
        self, residual: Residual | None, attention: PixelAttention | SpatialTransformer | None = None,
        resample: Downsample | Upsample | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual, self.attention, self.resample = residual, attention, resample

    def forward(
        self, x: Tensor, time_BE: Tensor, context_BSD: Tensor | None, size: tuple[int, int] | None = None
    ) -> Tensor:
        if self.residual is not None:
            x = self.residual(x, time_BE)
        if self.attention is not None:
            x = self.attention(x) if isinstance(self.attention, PixelAttention) else self.attention(x, context_BSD)
        if self.resample is not None:
            x = self.resample(x, size) if isinstance(self.resample, Upsample) else self.resample(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block; without attention, the first alone."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.widths[-1]
        self.first = residual(config, width, width)
        self.attention = attention(config, -1, config.middle or 0, False)
        self.second = residual(config, width, width) if config.middle else None

    def forward(self, x: Tensor, time_BE: Tensor, context_BSD: Tensor | None) -> Tensor:
        x = self.first(x, time_BE)
        if self.attention is not None:
            x = self.attention(x) if isinstance(self.attention, PixelAttention) else self.attention(x, context_BSD)
        return x if self.second is None else self.second(x, time_BE)


class UNet(nn.Module):
    """forward(x_BCHW, t_B, context_BSD) -> [B, channels_out, H, W] in float32; `t` is in the steps that the network was
    trained with (0 to 999), or whatever clock its process gives it."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        """What activations are; null: what the weights are."""
        self.condition = Condition(config)
        self.start = Conv2d(config.channels, config.widths[0], 3, padding=1)
        self.down = way_down(config)
        self.middle = None if config.middle is None else Middle(config)
        self.up = way_up(config)
        self.norm_out = GroupNorm(config.groups, config.widths[0], config.eps, silu=True)
        self.out = Conv2d(config.widths[0], config.channels_out, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """A new network says nothing, and each block passes on what it gets."""
        last = [self.out, *(module.conv2 for module in self.modules() if isinstance(module, Residual))]
        for conv in last:
            assert conv.bias is not None
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    @steady
    def forward(
        self, x_BCHW: Tensor, t_B: Tensor, context_BSD: Tensor | None = None, *, pooled_BP: Tensor | None = None,
        sizes_BN: Tensor | None = None, labels_B: Tensor | None = None, guidance_B: Tensor | None = None,
        residuals: tuple[Tensor, ...] | None = None,
    ) -> Tensor:  # fmt: skip
        """`residuals` are added to what the way down leaves for the way up, and the last to the middle (ControlNet).

        `guidance_B` is the scale less 1, as latent consistency models are told it (arXiv 2310.04378).
        """
        dtype = self.compute_dtype or self.start.weight.dtype
        x, context = inputs(self.config, x_BCHW, context_BSD, dtype)
        time_BE = self.condition(t_B, dtype, pooled_BP, sizes_BN, labels_B, guidance_B)
        x = self.start(x)
        skips = [x]
        for stage in self.down:
            x = stage(x, time_BE, context)
            skips.append(x)
        if self.middle is not None:
            x = self.middle(x, time_BE, context)
        if residuals is not None:
            if len(residuals) != len(skips) + 1:
                raise ConjureError(f"expected {len(skips) + 1} residuals, got {len(residuals)}",
                                   hint="the ControlNet was trained beside another kind of network")
            skips = [skip + extra.to(dtype) for skip, extra in zip(skips, residuals, strict=False)]
            x = x + residuals[-1].to(dtype)
        for stage in self.up:
            skip = skips.pop()
            size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
            x = stage(torch.cat([x, skip], dim=1), time_BE, context, size)
        return self.out(self.norm_out(x)).float()


def inputs(
    config: UNetConfig, x_BCHW: Tensor, context_BSD: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Both as the network computes with them; `ConjureError` where they are another network's."""
    if x_BCHW.shape[1] != config.channels:
        raise ConjureError(f"the network reads {config.channels} channels, got {x_BCHW.shape[1]}",
                           hint="4: latents; 8: with a picture to edit; 9: with a mask and the masked picture")
    width = 0 if context_BSD is None else context_BSD.shape[-1]
    if width != config.context:
        raise ConjureError(f"the network reads a context of width {config.context}, got {width}",
                           hint="the text encoder belongs to another model")
    x = x_BCHW.to(dtype)
    # A GPU and our own convolutions want channels innermost; PyTorch's on a CPU would have to turn the large matrices
    # of the coarse levels at every step.
    inner = x.is_cuda or (not torch.is_grad_enabled() and dtype == torch.float32 and compiled.library() is not None)
    return innermost(x) if inner else x.contiguous(), None if context_BSD is None else context_BSD.to(dtype)


def way_down(config: UNetConfig) -> nn.ModuleList:
    """Stages; each output is kept for the way up."""
    stages, before = [], config.widths[0]
    for level, width in enumerate(config.widths):
        for _ in range(config.residuals):
            stages.append(Stage(residual(config, before, width), attention(config, level, config.depth[level])))
            before = width
        if level < len(config.widths) - 1:
            stages.append(Stage(None, resample=Downsample(width, lopsided=config.lopsided)))
    return nn.ModuleList(stages)


def way_up(config: UNetConfig) -> nn.ModuleList:
    """Stages; each reads what the one before it puts out and one of what the way down left."""
    stages, before, skips = [], config.widths[-1], list(config.skips)
    for level in reversed(range(len(config.widths))):
        width = config.widths[level]
        for last in [False] * config.residuals + [level > 0]:
            stages.append(Stage(residual(config, before + skips.pop(), width),
                                attention(config, level, config.depth[level]), Upsample(width) if last else None))
            before = width
    return nn.ModuleList(stages)


def residual(config: UNetConfig, channels_in: int, channels_out: int) -> Residual:
    return Residual(channels_in, channels_out, time=config.embedding, groups=config.groups, eps=config.eps,
                    dropout=config.dropout, scales=config.scales)


def attention(
    config: UNetConfig, level: int, layers: int, context_only: bool | None = None
) -> PixelAttention | SpatialTransformer | None:
    """What a level attends with; none where it has no layers. `context_only` is the level's unless given."""
    width, heads = config.widths[level], config.heads[level]
    if not layers:
        return None
    if not config.context:
        return PixelAttention(width, heads, groups=config.groups, eps=config.eps)
    only = bool(config.context_only) and config.context_only[level] if context_only is None else context_only
    return SpatialTransformer(width, heads, config.context, layers, groups=config.groups, context_only=only)


def waves(t_B: Tensor, dim: int, cosine_first: bool = True, spacing: int = 0) -> Tensor:
    """Sines and cosines float32 `[B, dim]` of t f_i, f_i = 10000^(-i / (dim/2 - spacing)), one kind after the other."""
    half = dim // 2
    i = torch.arange(half, dtype=torch.float32, device=t_B.device)
    angles = t_B.float()[:, None] * torch.exp(-math.log(10_000) * i / (half - spacing))
    both = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
    return torch.cat(both, dim=-1)


def _given(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"this network needs {name}")
    return value
