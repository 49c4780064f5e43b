from __future__ import annotations

import numpy as np
import pytest

from conjure.core.seeds import rng
from conjure.metrics.kernel_distance import discrepancy, kernel, kernel_distance


def test_the_kernel() -> None:
    assert kernel(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[(11 / 2 + 1) ** 3, 1.0]]


def test_the_estimator_term_by_term() -> None:
    x, y = rng(0).normal(size=(5, 3)), rng(1).normal(size=(4, 3))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    own = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    own += sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    both = sum(k(a, b) for a in x for b in y) / 20
    assert discrepancy(x, y) == pytest.approx(own - 2 * both, rel=1e-10)


def test_one_distribution_has_no_distance_on_average() -> None:
    """Unbiased however few: over many draws of 6 against 6 pictures the mean is 0 within its error."""
    values = [discrepancy(rng(k).normal(size=(6, 4)), rng(10_000 + k).normal(size=(6, 4))) for k in range(1500)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(1500)
    assert min(values) < 0 < max(values)


def test_a_shift_along_one_axis() -> None:
    """In one dimension with x ~ N(m, 1), y ~ N(0, 1) the moments of both give the distance in closed form:
    the kernel is 1 + 3xy + 3x^2y^2 + x^3y^3, so MMD^2 = 3 d1^2 + 3 d2^2 + d3^2 with dk = E x^k - E y^k."""
    m = 0.5
    expected = 3 * m**2 + 3 * (m**2) ** 2 + (m**3 + 3 * m) ** 2
    found = kernel_distance(rng(0).normal(m, 1, size=(6000, 1)), rng(1).normal(size=(6000, 1)), seed=2)
    assert found.low < expected < found.high
    assert found.value == pytest.approx(expected, rel=0.15) and "10 blocks of 600" in found.protocol


def test_both_sets_alike() -> None:
    made, real = rng(0).normal(size=(3000, 8)), rng(1).normal(size=(3000, 8))
    found = kernel_distance(made, real, seed=5)
    assert found.low < 0 < found.high and abs(found.value) < 0.05
    assert found.n == 3000 and "10 blocks of 300" in found.protocol and found.warnings == ()
    assert found == kernel_distance(made, real, seed=5) != kernel_distance(made, real, seed=6)
    error = float(found.protocol.split("standard error ")[1].split(",")[0])
    assert error == pytest.approx((found.high - found.low) / 3.92, rel=0.3)


def test_few_pictures_are_said() -> None:
    found = kernel_distance(rng(0).normal(size=(30, 8)), rng(1).normal(size=(25, 8)))
    assert "12 blocks of 2" in found.protocol and "the interval is wide" in found.warnings[0]
