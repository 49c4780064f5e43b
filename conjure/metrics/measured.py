"""A measured value of a set of pictures, with its interval and all that has to be said beside it.

Legend: N pictures, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng

FEWEST = 10
"""Below this many pictures a distribution is anybody's guess."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`low` and `high` bound the value with 95 % confidence as `protocol` says; `n` counts the generated pictures."""

    value: float
    low: float
    high: float
    n: int
    protocol: str
    warnings: tuple[str, ...] = ()
    """Sentences that belong beside the value: too few pictures, say."""

    def figure(self, features: str) -> dict[str, Any]:
        """As a model's published figures are kept; `features` says how they were made (network, resize method)."""
        said = "; ".join((self.protocol, features, *self.warnings))
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "protocol": said}


def checked(made_NF: np.ndarray, real_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; `ConjureError` unless they are finite rows of the same length, at least `FEWEST` each."""
    for name, rows in (("generated", made_NF), ("reference", real_NF)):
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise ConjureError(f"{name} features: expected [N, F], got shape {list(rows.shape)}")
        if len(rows) < FEWEST:
            raise ConjureError(
                f"{name} features: expected at least {FEWEST} pictures, got {len(rows)}",
                hint="measure more pictures: a distribution cannot be told from so few",
            )
        if not np.isfinite(rows).all():
            raise ConjureError(f"{name} features: some are no numbers (NaN or infinite)")
    if made_NF.shape[1] != real_NF.shape[1]:
        raise ConjureError(
            f"expected features of one network, got {made_NF.shape[1]} and {real_NF.shape[1]} a picture",
            hint="take both from the same extractor",
        )
    return made_NF.astype(np.float64), real_NF.astype(np.float64)


def resampled(
    measure: Callable[[np.ndarray, np.ndarray], float], counts: tuple[int, int], *, seed: int, resamples: int
) -> np.ndarray:
    """`measure(rows of the first, rows of the second)` over both drawn with replacement: float64 [resamples].

    Efron, Ann. Stat. 7 (1979).
    """
    draw = rng(seed)
    first, second = counts
    return np.array(
        [measure(draw.integers(first, size=first), draw.integers(second, size=second)) for _ in range(resamples)]
    )
