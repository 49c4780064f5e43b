"""Intervals against closed forms and by their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics.confidence import bootstrap_mean, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 10), (90, 100), (7, 7)])
def test_wilson_bounds_solve_the_score_equation(successes: int, n: int) -> None:
    """Each bound q satisfies (p - q)^2 = z^2 q (1 - q) / n."""
    p, low, high = wilson(successes, n)
    assert p == successes / n and 0 <= low <= p <= high <= 1
    for q in (low, high):
        assert (p - q) ** 2 == pytest.approx(1.959963984540054**2 * q * (1 - q) / n, abs=1e-12)


def test_wilson_known_values() -> None:
    """With no success in n trials the upper bound is z^2 / (n + z^2)."""
    z2 = 1.959963984540054**2
    assert wilson(0, 10).low == 0
    assert wilson(0, 10).high == pytest.approx(z2 / (10 + z2))
    assert wilson(10, 10).high == 1
    assert wilson(50, 100, level=0.99).high > wilson(50, 100).high


def test_wilson_covers_the_truth() -> None:
    """Exact coverage over all outcomes of 60 trials at p = 0.9."""
    chance = 0.0
    for k in range(61):
        _, low, high = wilson(k, 60)
        chance += math.comb(60, k) * 0.9**k * 0.1 ** (60 - k) * (low <= 0.9 <= high)
    assert 0.92 < chance < 0.98


def test_bootstrap_agrees_with_the_normal_interval_and_is_repeatable() -> None:
    values = rng(3).normal(5.0, 2.0, size=400)
    mean, low, high = bootstrap_mean(values, seed=1)
    half = 1.96 * values.std(ddof=1) / 20
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - half, abs=0.03) and high == pytest.approx(mean + half, abs=0.03)
    assert bootstrap_mean(values, seed=1) == (mean, low, high) != bootstrap_mean(values, seed=2)


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_mean([2.5] * 9, seed=0) == (2.5, 2.5, 2.5)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ConjureError, match="at least one trial"):
        wilson(0, 0)
    with pytest.raises(ConjureError, match="at least one value"):
        bootstrap_mean(np.zeros(0), seed=0)
