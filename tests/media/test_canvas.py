from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.media.canvas import Margins, cells, cut, extended, filled, margins, margins_to, pasted, scaled, windows
from conjure.media.image import Image
from conjure.media.mask import Box
from tests.media.test_image import noise
from tests.media.test_mask import disc

# -- larger canvases --------------------------------------------------------------------------------------


def test_margins() -> None:
    assert margins("left=64,top=2") == Margins(left=64, top=2)
    assert margins(" right = 3 , bottom=1") == Margins(right=3, bottom=1)
    assert margins("16") == Margins(left=16, top=16, right=16, bottom=16)
    assert margins_to("9x7", Image(noise(4, 6))) == Margins(left=1, right=2, top=1, bottom=2)


@pytest.mark.parametrize("wrong", ["", "left", "left=-1", "up=3", "left=1,left=2", "left=1.5", "left=9999999"])
def test_margins_that_mean_nothing(wrong: str) -> None:
    with pytest.raises(ConjureError, match="expected sides and pixels") as caught:
        margins(wrong)
    assert "left=64,top=32" in caught.value.hint


@pytest.mark.parametrize(
    "wrong, said", [("5x9", "does not hold a picture of 6 x 4"), ("big", "expected a size, got 'big'")]
)
def test_sizes_that_do_not_fit(wrong: str, said: str) -> None:
    with pytest.raises(ConjureError, match=said):
        margins_to(wrong, Image(noise(4, 6)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_picture_stays_where_it_was(channels: int) -> None:
    image = Image(noise(4, 6, channels))
    wide, mask = extended(image, Margins(left=2, top=3, right=1))
    assert wide.pixels.shape == (7, 9, channels) and mask.shape == (7, 9)
    assert np.array_equal(wide.pixels[3:, 2:8], image.pixels)
    assert (mask[3:, 2:8] == 0).all() and mask.sum() == 255 * (63 - 24)
    assert np.array_equal(wide.pixels[0, 0], image.pixels[0, 0]), "edges are carried on"


def test_a_canvas_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_MAX_PIXELS", "100")
    with pytest.raises(ConjureError, match="expected at most 100 pixels, got 14 x 8 = 112"):
        extended(Image(noise(4, 6)), Margins(left=8, top=4))


# -- pasting back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("feather", [0, 1, 5])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_outside_the_mask_every_bit_is_kept(channels: int, feather: int) -> None:
    before, made = Image(noise(40, 40, channels)), noise(40, 40, 3, seed=1)
    after = pasted(before, made, disc(), feather)
    outside = disc() == 0
    assert np.array_equal(after.pixels[outside], (before if channels == 4 else Image(before.rgb())).pixels[outside])
    assert np.array_equal(after.pixels[20, 20, :3], made[20, 20])


def test_the_seam_is_blended_inside() -> None:
    black, white = Image(np.zeros((40, 40, 3), np.uint8)), np.full((40, 40, 3), 255, np.uint8)
    row = pasted(black, white, disc(), 5).pixels[20, :20, 0]
    assert row[:6].max() == 0 and row[6:11].tolist() == [51, 102, 153, 204, 255] and row[11:].min() == 255
    hard = pasted(black, white, disc(), 0).pixels[20, :20, 0]
    assert hard[:6].max() == 0 and hard[6:].min() == 255


def test_a_hole_is_filled_without_a_rim() -> None:
    made = noise(40, 40, 3, seed=1)
    hole = Image(np.dstack([noise(40, 40), 255 - disc()]))
    after = pasted(hole, made, disc(), 5)
    assert after.pixels.shape == (40, 40, 3), "nothing stays transparent"
    assert np.array_equal(after.pixels[disc() > 0], made[disc() > 0]), "what is transparent has no colour to blend"
    half = Image(np.dstack([noise(40, 40), np.full((40, 40), 100, np.uint8)]))
    after = pasted(half, made, disc(), 0)
    assert (after.pixels[disc() == 0, 3] == 100).all() and (after.pixels[disc() > 0, 3] == 255).all()


def test_shares_mix() -> None:
    before, made = Image(np.full((2, 2, 3), 10, np.uint8)), np.full((2, 2, 3), 210, np.uint8)
    mask = np.array([[0, 51], [128, 255]], np.uint8)
    assert pasted(before, made, mask).pixels[..., 0].tolist() == [[10, 50], [110, 210]]


# -- squares ----------------------------------------------------------------------------------------------


def test_one_square_around_a_mask_that_fits() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[100:120, 380:400] = 255
    assert windows(mask, 128) == [Box(46, 272, 174, 400)]
    mask[40:240, 200:210] = 255
    (square,) = windows(mask, 128)
    assert (square.height, square.width) == (300, 300) and square.left <= 200 and square.right == 400
    assert windows(np.full((1, 1), 255, np.uint8), 128) == [Box(0, 0, 1, 1)]


@pytest.mark.parametrize(
    "shape, part", [((164, 350), np.s_[:, :200]), ((20, 300), np.s_[:, :]), ((90, 64), np.s_[::2])]
)
def test_several_squares_hold_all_and_begin_at_what_is_there(shape: tuple[int, int], part: object) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[part] = 255  # type: ignore[index]
    squares = windows(mask, 16)
    assert len(squares) > 1
    left = mask.copy()
    for square in squares:
        assert square.height == square.width == min(shape)
        assert square.top >= 0 and square.bottom <= shape[0] and square.left >= 0 and square.right <= shape[1]
        assert left[square.within].any()
        left[square.within] = 0
    assert not left.any()
    if not mask.all():
        assert (mask[squares[0].within] == 0).any()


def test_cells_hold_every_marked_pixel() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[17, 8] = 1
    assert np.argwhere(cells(mask, Box(0, 0, 64, 64), 8)).tolist() == [[2, 1]]
    assert cells(mask, Box(16, 8, 20, 12), 8).sum() == 4, "a pixel larger than a cell marks all its cells"
    assert cells(mask, Box(0, 0, 60, 60), 8)[2, 1]


def test_scaling() -> None:
    assert scaled(noise(4, 6), 4, 6) is not None and np.array_equal(scaled(noise(4, 6), 4, 6), noise(4, 6))
    for channels in (1, 3, 4):
        assert scaled(noise(4, 6, channels), 8, 3).shape == (8, 3, channels)
    assert cut(noise(9, 9), Box(1, 2, 5, 6), 12).shape == (12, 12, 3)


# -- smooth colours ---------------------------------------------------------------------------------------


def test_what_is_marked_does_not_show_through() -> None:
    mask = disc()
    one, other = noise(40, 40), noise(40, 40)
    other[mask > 0] = 255 - other[mask > 0]
    assert np.array_equal(filled(one, mask), filled(other, mask))
    assert np.array_equal(filled(one, mask)[mask == 0], one[mask == 0])


@pytest.mark.parametrize("height, width", [(40, 40), (41, 57), (3, 90)])
def test_a_slope_is_carried_on(height: int, width: int) -> None:
    slope = np.rint(np.linspace(0, 200, width))[None, :, None] * np.ones((height, 1, 3))
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 3 : width // 2] = 255
    found = filled(slope.astype(np.uint8), mask).astype(int)
    assert np.abs(found - slope)[mask > 0].max() < 25
    even = np.full((height, width, 3), 77, np.uint8)
    assert (filled(even, mask) == 77).all()


def test_nothing_to_go_by_is_white() -> None:
    assert (filled(noise(4, 4), np.full((4, 4), 255, np.uint8)) == 255).all()
