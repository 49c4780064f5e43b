"""Pictograms on white and their outlines: pairs for pix2pix, and strangers, no two of which belong together.

An outline is the gradient's magnitude with a soft threshold, as dark lines on white, and so a pure function of the
picture. A tenth of the pictograms is held out; a man, a woman and a person who do the same look alike and lie on the
same side. Example i is a pure function of (seed, i).

Legend: N pictograms, B examples, H and W pixels; lines have one channel, pictures three.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.pictograms import Pictogram, load, without_white
from conjure.data.pictures_small import uniform
from conjure.media.image import Image, resized

FAINT, CLEAR = 12.0, 40.0  # slopes, in grey levels a pixel, at which a line begins to show and is black
HELD_OUT = 10  # one pictogram in so many
_ALIKE = {"1f468", "1f469", "1f9d1", "200d", "2640", "2642", "fe0f"}  # man, woman, person, what joins them
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class OutlineSource:
    """`lines_NHW1` and `pictures_NHW3`, uint8, of all pictograms; `train` and `test` are places among them.

    Made of pictures with transparency, uint8 `[N, H, W, 4]`. For strangers the training part is cut once more into
    `drawn`, of which only the lines are shown, and `painted`, of which only the pictures are. `ink` is the mean colour
    of all that the training pictures cover.
    """

    def __init__(self, pictograms: Sequence[Pictogram], pictures_NHW4: np.ndarray, *, seed: int = 0) -> None:
        self.seed, self.names = seed, [pictogram.name for pictogram in pictograms]
        self.pictures_NHW3 = np.stack([Image(each).rgb() for each in pictures_NHW4])
        self.lines_NHW1 = np.stack([outline(each) for each in self.pictures_NHW3])
        drawn = [derive(0, "outlines", kin(pictogram.codepoint)) for pictogram in pictograms]
        place_N, draw_N = np.arange(len(drawn)), np.array(drawn)
        held_N, first_N = draw_N % HELD_OUT == 0, draw_N // HELD_OUT % 2 == 0
        self.train, self.test = place_N[~held_N], place_N[held_N]
        self.drawn, self.painted = place_N[~held_N & first_N], place_N[~held_N & ~first_N]
        if not min(len(self.test), len(self.drawn), len(self.painted)):
            raise ConjureError(f"{len(self.names)} pictograms are too few: each part of the split needs some")
        alpha = pictures_NHW4[self.train][..., 3:].astype(np.float64)
        self.ink = np.rint((pictures_NHW4[self.train][..., :3] * alpha).sum((0, 1, 2)) / alpha.sum()).astype(np.uint8)
        self._order = lru_cache(maxsize=8)(self._draw_order)  # of two epochs of each list

    @classmethod
    def load(cls, size: int = 64, seed: int = 0) -> OutlineSource:
        """Noto's pictograms without flags, variants in skin tone and pictures that occur twice."""
        pictograms, pictures_NHW4 = load(size, flags=False)
        kept = [place for place, pictogram in enumerate(pictograms) if pictogram.duplicate_of is None]
        return cls([pictograms[place] for place in kept], pictures_NHW4[kept], seed=seed)

    def pairs(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines `[B, H, W, 1]`, the pictures they belong to `[B, H, W, 3]`, both mirrored half of the time, and the
        places of the pictograms `[B]`. Every epoch visits each training pictogram once."""
        places_B = self._places("pairs", self.train, indices)
        lines, pictures = self.lines_NHW1[places_B], self.pictures_NHW3[places_B]
        return self._mirrored("pairs", indices, lines), self._mirrored("pairs", indices, pictures), places_B

    def strangers(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of lines and pictures that never belong together: no pictogram is shown as both. Places `[B, 2]`."""
        lines_B = self._places("lines", self.drawn, indices)
        pictures_B = self._places("pictures", self.painted, indices)
        lines = self._mirrored("lines", indices, self.lines_NHW1[lines_B])
        pictures = self._mirrored("pictures", indices, self.pictures_NHW3[pictures_B])
        return lines, pictures, np.stack([lines_B, pictures_B], 1)

    def held_out(self, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Lines and pictures of the pictograms that training never shows, evenly chosen where not all are wanted."""
        count = min(limit or len(self.test), len(self.test))
        places = self.test[np.linspace(0, len(self.test) - 1, count).astype(int)]
        return self.lines_NHW1[places], self.pictures_NHW3[places]

    def _places(self, name: str, among: np.ndarray, indices: Sequence[int]) -> np.ndarray:
        count = len(among)
        return among[[self._order(name, count, index // count)[index % count] for index in indices]]

    def _draw_order(self, name: str, count: int, epoch: int) -> np.ndarray:
        return rng(derive(self.seed, "outlines", name, epoch)).permutation(count)

    def _mirrored(self, name: str, indices: Sequence[int], pixels_BHWC: np.ndarray) -> np.ndarray:
        turned_B111 = uniform(self.seed, f"mirror {name}", indices, 1)[:, :, None, None] < 0.5
        return np.where(turned_B111, pixels_BHWC[:, :, ::-1], pixels_BHWC)


def kin(codepoint: str) -> str:
    """What is left of "1f468-200d-1f33e" (a man who farms) without man, woman and person: the same for all three."""
    return "-".join(part for part in codepoint.split("-") if part not in _ALIKE)


def outline(pixels_HW3: np.ndarray) -> np.ndarray:
    """uint8 `[H, W, 3]` -> lines, uint8 `[H, W, 1]`, 0 where the picture changes and 255 where it is even.

    The larger gradient of the three colours, by Sobel's filters, in grey levels a pixel; around the picture lies white.
    """
    padded = np.pad(pixels_HW3.astype(np.float32), ((1, 1), (1, 1), (0, 0)), constant_values=255)
    down, across = (_slope(padded, axis) for axis in (0, 1))
    slope_HW1 = np.sqrt(down**2 + across**2).max(2, keepdims=True)
    return np.rint(255 * (1 - ((slope_HW1 - FAINT) / (CLEAR - FAINT)).clip(0, 1))).astype(np.uint8)


def inside(lines_NHW1: np.ndarray) -> np.ndarray:
    """What lines enclose, with the lines: bool `[N, H, W, 1]`. White that is connected to the border is outside."""
    return without_white(lines_NHW1.repeat(3, axis=3))[..., 3:] > 0


def plainly(lines_NHW1: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Pictures of one colour within the lines and white around, uint8 `[N, H, W, 3]`: what any model has to beat."""
    return np.where(inside(lines_NHW1), colour, np.uint8(255)).astype(np.uint8)


def fitted(image: Image, side: int) -> np.ndarray:
    """Any picture in the middle of a white square, its longer side at `side` pixels: uint8 `[side, side, 3]`."""
    small = resized(image, side)
    top, left = (side - small.height) // 2, (side - small.width) // 2
    square = np.full((side, side, 3), 255, np.uint8)
    square[top : top + small.height, left : left + small.width] = small.pixels
    return square


def grey(pixels_HW3: np.ndarray) -> np.ndarray:
    """uint8 `[..., 3]` -> its brightness, uint8 `[..., 1]`."""
    return np.rint(pixels_HW3 @ _LUMA).astype(np.uint8)[..., None]


def _slope(padded: np.ndarray, along: int) -> np.ndarray:
    """Differences over two pixels along an axis, halved, smoothed across it; one pixel less on every side."""
    count, across = padded.shape[along] - 2, 1 - along
    steep = (padded.take(range(2, count + 2), along) - padded.take(range(count), along)) / 2
    other = padded.shape[across] - 2
    before, here, after = (steep.take(range(start, start + other), across) for start in range(3))
    return (before + 2 * here + after) / 4
