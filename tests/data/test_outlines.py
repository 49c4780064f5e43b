from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data import outlines
from conjure.data.outlines import OutlineSource, fitted, grey, inside, kin, outline, plainly
from conjure.data.pictograms import Pictogram
from conjure.media.image import Image
from tests.data.painted_shapes import painted_shapes


@pytest.fixture(scope="module")
def source() -> OutlineSource:
    return OutlineSource(*painted_shapes(16, 60), seed=4)


def test_the_outline_of_a_square_is_its_border() -> None:
    picture = np.full((20, 20, 3), 255, np.uint8)
    picture[5:15, 4:12] = (10, 90, 200)
    line = outline(picture)[..., 0]
    border = np.zeros((20, 20), bool)
    border[4:16, 3:13] = True  # a step shows on both of its sides ...
    border[6:14, 5:11] = False
    assert line.dtype == np.uint8 and np.array_equal(line == 0, border)
    assert (line[~border] == 255).all()  # ... and nowhere else


def test_a_line_is_as_dark_as_the_step_is_steep() -> None:
    def darkest(step: int) -> int:
        picture = np.full((9, 9, 3), 200, np.uint8)
        picture[:, 5:] = 200 - step
        return int(outline(picture)[4, 2:7].min())

    assert [darkest(step) for step in (0, 24, 80)] == [255, 255, 0]
    assert darkest(52) == round(255 / 2)  # a slope of 26 grey levels, half-way between faint and clear
    red = np.full((9, 9, 3), 128, np.uint8)
    red[:, 5:, 0] = 0  # a change of colour counts as one of brightness
    assert outline(red)[4, 4, 0] == 0


def test_what_fills_the_picture_has_a_line_at_its_edge_and_mirrors() -> None:
    full = np.zeros((8, 8, 3), np.uint8)
    line = outline(full)[..., 0]
    assert (line[[0, -1]] == 0).all() and (line[1:-1, 1:-1] == 255).all()
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    assert np.array_equal(outline(noise[:, ::-1]), outline(noise)[:, ::-1])


def test_the_parts_share_no_pictogram(source: OutlineSource) -> None:
    assert sorted([*source.train, *source.test]) == list(range(len(source.names)))
    assert sorted([*source.drawn, *source.painted]) == source.train.tolist()
    assert 0 < len(source.test) < len(source.train) / 3
    other = OutlineSource(*painted_shapes(16, 60), seed=5)
    assert np.array_equal(other.test, source.test) and not np.array_equal(other.pairs([0])[0], source.pairs([0])[0])
    lines, pictures = source.held_out(3)
    assert lines.shape == (3, 16, 16, 1) and pictures.shape == (3, 16, 16, 3)
    assert len(source.held_out(1000)[0]) == len(source.test)


def test_alike_people_lie_on_one_side() -> None:
    farmers = ["1f468-200d-1f33e", "1f469-200d-1f33e", "1f9d1-200d-1f33e"]
    runners = ["1f3c3", "1f3c3-200d-2642-fe0f", "1f3c3-200d-2640-fe0f"]
    assert {kin(each) for each in farmers} == {"1f33e"} and {kin(each) for each in runners} == {"1f3c3"}
    pictograms, pictures = painted_shapes(8, 60)
    both = [replace(each, codepoint=f"1f468-200d-{each.codepoint}") for each in pictograms]
    split = OutlineSource([*pictograms, *both], np.concatenate([pictures, pictures]))
    assert {place + 60 for place in split.test.tolist() if place < 60} == {p for p in split.test.tolist() if p >= 60}


def test_pairs_belong_together_and_are_functions_of_their_index(source: OutlineSource) -> None:
    count = len(source.train)
    lines, pictures, places = source.pairs(range(2 * count))
    assert sorted(places[:count]) == sorted(places[count:]) == source.train.tolist()
    assert places[:count].tolist() != places[count:].tolist()
    for line, picture in zip(lines, pictures, strict=True):
        assert np.array_equal(outline(picture), line)
    mirrored = [not np.array_equal(p, source.pictures_NHW3[k]) for p, k in zip(pictures, places, strict=True)]
    assert 0.3 < np.mean(mirrored) < 0.7
    again = source.pairs([7])
    assert np.array_equal(again[0][0], lines[7]) and np.array_equal(again[1][0], pictures[7])


def test_strangers_never_belong_together(source: OutlineSource) -> None:
    lines, pictures, places = source.strangers(range(100))
    assert set(places[:, 0]) == set(source.drawn) and set(places[:, 1]) == set(source.painted)
    shown = {outline(picture).tobytes() for picture in pictures}
    assert not shown & {line.tobytes() for line in lines}
    again = source.strangers([42])
    assert np.array_equal(again[0][0], lines[42]) and np.array_equal(again[1][0], pictures[42])


def test_what_lines_enclose() -> None:
    picture = np.full((1, 12, 12, 3), 255, np.uint8)
    picture[0, 3:9, 3:9] = 0
    lines = outline(picture[0])[None]
    within = inside(lines)[0, ..., 0]
    assert within[2:10, 2:10].all() and within.sum() == 64
    filled = plainly(lines, np.array([9, 8, 7], np.uint8))[0]
    assert (filled[within] == (9, 8, 7)).all() and (filled[~within] == 255).all()


@pytest.mark.parametrize("shape", [(5, 10, 3), (10, 5, 1), (1, 1, 4), (3, 400, 3)])
def test_any_picture_fits_a_white_square(shape: tuple[int, int, int]) -> None:
    square = fitted(Image(np.zeros(shape, np.uint8)), 8)
    assert square.shape == (8, 8, 3) and square.dtype == np.uint8
    if shape == (5, 10, 3):
        assert (square[2:6] == 0).all() and (square[[0, 1, 6, 7]] == 255).all()
    if shape == (1, 1, 4):  # transparent: white
        assert (square == 255).all()


def test_grey_is_brightness() -> None:
    assert grey(np.array([[[255, 255, 255], [255, 0, 0], [0, 0, 0]]], np.uint8)).tolist() == [[[255], [76], [0]]]


def test_loading_leaves_out_twins_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    pictograms, pictures = painted_shapes(8, 60)
    asked = []

    def load(size: int, flags: bool) -> tuple[Sequence[Pictogram], np.ndarray]:
        asked.append((size, flags))
        return [replace(pictograms[0], duplicate_of="x"), *pictograms[1:]], pictures

    monkeypatch.setattr(outlines, "load", load)
    assert OutlineSource.load(8).names == [each.name for each in pictograms[1:]] and asked == [(8, False)]


def test_too_few_pictograms_are_refused() -> None:
    with pytest.raises(ConjureError, match="2 pictograms are too few"):
        OutlineSource(*painted_shapes(8, 2))
