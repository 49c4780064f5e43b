"""How different samples are from each other, beside how different real pictures are: near 0 a generator has collapsed.

Legend: N pictures.
"""

from __future__ import annotations

import numpy as np

COLLAPSED = 0.5
"""Variety below this is said."""


def neighbours(rows_N: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each picture (or colour) `[N, ...]` to the one before it in the list: float64 `[N]`."""
    x_ND = rows_N.reshape(len(rows_N), -1).astype(np.float64)
    return np.linalg.norm(x_ND - np.roll(x_ND, 1, axis=0), axis=1)


def ratio(made_N: np.ndarray, real_N: np.ndarray) -> float:
    """The mean of one list of distances over that of the other."""
    return float(made_N.mean() / max(float(real_N.mean()), 1e-9))


def variety(made_NHWC: np.ndarray, real_NHWC: np.ndarray) -> float:
    """Mean distance of neighbours in the list of samples over that in the list of real pictures: 0 where all samples
    are one picture, about 1 where they differ as real ones do."""
    return ratio(neighbours(made_NHWC), neighbours(real_NHWC))
