from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from conjure.core.errors import ConjureError
from conjure.media.image import Image, decode
from conjure.media.mask import Box, box, feathered, mask_of
from tests.media.test_image import saved

PHOTO = Image(np.zeros((6, 8, 3), np.uint8))


def disc(side: int = 40, radius: float = 14) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    return np.where(x**2 + y**2 < radius**2, 255, 0).astype(np.uint8)


# -- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, white", [("L", 255), ("1", 1), ("RGB", (255, 0, 0)), ("P", 1), ("I;16", 65535)])
def test_bright_is_what_changes(mode: str, white: int | tuple[int, ...]) -> None:
    picture = PIL.Image.new(mode, (8, 6), 0)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.paste(white, (2, 1, 5, 4)) if mode != "I;16" else [
        picture.putpixel((x, y), 65535) for x in range(2, 5) for y in range(1, 4)
    ]
    mask = mask_of(decode(saved(picture), "mask.png"), PHOTO)
    assert mask.dtype == np.uint8 and mask.shape == (6, 8)
    assert (mask[1:4, 2:5] == 255).all() and mask.sum() == 9 * 255


def test_transparent_is_what_changes_whatever_the_colours() -> None:
    pixels = np.full((6, 8, 4), 255, np.uint8)
    pixels[2:4, 3:6, 3] = 0
    pixels[0, 0, 3] = 155
    mask = mask_of(Image(pixels), PHOTO)
    assert (mask[2:4, 3:6] == 255).all() and mask[0, 0] == 100 and mask.sum() == 6 * 255 + 100
    assert np.array_equal(mask_of(Image(pixels), PHOTO, invert=True), 255 - mask)


def test_shares_stay_and_noise_goes() -> None:
    grey = np.array([[0, 5, 8, 9, 128, 246, 247, 255]], np.uint8)[..., None]
    assert mask_of(Image(grey), Image(np.zeros((1, 8, 3), np.uint8))).tolist() == [[0, 0, 0, 9, 128, 246, 255, 255]]


def test_another_size_or_nothing_marked_is_refused() -> None:
    with pytest.raises(ConjureError, match="mask is 8 x 5 pixels, the picture 8 x 6"):
        mask_of(Image(np.zeros((5, 8, 1), np.uint8)), PHOTO)
    with pytest.raises(ConjureError, match="marks nothing") as caught:
        mask_of(Image(np.zeros((6, 8, 1), np.uint8)), PHOTO)
    assert "--invert" in caught.value.hint
    with pytest.raises(ConjureError, match="marks nothing"):
        box(np.zeros((6, 8), np.uint8))


def test_box() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 2], mask[4, 6] = 1, 255
    assert box(mask) == Box(1, 2, 5, 7)
    assert (box(mask).height, box(mask).width) == (4, 5)
    assert mask[box(mask).within].shape == (4, 5)


# -- the seam ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_the_feather_lies_inside_and_rises_evenly(radius: int) -> None:
    weight = feathered(disc(), radius)
    assert weight.dtype == np.float32 and (weight[disc() == 0] == 0).all()
    assert (weight[disc() > 0] > 0).all() and weight.max() == 1
    row = weight[20, :20]
    assert np.allclose(row[6 : 6 + radius], np.arange(1, radius + 1) / radius, atol=1e-6)
    assert (row[6 + radius :] == 1).all()


def test_depth_is_nearly_the_distance() -> None:
    y, x = np.mgrid[:40, :40] + 0.5 - 20
    distance = 14 - np.sqrt(x**2 + y**2)
    inside = (disc() > 0) & (distance < 7.5)
    assert np.abs(feathered(disc(), 8) * 8 - distance - 0.5)[inside].max() < 1.3


def test_thin_strokes_change_wholly_in_their_middle() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[4, 2:18] = mask[10:13, 2:18] = 255
    weight = feathered(mask, 8)
    assert (weight[4, 2:18] == 1).all()
    assert (weight[11, 6:14] == 1).all() and weight[10, 10] == pytest.approx(0.5)


def test_no_feather_and_shares() -> None:
    mask = disc()
    mask[mask > 0] = 51
    assert np.allclose(feathered(mask, 0), mask / 255)
    assert feathered(mask, 6).max() == pytest.approx(0.2), "a share is never passed"
    assert (feathered(np.full((4, 4), 255, np.uint8), 3) == 1).all(), "a mask without a border has no seam"


def test_the_border_of_the_picture_is_no_seam() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, :10] = 255
    weight = feathered(mask, 4)
    assert (weight[:, :6] == 1).all()
    assert np.allclose(weight[:, 6:10], [1, 0.75, 0.5, 0.25])
