"""Pictures on canvases: what is laid there is taken back, and masks lose nothing."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.core.seeds import rng
from conjure.media.fit import covered, on_multiples, on_square


def picture(height: int, width: int) -> np.ndarray:
    return rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_picture_keeps_its_pixels_where_it_is_not_scaled() -> None:
    fit = on_multiples((20, 37), 8)
    assert fit.scaled == (20, 37) and fit.canvas == (24, 40) and not fit.whole and fit.enlarges == 1
    canvas = fit.laid(picture(20, 37))
    assert np.array_equal(canvas[2:22, 1:38], picture(20, 37))
    assert (canvas[:2, 1:38] == picture(20, 37)[0]).all() and (canvas[2:22, 38:] == picture(20, 37)[:, -1:]).all()
    assert np.array_equal(fit.taken(canvas), picture(20, 37))
    assert on_multiples((16, 24), 8).whole and on_multiples((16, 24), 8, least=20).canvas == (24, 24)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 200), (7, 300)])
def test_every_size_comes_back(size: tuple[int, int]) -> None:
    for fit in (on_square(size, 64), on_multiples(size, 8, 64), on_multiples(size, 8)):
        canvas = fit.laid(picture(*size))
        assert canvas.shape[:2] == fit.canvas and fit.taken(canvas).shape == (*size, 3)
        assert fit.marked(np.zeros(size, np.uint8)).sum() == 0 and fit.marked(np.ones(size, np.uint8)).all()
    assert on_square(size, 64).canvas == (64, 64)
    assert all(side % 8 == 0 for side in on_multiples(size, 8).canvas)


def test_a_longest_side_scales_both_ways() -> None:
    assert on_multiples((100, 300), 8, 600).scaled == (200, 600)
    smaller = on_multiples((100, 300), 8, 150)
    assert smaller.scaled == (50, 150) and smaller.canvas == (56, 152) and smaller.enlarges == 2


def test_a_single_pixel_is_never_lost() -> None:
    mask = np.zeros((50, 70), np.uint8)
    mask[33, 61] = 1
    found = covered(mask, 5, 7)
    assert found.sum() == 1 and found[3, 6]
    assert covered(mask, 100, 140).sum() == 4, "twice the size: four cells"
    assert covered(mask, 100, 7).sum() == 2, "taller and narrower"
    rows, columns = np.nonzero(covered(mask, 13, 70))
    assert set(columns) == {61} and set(rows) == {8}
