"""Convolutions over pixels, group norm in float32, and the residual block of U-Nets and picture autoencoders.

Everything works on `[B, C, H, W]` and is fastest where channels lie innermost (`torch.channels_last`), which all of it
keeps. On a CPU, 3x3 convolutions of some size run in compiled code (`native/pixels.py`) unless gradients are wanted.

Group norm looks at the whole picture, so a picture cannot be cut into pieces without changing. `Bands` are the
way out: every layer runs a few rows at a time, reads one row of its neighbours, and takes its mean and variance over
all of them. The result is the same to rounding, there are no seams, and what a layer needs on the side is a band's, not
the picture's.

Legend: B batch, C channels, H height, W width, G groups, E width of the time embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.nn.linear import Linear
from conjure.nn.native import pixels as compiled

Bands = list[Tensor]
"""A picture `[B, C, H, W]` as its rows from top to bottom, `[B, C, h, W]` each."""


class Conv2d(nn.Conv2d):
    """A convolution with weight and bias cast to the type of its input, as `Linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d gave it
        """`[B, in, H, W] -> [B, out, H', W']`"""
        return self.plus(input)

    def plus(
        self, x_BCHW: Tensor, shift_BK: Tensor | None = None, beside_BKHW: Tensor | None = None, *,
        doubled: bool = False,
    ) -> Tensor:  # fmt: skip
        """The convolution, plus `shift` for each picture and channel, plus `beside`; with `doubled`, of the picture at
        twice its size, every pixel being four."""
        plain = self.stride == (1, 1) and self.padding == (1, 1) and self.dilation == (1, 1) and self.groups == 1
        if plain and compiled.convolves(x_BCHW, self.weight, doubled):
            bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
            both = bias.expand(len(x_BCHW), -1) if shift_BK is None else bias + shift_BK
            return compiled.conv3x3(x_BCHW, self.weight, both, beside_BKHW=beside_BKHW, doubled=doubled)
        x = F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest") if doubled else x_BCHW
        h = self.padded(x, self.padding)
        h = h if shift_BK is None else h.add_(shift_BK[..., None, None])
        return h if beside_BKHW is None else h.add_(beside_BKHW)

    def padded(self, x_BCHW: Tensor, padding: str | tuple[int, ...]) -> Tensor:
        """The same with other zeros around it."""
        bias = None if self.bias is None else self.bias.to(x_BCHW.dtype)
        return F.conv2d(x_BCHW, self.weight.to(x_BCHW.dtype), bias, self.stride, padding)  # type: ignore[arg-type]


class GroupNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over groups of channels (Wu and He 2018, arXiv 1803.08494), in
    float32; `silu` applies x sigmoid(x) to the result."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, *, silu: bool = False) -> None:
        super().__init__()
        self.groups, self.eps, self.silu = groups, eps, silu
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, C, H, W]`"""
        h = F.group_norm(x_BCHW.float(), self.groups, self.weight.float(), self.bias.float(), self.eps)
        return (_silu(h) if self.silu else h).to(x_BCHW.dtype)

    def over(self, bands: Bands) -> Callable[[Tensor], Tensor]:
        """The same as a function of any rows of a picture, with the mean and variance of the whole of it."""
        B, C = bands[0].shape[:2]
        counts = torch.tensor([band.shape[2] * band.shape[3] for band in bands], dtype=torch.float64)
        both = [torch.var_mean(band.float(), dim=(2, 3), correction=0) for band in bands]
        var_NBC, mean_NBC = (torch.stack([each[at] for each in both]).double() for at in (0, 1))
        share_N11 = (counts / counts.sum()).to(mean_NBC.device)[:, None, None]
        square_BG = (share_N11 * (var_NBC + mean_NBC.square())).sum(0).view(B, self.groups, -1).mean(-1)
        mean_BG = (share_N11 * mean_NBC).sum(0).view(B, self.groups, -1).mean(-1)
        rate_BG = (square_BG - mean_BG.square() + self.eps).rsqrt()
        rate_BC, mean_BC = (each.repeat_interleave(C // self.groups, dim=1) for each in (rate_BG, mean_BG))
        gain_BC = self.weight.double() * rate_BC
        gain, shift = (each.float()[..., None, None] for each in (gain_BC, self.bias.double() - gain_BC * mean_BC))

        def apply(rows: Tensor) -> Tensor:
            h = torch.addcmul(shift, rows.float(), gain)
            return (_silu(h) if self.silu else h).to(rows.dtype)

        return apply


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm x)) + time))), as in DDPM (Ho et al. 2020, arXiv 2006.11239).

    `time` E > 0 expects an embedding, which shifts what the second norm reads, or, with `scales`, scales and shifts
    what it puts out (Dhariwal and Nichol 2021, arXiv 2105.05233). The way around it is a 1x1 convolution where channels
    change.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, time: int = 0, groups: int = 32, eps: float = 1e-5,
        dropout: float = 0.0, scales: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = GroupNorm(groups, channels_in, eps, silu=True)
        self.conv1 = Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = Linear(time, (2 if scales else 1) * channels_out) if time else None
        self.scales = scales
        self.norm2 = GroupNorm(groups, channels_out, eps, silu=not scales)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x_BCHW: Tensor, time_BE: Tensor | None = None) -> Tensor:
        """`time_BE` has been through its activation."""
        told = None if self.time is None or time_BE is None else self.time(time_BE)
        if self.scales and told is not None:
            scale, shift = told[..., None, None].chunk(2, dim=1)
            h = _silu(self.norm2(self.conv1(self.norm1(x_BCHW))) * (1 + scale) + shift)
        else:
            h = self.norm2(self.conv1.plus(self.norm1(x_BCHW), told))
        return self.conv2.plus(self.dropout(h), None, x_BCHW if self.skip is None else self.skip(x_BCHW))

    def banded(self, bands: Bands) -> Bands:
        """The same without time and dropout. `bands` is emptied on the way, as by everything that takes bands."""
        norm1, inner, out = self.norm1.over(bands), [], []
        for piece in _neighboured(bands):
            inner.append(_over_rows(self.conv1, piece, norm1))
            out.append(piece[1] if self.skip is None else self.skip(piece[1]))
        norm2 = self.norm2.over(inner)
        for at, piece in enumerate(_neighboured(inner)):
            out[at] = _over_rows(self.conv2, piece, norm2).add_(out[at])
        return out


class Downsample(nn.Module):
    """A convolution of stride 2; `lopsided` puts zeros only below and to the right, not on all sides."""

    def __init__(self, channels: int, *, lopsided: bool = False) -> None:
        super().__init__()
        self.lopsided = lopsided
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=0 if lopsided else 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]`, or rounded down where lopsided."""
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)) if self.lopsided else x_BCHW)

    def banded(self, bands: Bands) -> Bands:
        """The same where lopsided; all bands but the last have an even number of rows."""
        assert self.lopsided, "a row above would be needed"
        out = []
        for _, here, below in _neighboured(bands):
            rows = here if below is None else torch.cat([here, below], dim=2)
            out.append(self.conv(F.pad(rows, (0, 1, 0, int(below is None)))))
        return out


class Upsample(nn.Module):
    """Every pixel four times, then a convolution.

    Both together are one transposed convolution with a kernel of 4x4 and stride 2, which multiplies 4 times where the
    two multiply 9 times. On a CPU that is faster once there are pixels enough to pay for making the kernel.
    """

    MANY = 1 << 12
    """Pixels to double."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """`[B, C, H, W] -> [B, C, 2H, 2W]`, or to another `size` (H', W')."""
        H, W = x_BCHW.shape[2:]
        size = size or (2 * H, 2 * W)
        if size == (2 * H, 2 * W) and compiled.convolves(x_BCHW, self.conv.weight, doubled=True):
            return self.conv.plus(x_BCHW, doubled=True)
        if size == (2 * H, 2 * W) and H * W >= self.MANY and x_BCHW.is_cpu and not torch.is_grad_enabled():
            return self._doubled(x_BCHW, self._kernel())
        return self.conv(F.interpolate(x_BCHW, size=size, mode="nearest"))

    def banded(self, bands: Bands) -> Bands:
        """The same to twice the size."""
        kernel, out = self._kernel(), []
        for above, here, below in _neighboured(bands):
            made = self._doubled(_joined(above, here, below), kernel)
            out.append(made[:, :, 0 if above is None else 2 : None if below is None else -2])
        return out

    def _kernel(self) -> Tensor:
        """`[in, out, 4, 4]`: what a pixel gives to the 4x4 around the four that it becomes."""
        turned = self.conv.weight.flip(2, 3)
        tall = F.pad(turned, (0, 0, 0, 1)) + F.pad(turned, (0, 0, 1, 0))
        return (F.pad(tall, (0, 1)) + F.pad(tall, (1, 0))).transpose(0, 1)

    def _doubled(self, x_BCHW: Tensor, kernel: Tensor) -> Tensor:
        bias = None if self.conv.bias is None else self.conv.bias.to(x_BCHW.dtype)
        return F.conv_transpose2d(x_BCHW, kernel.to(x_BCHW.dtype), bias, stride=2, padding=1)


def in_bands(x_BCHW: Tensor, rows: int) -> Bands:
    """Bands of `rows` rows, the last of up to twice as many less one."""
    count = max(x_BCHW.shape[2] // rows, 1)
    return list(x_BCHW.tensor_split([rows * k for k in range(1, count)], dim=2))


def banded_conv(conv: Conv2d, bands: Bands, before: Callable[[Tensor], Tensor] | None = None) -> Bands:
    """A 3x3 convolution over bands, `before` applied to what it reads."""
    return [_over_rows(conv, piece, before) for piece in _neighboured(bands)]


_Piece = tuple[Tensor | None, Tensor, Tensor | None]


def _neighboured(bands: Bands) -> Iterator[_Piece]:
    """Each band with the row above and the row below it; none beyond the picture. The list lets go of each as it goes
    out, so that its memory is free once it has been used."""
    above = None
    while bands:
        here = bands.pop(0)
        last = here[:, :, -1:].clone() if bands else None
        yield above, here, bands[0][:, :, :1] if bands else None
        above = last


def _joined(*rows: Tensor | None) -> Tensor:
    there = [each for each in rows if each is not None]
    return torch.cat(there, dim=2) if len(there) > 1 else there[0]


def _closed(rows: Tensor, above: Tensor | None, below: Tensor | None) -> Tensor:
    """With a row of zeros where the picture ends."""
    return F.pad(rows, (0, 0, int(above is None), int(below is None))) if above is None or below is None else rows


def _over_rows(conv: Conv2d, piece: _Piece, before: Callable[[Tensor], Tensor] | None) -> Tensor:
    above, here, below = piece
    rows = _joined(above, here, below)
    return conv.padded(_closed(rows if before is None else before(rows), above, below), (0, 1))


def _silu(x: Tensor) -> Tensor:
    """In place where nobody needs the input any more."""
    return F.silu(x, inplace=not x.requires_grad)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity; the second starts at zero, so that a new block changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.second(F.silu(self.first(F.silu(x_BCHW))))
