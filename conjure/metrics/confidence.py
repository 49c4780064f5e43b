"""Confidence intervals, so that no published number stands without its error bar."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng

if TYPE_CHECKING:
    import numpy as np


class Interval(NamedTuple):
    """A measured value and the bounds that hold the true one with the asked confidence."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion, 0 <= successes <= n, n > 0.

    Wilson, J. Am. Stat. Assoc. 22 (1927); unlike the textbook interval it holds for small n and near 0 and 1.
    """
    if not 0 <= successes <= n or n == 0:
        raise ConjureError(
            f"a proportion needs at least one trial and at most as many successes, got {successes} of {n}",
            hint="an empty evaluation has no result: check its data and limit",
        )
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # With none or all successes one bound is exactly 0 or 1; rounding must not put the value outside.
    return Interval(p, min(p, centre - half), max(p, centre + half))


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Mean of independent values with its bootstrap percentile interval; the same for the same seed.

    Efron, Ann. Stat. 7 (1979).
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ConjureError(
            f"a mean needs a list of at least one value, got shape {list(data.shape)}",
            hint="an empty evaluation has no result: check its data and limit",
        )
    draw = rng(seed)
    means = [data[draw.integers(data.size, size=data.size)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high))
