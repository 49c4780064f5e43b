"""The canvas of an edit: made larger, cut into squares that a model can draw, filled, and pasted back exactly.

Legend: H height, W width, C channels, s side of a square.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from conjure.core.errors import ConjureError
from conjure.media.bounds import PIXELS, bound, over
from conjure.media.image import Image
from conjure.media.mask import Box, box, feathered

SIDES = ("left", "top", "right", "bottom")
CONTEXT = 1.6  # side of the square around a mask, in sides of the mask
KNOWN = 0.4  # least share of a square that is already there, where squares can be chosen


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How many pixels a canvas grows on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


def margins(text: str) -> Margins:
    """`left=64,top=32`, `64` for all four sides; `ConjureError` for anything else."""
    if re.fullmatch(r"\d{1,6}", text.strip()):
        return Margins(**dict.fromkeys(SIDES, int(text)))
    found: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([a-z]+)\s*=\s*(\d{1,6})\s*", part)
        if match is None or match[1] not in SIDES or match[1] in found:
            raise ConjureError(
                f"expected sides and pixels, got {part.strip()!r}", hint="for example left=64,top=32; or 64 for all"
            )
        found[match[1]] = int(match[2])
    return Margins(**found)


def margins_to(size: str, image: Image) -> Margins:
    """What centres the picture on a canvas of `WxH` pixels; `ConjureError` where that is smaller than the picture."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", size)
    if match is None:
        raise ConjureError(f"expected a size, got {size!r}", hint="for example 512x384, width first")
    more = int(match[1]) - image.width, int(match[2]) - image.height
    if min(more) < 0:
        raise ConjureError(
            f"a canvas of {match[1]} x {match[2]} does not hold a picture of {image.width} x {image.height}",
            hint="name a size that is not smaller on either side",
        )
    across, down = more
    return Margins(left=across // 2, right=across - across // 2, top=down // 2, bottom=down - down // 2)


def extended(image: Image, by: Margins) -> tuple[Image, np.ndarray]:
    """The picture on the larger canvas, its edges carried on, and the mask of what is new."""
    height, width = image.height + by.top + by.bottom, image.width + by.left + by.right
    if height * width > bound(PIXELS):
        raise over("the canvas", f"{width:,} x {height:,} = {width * height:,}", PIXELS, "pixels")
    wide = np.pad(image.pixels, ((by.top, by.bottom), (by.left, by.right), (0, 0)), mode="edge")
    mask = np.full((height, width), 255, np.uint8)
    mask[by.top : by.top + image.height, by.left : by.left + image.width] = 0
    return Image(wide), mask


def pasted(before: Image, made_HW3: np.ndarray, mask_HW: np.ndarray, feather: int = 0) -> Image:
    """What was made, in place of what the mask marks; all else is that of `before`, bit for bit.

    The seam is blended inside the mask, over `feather` pixels (`mask.feathered`). Where `before` is transparent it
    has no colour to blend with, so there what was made counts alone; what was made is opaque. The result has an
    alpha channel only if something stays transparent.
    """
    weight = feathered(mask_HW, feather)[..., None]
    alpha = before.alpha()
    if alpha is None:
        old = before.pixels if before.pixels.shape[2] == 3 else before.rgb()
        blend = _rounded(old + weight * (made_HW3.astype(np.float32) - old))
        return Image(np.where(mask_HW[..., None] > 0, blend, old))
    own = alpha[..., None].astype(np.float32) / 255
    total = np.minimum(1, own + mask_HW[..., None].astype(np.float32) / 255)
    share = own * (1 - weight) / np.where(total > 0, total, 1)
    colour = share * before.pixels[:, :, :3] + (1 - share) * made_HW3
    out = np.where(mask_HW[..., None] > 0, _rounded(np.concatenate([colour, total * 255], axis=2)), before.pixels)
    return Image(out if out[:, :, 3].min() < 255 else np.ascontiguousarray(out[:, :, :3]))


def windows(mask_HW: np.ndarray, least: int) -> list[Box]:
    """Squares that together hold all that may change, in the order in which to draw them.

    One where it fits: around the mask with as much again of what stays, at least `least` pixels a side. Else as many as
    it takes, as large as the picture's shorter side, beginning beside what is there, so that each sees
    what was drawn before.
    """
    H, W = mask_HW.shape
    around, most = box(mask_HW), min(H, W)
    longest = max(around.height, around.width)
    if longest <= most:
        side = min(most, max(least, round(longest * CONTEXT)))
        top = _centred(around.top, around.bottom, side, H)
        left = _centred(around.left, around.right, side, W)
        return [Box(top, left, top + side, left + side)]
    open_HW, taken = mask_HW > 0, []
    places = [(y, x) for y in _starts(around.top, around.bottom, most, H)
              for x in _starts(around.left, around.right, most, W)]  # fmt: skip
    while open_HW.any():
        counts = [int(open_HW[y : y + most, x : x + most].sum()) for y, x in places]
        seen = [c for c in counts if 0 < c <= (1 - KNOWN) * most * most]
        y, x = places[counts.index(max(seen) if seen else min(c for c in counts if c))]
        taken.append(Box(y, x, y + most, x + most))
        open_HW[y : y + most, x : x + most] = False
    return taken


def cut(pixels_HWC: np.ndarray, window: Box, side: int) -> np.ndarray:
    """A square of the picture at `side` pixels: uint8 `[s, s, C]` (Lanczos)."""
    return scaled(pixels_HWC[window.within], side, side)


def cells(mask_HW: np.ndarray, window: Box, count: int) -> np.ndarray:
    """Which of `count` x `count` cells of a square hold anything that may change: bool."""
    from PIL import Image as Pillow

    part = Pillow.fromarray((mask_HW[window.within] > 0).astype(np.float32))
    if part.width < count:  # a cell is smaller than a pixel
        return np.asarray(part.resize((count, count), Pillow.Resampling.NEAREST)) > 0
    return np.asarray(part.resize((count, count), Pillow.Resampling.BOX)) > 1e-6


def scaled(pixels_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 `[H, W, 1 or 3 or 4]` at another size (Lanczos); itself where the size is the same."""
    from PIL import Image as Pillow

    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC
    flat = np.ascontiguousarray(pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
    out = np.array(Pillow.fromarray(flat).resize((width, height), Pillow.Resampling.LANCZOS))
    return out[..., None] if out.ndim == 2 else out


def filled(pixels_HW3: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """The picture with smooth colours of the surroundings in place of what the mask marks: uint8 `[H, W, 3]`.

    Pull and push over a pyramid of halves (Gortler et al., The Lumigraph, 1996, section 3.4): what is unknown at one
    size is taken from half the size. Nothing that the mask marks shows through.
    """
    known = (mask_HW == 0).astype(np.float32)[..., None]
    if not known.any():
        return np.full_like(pixels_HW3, 255)
    whole = _pulled(pixels_HW3 * known, known)
    return np.where(known > 0, pixels_HW3, _rounded(whole)).astype(np.uint8)


def moved(window: Box, part: Box) -> Box:
    """`part`, as far as it lies in the window, counted from the window's corner."""
    return replace(
        part,
        top=max(part.top, window.top) - window.top, bottom=min(part.bottom, window.bottom) - window.top,
        left=max(part.left, window.left) - window.left, right=min(part.right, window.right) - window.left,
    )  # fmt: skip


def _pulled(sums_HWC: np.ndarray, weight_HW1: np.ndarray) -> np.ndarray:
    """Colours everywhere, from weighted colours and their weights (0 to 1)."""
    H, W = weight_HW1.shape[:2]
    here = sums_HWC / np.where(weight_HW1 > 0, weight_HW1, 1)
    if weight_HW1.min() >= 1 or max(H, W) == 1:
        return here
    total = _halved(weight_HW1)
    clipped = np.minimum(total, 1)
    below = _pulled(_halved(sums_HWC) * clipped / np.where(total > 0, total, 1), clipped)
    return weight_HW1 * here + (1 - weight_HW1) * _doubled(below, H, W)


def _halved(values_HWC: np.ndarray) -> np.ndarray:
    H, W = values_HWC.shape[:2]
    even = np.pad(values_HWC, ((0, H % 2), (0, W % 2), (0, 0)))
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _doubled(values_HWC: np.ndarray, H: int, W: int) -> np.ndarray:
    """Twice the size, linear between the middles of the cells."""
    padded = np.pad(values_HWC, ((1, 1), (1, 1), (0, 0)), mode="edge")
    for axis in (0, 1):
        here = padded.take(range(1, padded.shape[axis] - 1), axis)
        before = padded.take(range(padded.shape[axis] - 2), axis)
        after = padded.take(range(2, padded.shape[axis]), axis)
        pair = np.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis + 1)
        shape = list(here.shape)
        shape[axis] *= 2
        padded = pair.reshape(shape)
    return padded[:H, :W]


def _centred(first: int, last: int, side: int, most: int) -> int:
    """Where a stretch of `side` begins that has [first, last) in its middle, as far as it stays within `most`."""
    return min(max(0, (first + last - side) // 2), most - side)


def _starts(first: int, last: int, side: int, most: int) -> list[int]:
    """Where stretches of `side` begin, half overlapping, that together cover [first, last) and half a side around."""
    begin, end = (min(max(0, place - side // 2), most - side) for place in (first, last))
    return list(dict.fromkeys([*range(begin, end, max(1, side // 2)), end]))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
