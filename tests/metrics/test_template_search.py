from __future__ import annotations

import numpy as np
import pytest

from conjure.core.seeds import rng
from conjure.metrics.template_search import centred, locate, nearest


def brute_force(canvas: np.ndarray, template: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Root mean squared error of every place where the template lies inside."""
    h, w = weight.shape
    places = np.zeros((canvas.shape[0] - h + 1, canvas.shape[1] - w + 1))
    for top, left in np.ndindex(*places.shape):
        away = (canvas[top : top + h, left : left + w].astype(float) - template) ** 2
        places[top, left] = np.sqrt((weight[..., None] * away).sum() / (weight.sum() * canvas.shape[2]))
    return places


@pytest.mark.parametrize("seed", range(4))
def test_the_best_place_is_that_of_a_search_by_hand(seed: int) -> None:
    draw = rng(seed)
    canvas = draw.integers(0, 256, (17, 21, 3)).astype(np.uint8)
    template, weight = draw.random((5, 6, 3)) * 255, draw.random((5, 6))
    errors = brute_force(canvas, template, weight)
    top, left = np.unravel_index(errors.argmin(), errors.shape)
    x, y, error = locate(canvas, template, weight)
    assert (x, y) == (left + 3, top + 2.5)
    assert error == pytest.approx(errors.min(), rel=1e-5)


@pytest.mark.parametrize("top, left", [(0, 0), (7, 3), (24, 24)])
def test_a_planted_template_is_found(top: int, left: int) -> None:
    draw = rng(1)
    template, weight = draw.integers(0, 256, (8, 8, 3)), np.ones((8, 8))
    canvas = np.full((32, 32, 3), 255, np.uint8)
    canvas[top : top + 8, left : left + 8] = template
    x, y, error = locate(canvas, template, weight)
    assert (x, y) == (left + 4, top + 4) and error == pytest.approx(0, abs=1e-3)


def test_pixels_without_weight_do_not_count() -> None:
    draw = rng(2)
    template, weight = draw.integers(0, 256, (6, 6, 3)), np.ones((6, 6))
    weight[:, 3:] = 0
    canvas = draw.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    canvas[5:11, 9:12] = template[:, :3]
    assert locate(canvas, template, weight)[:2] == (12, 8)


def test_nearest_is_that_of_a_search_by_hand() -> None:
    draw = rng(3)
    pictures, known = draw.random((9, 4, 5, 3)) * 255, draw.random((12, 4, 5, 3)) * 255
    expected = [min(range(12), key=lambda m: ((p - known[m]) ** 2).sum()) for p in pictures]
    assert nearest(pictures, known).tolist() == expected
    assert nearest(known.astype(np.uint8), known.astype(np.uint8)).tolist() == list(range(12))


def test_an_empty_picture_stays_empty() -> None:
    assert (centred(np.full((40, 30, 3), 250, np.uint8), side=8) == 255).all()
    assert (centred(np.full((40, 30, 3), 10, np.uint8), side=8, background=(0, 0, 0)) == 0).all()


def test_place_does_not_matter_and_shape_is_kept() -> None:
    thing = rng(4).integers(0, 200, (16, 8, 3)).astype(np.uint8)
    made = []
    for top, left in ((0, 0), (20, 3), (40, 50)):
        canvas = np.full((64, 60, 3), 255, np.uint8)
        canvas[top : top + 16, left : left + 8] = thing
        made.append(centred(canvas, side=16))
    assert made[0].shape == (16, 16, 3) and made[0].dtype == np.float32
    assert all(np.array_equal(each, made[0]) for each in made)
    assert np.array_equal(made[0][:, 4:12], thing) and (made[0][:, :4] == 255).all() and (made[0][:, 12:] == 255).all()


def test_size_does_not_matter() -> None:
    thing = rng(5).integers(0, 200, (8, 8, 3)).astype(np.uint8)
    large = np.full((50, 50, 3), 255, np.uint8)
    large[10:42, 5:37] = thing.repeat(4, 0).repeat(4, 1)
    assert np.array_equal(centred(large, side=8), thing)
