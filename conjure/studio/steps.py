"""The steps by which a picture came to be what it is: back and forth along them, and on from any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conjure.media.canvas import scaled
from conjure.media.image import Image


@dataclass(frozen=True, kw_only=True)
class Step:
    """One state of a picture. `said` is what made it; `moved` is where the picture before it lies on this one, x and y
    in pixels; `mask_HW`, uint8 0 or 255, is what was painted on this one when the next was made of it."""

    picture: Image
    said: str
    moved: tuple[int, int] | None = None
    mask_HW: np.ndarray | None = None


@dataclass(frozen=True)
class Steps:
    """All states, and the place of the one that is shown."""

    steps: tuple[Step, ...] = ()
    at: int = 0

    @property
    def now(self) -> Step:
        return self.steps[self.at]

    def went(self, step: Step, mask_HW: np.ndarray | None = None) -> Steps:
        """A further step from the one that is shown; what had been undone is forgotten."""
        last = Step(picture=self.now.picture, said=self.now.said, moved=self.now.moved, mask_HW=mask_HW)
        return Steps((*self.steps[: self.at], last, step), self.at + 1)

    def moved(self, by: int) -> Steps:
        """Back (-1) or forth (1), as far as there are steps."""
        return self.to(self.at + by)

    def to(self, place: int) -> Steps:
        return Steps(self.steps, min(max(place, 0), len(self.steps) - 1))

    def alone(self) -> Steps:
        """The shown picture as the first of its own steps."""
        return Steps((Step(picture=self.now.picture, said="Kept as new"),))

    def pair(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The picture before and the shown one, uint8 `[H, W, 4]` each and equally large; None for the first step."""
        if self.at == 0:
            return None
        before, after = _rgba(self.steps[self.at - 1].picture), _rgba(self.now.picture)
        if self.now.moved is not None:
            canvas = np.zeros_like(after)
            x, y = self.now.moved
            canvas[y : y + before.shape[0], x : x + before.shape[1]] = before
            before = canvas
        elif before.shape != after.shape:
            before = _rgba(Image(scaled(before, after.shape[0], after.shape[1])))
        return before, after


def _rgba(picture: Image) -> np.ndarray:
    """uint8 `[H, W, 4]`."""
    alpha = picture.alpha()
    colour = picture.pixels[:, :, :3] if alpha is not None else picture.rgb()
    whole = np.full(colour.shape[:2], 255, np.uint8) if alpha is None else alpha
    return np.dstack([colour, whole])


def painted(layers: list[np.ndarray], size: tuple[int, int]) -> np.ndarray | None:
    """Where anything was painted on layers uint8 `[h, w, 4]`: uint8 `[H, W]`, 0 or 255, for a picture of `size` (H, W);
    None where nothing was."""
    height, width = size
    mask_HW = np.zeros(size, bool)
    for layer in layers:
        drawn_hw = layer[..., 3] > 32
        rows = np.arange(height) * drawn_hw.shape[0] // height
        columns = np.arange(width) * drawn_hw.shape[1] // width
        mask_HW |= drawn_hw[rows][:, columns]
    return np.where(mask_HW, 255, 0).astype(np.uint8) if mask_HW.any() else None


def layer(mask_HW: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A mask as a painted layer, uint8 `[H, W, 4]`."""
    own = np.broadcast_to(np.array(colour, np.uint8), (*mask_HW.shape, 3))
    return np.dstack([own, (mask_HW // 255 * 166).astype(np.uint8)])


def framed(picture: Image, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The picture on the larger canvas, what is new hatched: uint8 `[H, W, 4]`."""
    inner = _rgba(picture)
    height, width = inner.shape[0] + top + bottom, inner.shape[1] + left + right
    y, x = np.mgrid[:height, :width]
    stripe = ((x + y) // max(4, (height + width) // 96) % 2).astype(bool)
    canvas = np.where(stripe[..., None], np.uint8(225), np.uint8(200)).repeat(3, -1)
    canvas = np.dstack([canvas, np.full((height, width), 255, np.uint8)])
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas
