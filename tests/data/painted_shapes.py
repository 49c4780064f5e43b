"""Pictograms made here for outlines: a square or a disc of one colour each, opaque, on nothing."""

from __future__ import annotations

import numpy as np

from conjure.data.pictograms import Pictogram


def painted_shapes(side: int, count: int) -> tuple[list[Pictogram], np.ndarray]:
    """`count` different ones, uint8 `[count, side, side, 4]`; even ones are squares."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] + 0.5
    pictures = np.zeros((count, side, side, 4), np.uint8)
    for k, picture in enumerate(pictures):
        middle, reach = draw.uniform(0.35, 0.65, 2) * side, draw.uniform(0.2, 0.35) * side
        away = np.abs(x - middle[0]), np.abs(y - middle[1])
        within = np.maximum(*away) < reach if k % 2 == 0 else np.hypot(*away) < reach
        picture[within] = (*draw.integers(0, 160, 3), 255)
    known = [Pictogram(f"shape {k}", (), "Objects", "", "", f"{k:x}", False, None) for k in range(count)]
    return known, pictures
