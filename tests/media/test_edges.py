"""Edges of pictures whose outlines are known."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.media.edges import edges, followed, gradient


def grey(values_HW: np.ndarray) -> np.ndarray:
    return np.rint(values_HW).astype(np.uint8)[..., None]


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("rise", [60, 255])
def test_a_step_is_one_line(turn: int, rise: int) -> None:
    picture = np.zeros((9, 12))
    picture[:, 5:] = rise
    found = np.rot90(edges(grey(np.rot90(picture, turn))), -turn)
    (columns,) = np.nonzero(found[4])
    assert len(columns) == 1 and columns[0] in (4, 5), "one of the two beside the step"
    assert (found == found[4]).all(), "it runs through"


def test_a_step_is_as_steep_as_sobel_says() -> None:
    picture = np.zeros((5, 8))
    picture[:, 4:] = 30
    x, y = gradient(grey(picture))
    assert (x[:, 3:5] == 120).all() and not x[:, :3].any() and not y.any()
    assert edges(grey(picture), low=119, high=119).any() and not edges(grey(picture), low=120, high=120).any()
    ramp = gradient(grey(np.tile(np.arange(8) * 10.0, (5, 1))))[0]
    assert (ramp[:, 1:-1] == 80).all()


def test_a_ramp_has_no_edge() -> None:
    assert not edges(grey(np.tile(np.arange(64) * 4.0, (20, 1))), low=0)[:, 1:-1].any()


def test_a_disc_is_a_closed_curve_of_its_radius() -> None:
    y, x = np.mgrid[:81, :81] - 40.0
    away = np.hypot(x, y)
    found = edges(grey(255 * np.clip(30.5 - away, 0, 1)))
    assert np.abs(away[found] - 30).max() < 1.2, "the middle of the step"
    angles = np.floor((np.arctan2(y, x)[found] + np.pi) / (2 * np.pi) * 120)
    assert len(np.unique(angles)) >= 120, "no gap of three degrees"
    assert 2 * np.pi * 30 * 0.8 < found.sum() < 2 * np.pi * 30 * 1.2, "and a pixel wide"


def test_diagonals_are_a_pixel_wide() -> None:
    for sign in (1, -1):
        y, x = np.mgrid[:40, :40]
        found = edges(grey(255.0 * (x[:, ::sign] + y > 39)))[3:-3, 3:-3]
        assert set(found.sum(1)) <= {1, 2} and found.any(1).all()


def test_lines_are_followed_from_where_they_are_steep() -> None:
    picture = np.zeros((40, 40))
    picture[:, 20:] = np.linspace(60, 30, 40)[:, None]  # steep above, flatter below
    picture[5:15, 4:8] = 32  # as flat, and alone
    found = edges(grey(picture), low=100, high=200)
    assert found[2:-2, 18:22].any(1).all() and not found[:, :12].any()


def test_every_channel_counts() -> None:
    picture = np.zeros((9, 12, 3), np.uint8)
    picture[:, 6:, 2] = 200
    assert edges(picture).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_small_pictures(size: tuple[int, int]) -> None:
    assert edges(np.zeros((*size, 3), np.uint8)).shape == size


def test_following_is_a_flood() -> None:
    allowed = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
    seeds = np.zeros((4, 4), bool)
    seeds[0, 0] = seeds[2, 2] = True
    assert np.array_equal(followed(seeds, allowed), np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool))  # fmt: skip
