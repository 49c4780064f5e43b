"""The chorales: splits, crops, transpositions, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conjure.codecs.chorale_tokens import RANGES
from conjure.core.errors import ConjureError
from conjure.data.chorales import BLOCK, PARTLY, QUARTERS, WHOLE, Chorales, motion_borders
from tests.data.hymns import hymn, write_hymns


@pytest.fixture(autouse=True)
def hymns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    write_hymns(tmp_path)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    yield


def test_the_parts() -> None:
    train, valid = Chorales("train"), Chorales("valid")
    assert len(train) == 12 and len(valid) == 3 and train.pieces[3].tolist() == hymn(3, 11)
    whole = valid.piece(1, 4)
    assert whole.grid_TV.tolist() == hymn(101, 12)[::4] and not whole.given_TV.any() and whole.rest == 0
    assert np.array_equal(train.borders, valid.borders) and np.array_equal(train.borders, motion_borders(train.pieces))
    with pytest.raises(ConjureError, match="no part 'test'"):
        Chorales("test")


def test_examples_are_pure_and_every_piece_comes_once_an_epoch() -> None:
    source, again = Chorales(seed=4, steps=32), Chorales(seed=4, steps=32)
    for index in (0, 7, 90):
        one, other = source.example(index), again.example(index)
        assert np.array_equal(one.grid_TV, other.grid_TV) and np.array_equal(one.given_TV, other.given_TV)
    assert not np.array_equal(Chorales(seed=5, steps=32).example(0).grid_TV, source.example(0).grid_TV)
    assert sorted(source._order(0)) == list(range(12)) == sorted(source._order(1))
    assert {source.kind(BLOCK * 3 + k) for k in range(BLOCK)} == {source.kind(BLOCK * 3)}


def test_examples_by_kind() -> None:
    source, seen = Chorales(seed=1, steps=32), set()
    told = 0
    for index in range(0, 400, 2):
        example, kind = source.example(index), source.kind(index)
        T = len(example.grid_TV)
        assert example.given_TV.shape == (T, 4) and 0 <= example.key < 24 and 0 <= example.motion < 3
        assert (example.before_V is None) == (example.start == 0) and example.start % 4 == 0
        for voice, (low, high) in enumerate(RANGES):
            sounding = example.grid_TV[:, voice][example.grid_TV[:, voice] >= 0]
            assert not len(sounding) or (low <= sounding.min() and sounding.max() <= high)
        if kind == QUARTERS:
            assert example.stride == 4 and example.rest == 0
        else:
            assert example.stride == 1 and (32 if kind == WHOLE else 16) == T
            assert example.given_TV.any() <= (kind == PARTLY)
        told += bool(example.given_TV.any() and kind == PARTLY)
        seen.add((kind, example.start > 0))
    assert {kind for kind, _ in seen} == {QUARTERS, WHOLE, PARTLY} and (WHOLE, True) in seen and told > 20


def test_crops_are_stretches_of_a_transposed_piece() -> None:
    source = Chorales(seed=2, steps=32)
    for index in range(40):
        example = source.example(index)
        piece_TV = source.pieces[source._order(index // 12)[index % 12]]
        end = len(piece_TV) - example.rest
        shift = set((example.grid_TV - piece_TV[example.start : end : example.stride])[example.grid_TV >= 0].tolist())
        assert len(shift) == 1 and len(example.grid_TV) == -(-(end - example.start) // example.stride)
        if example.before_V is not None:
            sounding = example.before_V >= 0
            assert set((example.before_V - piece_TV[example.start - 1])[sounding].tolist()) <= shift


@pytest.mark.parametrize(
    "data",
    [[], {}, {"valid": [[[60, 60, 60, 60]]]}, {"train": []}, {"train": [[[60, 60, 60]]]}, {"train": [[]]},
     {"train": [[[60, 60, 60, "x"]]]}, {"train": [[[60, 60, 60, -5]]]}, {"train": [[[60, 60], [1, 2, 3]]]}],
)  # fmt: skip
def test_broken_files(data: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "other" / "jsb_chorales"
    place.mkdir(parents=True)
    monkeypatch.setenv("CONJURE_DATA", str(place.parent))
    with pytest.raises(ConjureError, match="Jsb16thSeparated"):
        Chorales()
    (place / "Jsb16thSeparated.json").write_text(json.dumps(data))
    with pytest.raises(ConjureError, match="expected"):
        Chorales()
    (place / "Jsb16thSeparated.json").write_text("{")
    with pytest.raises(ConjureError, match="expected JSON"):
        Chorales()
