"""How a picture lies on the canvas that a model draws: scaled, in the middle, its edges carried on around it.

Legend: H and W of the picture, h and w of the canvas, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conjure.media.canvas import scaled

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A picture of one size, drawn at another (`scaled`), on a canvas that is as large or larger."""

    picture: Size
    scaled: Size
    canvas: Size

    @property
    def enlarges(self) -> float:
        """How many times what is drawn is enlarged for the picture."""
        return max(self.picture) / max(self.scaled)

    @property
    def whole(self) -> bool:
        """Whether every pixel of the canvas is one of the picture."""
        return self.picture == self.canvas

    def laid(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """uint8 `[H, W, C]` -> the canvas `[h, w, C]` (Lanczos)."""
        return np.pad(scaled(pixels_HWC, *self.scaled), (*self._around(), (0, 0)), mode="edge")

    def marked(self, mask_HW: np.ndarray) -> np.ndarray:
        """Pixels of the canvas that hold anything the mask marks: bool `[h, w]`."""
        return np.pad(covered(mask_HW, *self.scaled), self._around(), mode="edge")

    def taken(self, canvas_hwC: np.ndarray) -> np.ndarray:
        """The picture on a canvas, at its own size: `[H, W, C]` (Lanczos)."""
        (top, _), (left, _) = self._around()
        part = canvas_hwC[top : top + self.scaled[0], left : left + self.scaled[1]]
        return scaled(np.ascontiguousarray(part), *self.picture)

    def _around(self) -> tuple[Size, Size]:
        """Pixels above and below, left and right."""
        down, across = (whole - part for whole, part in zip(self.canvas, self.scaled, strict=True))
        return (down // 2, down - down // 2), (across // 2, across - across // 2)


def on_square(picture: Size, side: int) -> Fit:
    """On a square canvas that the picture's longer side fills."""
    return Fit(picture=picture, scaled=_longest(picture, side), canvas=(side, side))


def on_multiples(picture: Size, multiple: int, longest: int = 0, least: int = 0) -> Fit:
    """On a canvas whose sides are the next multiples from `least` on, at the picture's own size or with its longer side
    at `longest`."""
    drawn = _longest(picture, longest) if longest else picture
    height, width = (-(-max(side, least) // multiple) * multiple for side in drawn)
    return Fit(picture=picture, scaled=drawn, canvas=(height, width))


def covered(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which of `height` x `width` cells hold anything that the mask marks: bool. A cell smaller than a pixel holds
    one."""
    from PIL import Image as Pillow

    marked = Pillow.fromarray((mask_HW > 0).astype(np.float32))
    for size in ((width, marked.height), (width, height)):  # a side at a time: one may grow while the other shrinks
        grows = size[0] > marked.width or size[1] > marked.height
        marked = marked.resize(size, Pillow.Resampling.NEAREST if grows else Pillow.Resampling.BOX)
    return np.asarray(marked) > 1e-6


def _longest(picture: Size, longest: int) -> Size:
    scale = longest / max(picture)
    return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))
