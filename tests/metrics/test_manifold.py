from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics import manifold
from conjure.metrics.manifold import on_manifold, precision, reach, recall

LINE = np.arange(12.0)[:, None]  # twelve points, one apart


def test_reach_is_the_distance_of_the_kth_other_point() -> None:
    np.testing.assert_allclose(reach(LINE, 1), np.ones(12), atol=1e-6)
    np.testing.assert_allclose(reach(LINE, 2), [2, *[1] * 10, 2], atol=1e-6)
    np.testing.assert_allclose(reach(LINE, 3), [3, *[2] * 10, 3], atol=1e-6)
    doubled = np.concatenate([LINE, LINE])
    np.testing.assert_allclose(reach(doubled, 1), np.zeros(24), atol=1e-6)


def test_which_points_lie_on_a_line() -> None:
    points = np.array([[0.5], [-0.9], [-1.1], [11.9], [12.1], [100.0]])
    assert on_manifold(points, LINE, 1).tolist() == [True, True, False, True, False, False]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = rng(0).normal(size=(40, 3)), rng(1).normal(size=(50, 3))
    whole, radii = on_manifold(made, real, 3), reach(real, 3)
    monkeypatch.setattr(manifold, "CHUNK", 7)
    np.testing.assert_array_equal(on_manifold(made, real, 3), whole)
    np.testing.assert_allclose(reach(real, 3), radii, atol=1e-9)


def test_one_of_two_groups_is_missing() -> None:
    """Real pictures form two groups, generated ones the first alone: all look real, half of the real is missing."""
    near = rng(0).normal(0, 0.1, size=(100, 2))
    real = np.concatenate([near, rng(1).normal(0, 0.1, size=(100, 2)) + 50])
    made = near + rng(2).normal(0, 0.01, size=(100, 2))
    found, missing = precision(made, real), recall(made, real)
    assert found.value > 0.95
    assert missing.value == pytest.approx(0.5, abs=0.03) and missing.low < 0.5 < missing.high
    assert (found.n, missing.n) == (100, 100) and "k = 3" in found.protocol and found.warnings
    assert precision(made[:50], real[:50]).warnings == ()


def test_nonsense_beside_the_real() -> None:
    """The other way round: half of what is generated is far from everything real, yet nothing is missing."""
    real = rng(0).normal(size=(200, 2))
    made = np.concatenate([real[:100] + 0.001, rng(1).normal(size=(100, 2)) + 50])
    assert precision(made, real).value == pytest.approx(0.5, abs=0.01)
    assert recall(made, real).value > 0.9


def test_more_neighbours_than_points() -> None:
    with pytest.raises(ConjureError, match="from 1 to 11, got 12"):
        reach(LINE, 12)
