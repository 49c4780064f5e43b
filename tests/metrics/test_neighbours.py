from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics import neighbours
from conjure.metrics.neighbours import closest, distances, memorisation, nearer, nearest


def test_distances_far_from_the_origin() -> None:
    a, b = rng(0).normal(size=(5, 3)) + 1e4, rng(1).normal(size=(4, 3)) + 1e4
    np.testing.assert_allclose(distances(a, b), np.linalg.norm(a[:, None] - b, axis=-1), rtol=1e-6)


def test_the_nearest_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    known = rng(1).normal(size=(50, 4))
    points = known[[7, 3, 7, 49]] + 0.01
    found = nearest(points, known)
    assert found.index_N.tolist() == [7, 3, 7, 49]
    np.testing.assert_allclose(found.distance_N, np.full(4, 0.02), rtol=1e-6)
    monkeypatch.setattr(neighbours, "CHUNK", 3)
    assert nearest(points, known).index_N.tolist() == [7, 3, 7, 49]


def test_how_often_one_is_nearer() -> None:
    assert nearer(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert nearer(np.array([5.0]), np.array([3.0, 4.0])) == 0
    assert nearer(np.array([1.0, 3.0, 9.0]), np.array([3.0, 5.0])) == pytest.approx((2 + 1.5 + 0) / 6)
    assert closest(np.array([0.0, 3.9, 4.1, 6.0]), np.arange(1.0, 301.0)) == 0.5


def test_a_model_that_learnt() -> None:
    train, held_out, made = (rng(k).normal(size=(400, 3)) for k in range(3))
    found = memorisation(made, train, held_out)
    assert found.nearer.low < 0.5 < found.nearer.high and found.nearer.high - found.nearer.low < 0.12
    assert found.copies.low <= 0.01 <= found.copies.high
    assert found.nearer.n == 400 and "400 held-out against 400 training" in found.nearer.protocol
    assert found.nearest.index_N.shape == (400,)


def test_a_model_that_copies_a_part() -> None:
    train, held_out, made = (rng(k).normal(size=(400, 3)) for k in range(3))
    made[:100] = train[:100] + 1e-4
    found = memorisation(made, train, held_out)
    assert found.copies.value == pytest.approx(0.2575, abs=0.02) and found.copies.low > 0.2
    assert found.nearer.low > 0.55
    assert found.nearest.index_N[:100].tolist() == list(range(100))


def test_a_model_that_draws_nothing_known() -> None:
    train, held_out = (rng(k).normal(size=(100, 3)) for k in range(2))
    found = memorisation(held_out + 30, train, held_out)
    assert (found.nearer.value, found.copies.value) == (0, 0)
    assert "hardly one" in found.copies.warnings[0]


def test_features_of_another_network() -> None:
    rows = rng(0).normal(size=(20, 3))
    with pytest.raises(ConjureError, match=r"expected \[M, 3\], got shape \[20, 2\]"):
        memorisation(rows, rows[:, :2], rows)
