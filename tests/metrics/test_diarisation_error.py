"""Diarisation errors in closed form; the best pairs against all permutations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.metrics.diarisation_error import best_pairs, diarisation_error

SAID = [(0.0, 4.0, "ann"), (4.0, 7.0, "ben"), (8.0, 10.0, "ann")]


def test_names_do_not_matter() -> None:
    other = [(a, b, {"ann": "1", "ben": "0"}[name]) for a, b, name in SAID]
    assert diarisation_error(SAID, other).rate == 0
    assert diarisation_error(SAID, other[::-1]).rate == 0


def test_each_kind_of_error_in_seconds() -> None:
    found = [(0.0, 3.0, "x"), (3.0, 6.0, "y"), (7.5, 10.0, "x")]
    made = diarisation_error(SAID, found, collar=0)
    assert made.speech == pytest.approx(9) and made.missed == pytest.approx(1)
    assert made.false_alarm == pytest.approx(0.5) and made.confused == pytest.approx(1)
    assert made.rate == pytest.approx(2.5 / 9)
    near = diarisation_error(SAID, found)  # 0.25 s around 0, 4, 7, 8 and 10 s are left out
    assert near.speech == pytest.approx(9 - 6 * 0.25) and near.missed == pytest.approx(0.75)
    assert near.false_alarm == pytest.approx(0.25) and near.confused == pytest.approx(0.75)


def test_two_found_for_one_and_one_found_for_two() -> None:
    split = [(0.0, 4.0, "x"), (4.0, 7.0, "y"), (8.0, 10.0, "z")]
    assert diarisation_error(SAID, split, collar=0).confused == pytest.approx(2)
    merged = [(0.0, 7.0, "x"), (8.0, 10.0, "x")]
    assert diarisation_error(SAID, merged, collar=0).confused == pytest.approx(3)


def test_nobody_found_and_nobody_there() -> None:
    assert diarisation_error(SAID, []).rate == 1
    with pytest.raises(ConjureError, match="somebody speaks"):
        diarisation_error([], SAID)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 2), (1, 3)])
def test_pairs_are_the_best_of_all(shape: tuple[int, int]) -> None:
    for seed in range(8):
        gain = np.random.default_rng(seed).integers(0, 9, shape).astype(float)
        wide = gain if shape[0] <= shape[1] else gain.T
        most = max(sum(wide[r, c] for r, c in enumerate(order))
                   for order in itertools.permutations(range(wide.shape[1]), wide.shape[0]))  # fmt: skip
        found = best_pairs(gain)
        assert sum(gain[r, c] for r, c in found) == most and len(found) == min(shape)
        assert len({r for r, _ in found}) == len({c for _, c in found}) == min(shape)
    assert best_pairs(np.zeros((0, 3))) == []
