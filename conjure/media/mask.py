"""Masks: which part of a picture may change.

A mask is uint8 `[H, W]` of the picture's own size: 255 = change here, 0 = keep, between them a share of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conjure.core.errors import ConjureError
from conjure.media.image import Image

_NOISE = 8  # how far a JPEG's black and white stray


@dataclass(frozen=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right`, without the last of each."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def within(self) -> tuple[slice, slice]:
        """What cuts it out of an array `[H, W, ...]`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def mask_of(image: Image, like: Image, *, invert: bool = False) -> np.ndarray:
    """The mask that a picture is for another one.

    Where some of it is transparent, that part is to change, whatever the colours; else what is bright (in any
    channel, so a red brush counts as a white one). `invert` swaps both. `ConjureError` where the sizes differ or
    nothing is marked.
    """
    if (image.height, image.width) != (like.height, like.width):
        raise ConjureError(
            f"the mask is {image.width} x {image.height} pixels, the picture {like.width} x {like.height}",
            hint="a mask has the size of its picture: white where it should change, black elsewhere",
        )
    alpha = image.alpha()
    mask = 255 - alpha if alpha is not None else image.pixels.max(2)
    mask = np.where(mask <= _NOISE, 0, np.where(mask >= 255 - _NOISE, 255, mask)).astype(np.uint8)
    mask = 255 - mask if invert else mask
    if not mask.any():
        raise ConjureError(
            "the mask marks nothing", hint="paint white what should change, or give --invert if it marks what stays"
        )
    return mask


def box(mask_HW: np.ndarray) -> Box:
    """The smallest box around all that may change; `ConjureError` where that is nothing."""
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    if len(rows) == 0:
        raise ConjureError("the mask marks nothing", hint="paint white what should change")
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def feathered(mask_HW: np.ndarray, radius: int) -> np.ndarray:
    """How much of the new picture each pixel takes: float32 `[H, W]`, 0 wherever the mask is 0, at most its share.

    From the border of the mask inwards it rises evenly and is whole `radius` pixels deep, sooner where the mask is
    too thin for that. The picture's own border is no seam. Distances are those of an octagon (4 and 8 neighbours in
    turns).
    """
    share = mask_HW.astype(np.float32) / 255
    if radius < 1 or not mask_HW.any() or mask_HW.all():
        return share
    weight = np.zeros_like(share)
    around = box(mask_HW)
    weight[around.within] = _rising(_with_border(mask_HW, around), radius)
    return np.minimum(share, weight)


def _with_border(mask_HW: np.ndarray, around: Box) -> np.ndarray:
    """The inside of the mask within its box and one pixel more: bool; beyond the picture counts as inside."""
    beyond = np.pad(mask_HW > 0, 1, constant_values=True)
    return beyond[around.top : around.bottom + 2, around.left : around.right + 2]


def _rising(inside: np.ndarray, radius: int) -> np.ndarray:
    """The weights within a box, of its insides with one pixel around it."""
    depth, left = np.zeros(inside.shape, np.uint8), inside
    for step in range(min(radius, 255)):
        depth += left
        if not left.any():
            break
        left = _shrunk(left, step)
    thickness = depth
    for step in range(min(radius, 255)):
        thickness = _highest(thickness, step) * inside
    weight = depth.astype(np.float32)
    return np.divide(weight, thickness, out=weight, where=thickness > 0)[1:-1, 1:-1]


def _shrunk(inside: np.ndarray, step: int) -> np.ndarray:
    return _highest((~inside).view(np.uint8), step) == 0


def _highest(values: np.ndarray, step: int) -> np.ndarray:
    """The highest value among a pixel and its 4 (even steps) or 8 neighbours."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[1:-1] if step % 2 == 0 else np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    out = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    if step % 2 == 0:
        np.maximum(out, padded[:-2, 1:-1], out=out)
        np.maximum(out, padded[2:, 1:-1], out=out)
    return out
