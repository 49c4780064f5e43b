from __future__ import annotations

import colorsys

import numpy as np
import pytest

from conjure.core.seeds import rng
from conjure.data.recolour import COLOURS, dominant_hue, hsv, recolour, rgb


def filled(*colours: tuple[int, int, int], alpha: int = 255) -> np.ndarray:
    """Stripes of equal width, uint8 [12, 12, 4]."""
    picture = np.full((12, 12, 4), alpha, np.uint8)
    for k, colour in enumerate(colours):
        picture[:, 12 * k // len(colours) :, :3] = colour
    return picture


def test_hsv_is_the_standard_librarys() -> None:
    colours = np.concatenate([rng(0).random((300, 3)), np.eye(3), 1 - np.eye(3), np.zeros((1, 3)), np.ones((1, 3))])
    expected = np.array([colorsys.rgb_to_hsv(*c) for c in colours])
    assert np.allclose(np.stack(hsv(colours), -1), expected, atol=1e-12)
    assert np.allclose(rgb(*hsv(colours)), colours, atol=1e-12)


def test_rgb_is_the_standard_librarys() -> None:
    values = rng(1).random((300, 3))
    assert np.allclose(rgb(*values.T), [colorsys.hsv_to_rgb(*v) for v in values], atol=1e-12)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_main_hue_becomes_the_wanted_one(colour: str) -> None:
    picture = filled((40, 60, 200), (60, 90, 230))
    main = dominant_hue(picture)
    assert main is not None
    changed = recolour(picture, main, colour)
    off = (hsv(changed[..., :3] / 255)[0] - COLOURS[colour][0] + 0.5) % 1 - 0.5
    assert np.abs(off).max() < 0.02
    assert np.array_equal(changed[..., 3], picture[..., 3])


def test_greys_and_other_hues_stay() -> None:
    picture = filled((200, 30, 30), (200, 30, 30), (200, 30, 30), (128, 128, 128), (20, 180, 40), (255, 255, 255))
    changed = recolour(picture, dominant_hue(filled((200, 30, 30))), "blue")
    assert np.array_equal(changed[:, 6:], picture[:, 6:])
    assert (changed[:, :6, :3].argmax(-1) == 2).all()


def test_the_main_hue_is_circular() -> None:
    main = dominant_hue(filled((200, 20, 40), (200, 40, 20)))  # 353 and 7 degrees
    assert main is not None and min(main, 1 - main) < 0.005


@pytest.mark.parametrize(
    "picture",
    [
        filled((200, 30, 30), (30, 30, 200)),
        filled((128, 128, 128)),
        filled((200, 30, 30), (90, 90, 90), (120, 120, 120)),
        filled((200, 30, 30), alpha=100),
    ],
    ids=["two hues", "grey", "mostly grey", "nothing opaque"],
)
def test_pictures_without_a_main_hue(picture: np.ndarray) -> None:
    assert dominant_hue(picture) is None
    with pytest.raises(ValueError, match="no main hue"):
        recolour(picture, None, "red")


def test_transparent_pixels_do_not_count() -> None:
    picture = filled((30, 160, 40), (200, 30, 30))
    picture[:, 6:, 3] = 0
    assert dominant_hue(picture) == pytest.approx(dominant_hue(filled((30, 160, 40))))
