from __future__ import annotations

import numpy as np
import pytest

from conjure.media.cutout import cut_out

GROUND, THING = np.array([240.0, 220.0, 120.0]), np.array([30.0, 60.0, 150.0])


def disc(side: int = 64, radius: float = 20.0) -> np.ndarray:
    """Opacity of an antialiased disc, `[H, W]`."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    return np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)


def over(opacity_HW: np.ndarray) -> np.ndarray:
    mixed = opacity_HW[..., None] * THING + (1 - opacity_HW[..., None]) * GROUND
    return np.rint(mixed).astype(np.uint8)


def test_opacity_and_colour_come_back_from_a_mixture() -> None:
    wanted_HW = disc()
    made = cut_out(over(wanted_HW))
    opacity_HW = made.rgba_HW4[..., 3] / 255
    seen_HW = np.abs(over(wanted_HW) - GROUND).max(-1) > 24  # below that the seam is taken for ground
    assert np.abs(opacity_HW - wanted_HW)[seen_HW].max() < 0.02 and opacity_HW[~seen_HW].max() == 0
    assert np.abs(made.rgba_HW4[..., :3] - THING)[opacity_HW > 0.2].max() <= 4
    assert made.explained == 1 and made.removed == pytest.approx(1 - (seen_HW).mean())


def test_a_hole_in_the_grounds_colour_stays() -> None:
    ring_HW = disc() * (1 - disc(radius=8.0))
    made = cut_out(over(ring_HW))
    assert made.rgba_HW4[32, 32].tolist() == [240, 220, 120, 255] and made.rgba_HW4[0, 0, 3] == 0


def test_the_ground_is_found_around_corners() -> None:
    wall = np.zeros((31, 31))
    wall[[0, -1]] = wall[:, [0, -1]] = 1
    wall[4:-2:8, :-4] = wall[8:-2:8, 4:] = 1  # a winding path within a frame, its way in at the top
    wall[0, 2] = 0
    wall = np.pad(wall, 3)
    made = cut_out(over(wall))
    assert ((made.rgba_HW4[..., 3] > 0) == (wall > 0)).all()


def test_two_colours_of_ground_and_a_crowded_border() -> None:
    picture = over(disc())
    picture[:, :32][disc()[:, :32] == 0] = (20, 200, 60)
    made = cut_out(picture)
    assert made.explained == 1 and (made.rgba_HW4[..., 3][disc() == 0] == 0).all()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert cut_out(noise).explained < 0.5


def test_smallest_pictures() -> None:
    assert cut_out(np.full((1, 1, 3), 9, np.uint8)).removed == 1
    assert cut_out(np.full((3, 1, 3), 9, np.uint8)).rgba_HW4.shape == (3, 1, 4)
