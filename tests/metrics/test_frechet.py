from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics.frechet import Gaussian, distance, frechet_distance, gaussian


def spread(seed: int, size: int, rank: int | None = None) -> np.ndarray:
    """A covariance [size, size] of the given rank."""
    root = rng(seed).normal(size=(size, rank or size))
    return root @ root.T / size


def test_gaussians_along_the_axes() -> None:
    """With diagonal covariances: sum (m1 - m2)^2 + (s1 - s2)^2."""
    a = Gaussian(np.array([1.0, 2.0, 0.0]), np.diag([4.0, 1.0, 0.0]))
    b = Gaussian(np.array([0.0, 2.0, -2.0]), np.diag([1.0, 9.0, 0.25]))
    assert distance(a, b) == pytest.approx(1 + 0 + 4 + 1 + 4 + 0.25, rel=1e-12)


@pytest.mark.parametrize("rank", [None, 5])
def test_the_formula_with_a_general_square_root(rank: int | None) -> None:
    a = Gaussian(rng(0).normal(size=12), spread(1, 12, rank))
    b = Gaussian(rng(2).normal(size=12), spread(3, 12))
    root = scipy.linalg.sqrtm(a.covariance_FF @ b.covariance_FF).real
    expected = ((a.mean_F - b.mean_F) ** 2).sum() + np.trace(a.covariance_FF + b.covariance_FF - 2 * root)
    assert distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-10)


def test_a_set_is_at_no_distance_from_itself_however_few_pictures() -> None:
    rows = gaussian(rng(0).normal(size=(20, 50)))
    assert distance(rows, rows) < 1e-10


def test_mean_and_covariance() -> None:
    rows = rng(0).normal(size=(30, 4)).astype(np.float32) + 1000
    found = gaussian(rows)
    np.testing.assert_allclose(found.mean_F, rows.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance_FF, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-8)


def test_known_gaussians_are_measured_within_the_interval() -> None:
    """Means one apart along one axis, deviations 1 and 2 along another: 1 + 1."""
    made, real = rng(1).normal(size=(4000, 3)), rng(2).normal(size=(4000, 3))
    made[:, 0] += 1
    made[:, 1] *= 2
    found = frechet_distance(made, real, seed=3)
    assert found.low < 2 < found.high and found.high - found.low < 0.5
    assert found.n == 4000 and found.warnings == () and "n = 4,000 against 4,000" in found.protocol
    assert found == frechet_distance(made, real, seed=3)
    assert found.low != frechet_distance(made, real, seed=4).low


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 20 pairs at a true distance of 1 the 95 % intervals hold it nearly always, and not because they are wide."""
    held = widths = 0.0
    for k in range(20):
        made, real = rng(k).normal(size=(400, 2)), rng(1000 + k).normal(size=(400, 2))
        made[:, 0] += 1
        found = frechet_distance(made, real, seed=k, resamples=40)
        held += found.low <= 1 <= found.high
        widths += (found.high - found.low) / 20
    assert held >= 17 and widths < 0.7


def test_few_pictures_are_biased_and_it_is_said() -> None:
    made, real = rng(1).normal(size=(60, 100)), rng(2).normal(size=(60, 100))
    found = frechet_distance(made, real, resamples=20)
    assert found.value > 10, "two sets of one distribution"
    assert "n = 60 for 100 features" in found.warnings[0] and "KID" in found.warnings[0]
    assert "KID" in found.figure("by a toy")["protocol"] and "; by a toy; " in found.figure("by a toy")["protocol"]
    bias = float(found.protocol.rsplit("about ", 1)[1])
    assert bias > 1


def test_bad_features() -> None:
    rows = rng(0).normal(size=(20, 4))
    with pytest.raises(ConjureError, match="at least 10 pictures, got 9"):
        frechet_distance(rows[:9], rows)
    with pytest.raises(ConjureError, match="features of one network, got 3 and 4"):
        frechet_distance(rows[:, :3], rows)
    with pytest.raises(ConjureError, match="no numbers"):
        frechet_distance(rows, np.where(rows > 1, np.nan, rows))
    with pytest.raises(ConjureError, match=r"got shape \[20\]"):
        frechet_distance(rows[:, 0], rows)


def test_many_features_are_resampled_less_often() -> None:
    few, many = rng(0).normal(size=(12, 3)), rng(0).normal(size=(12, 257))
    assert "100 resamples" in frechet_distance(few, few).protocol
    assert "20 resamples" in frechet_distance(many, many).protocol
