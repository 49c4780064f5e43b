"""Precision and recall of a set of pictures: do they look real, and is everything real among them?

Kynkaanniemi et al. 2019 (arXiv 1904.06991): around each picture of a set lies a ball that reaches to its k-th nearest
neighbour in that set; the balls together are the set's manifold. Precision is the share of generated pictures on the
manifold of real ones, recall the share of real pictures on that of generated ones.

Legend: N and M pictures, F features.
"""

from __future__ import annotations

import numpy as np

from conjure.core.errors import ConjureError
from conjure.metrics.confidence import wilson
from conjure.metrics.measured import Measured, checked
from conjure.metrics.neighbours import distances

NEIGHBOURS = 3
CHUNK = 1024


def precision(made_NF: np.ndarray, real_MF: np.ndarray, *, k: int = NEIGHBOURS) -> Measured:
    """The share of generated pictures that are as near to some real one as that one's k-th neighbour."""
    made_NF, real_MF = checked(made_NF, real_MF)
    return _share("precision", on_manifold(made_NF, real_MF, k), len(made_NF), len(real_MF), k)


def recall(made_NF: np.ndarray, real_MF: np.ndarray, *, k: int = NEIGHBOURS) -> Measured:
    """The share of real pictures that are as near to some generated one as that one's k-th neighbour."""
    made_NF, real_MF = checked(made_NF, real_MF)
    return _share("recall", on_manifold(real_MF, made_NF, k), len(made_NF), len(real_MF), k)


def on_manifold(points_NF: np.ndarray, manifold_MF: np.ndarray, k: int) -> np.ndarray:
    """Whether each point lies in a ball of the manifold, its surface included: bool [N]."""
    radii_M = reach(manifold_MF, k)
    inside = [
        (distances(points_NF[start : start + CHUNK], manifold_MF) <= radii_M).any(1)
        for start in range(0, len(points_NF), CHUNK)
    ]
    return np.concatenate(inside)


def reach(points_MF: np.ndarray, k: int) -> np.ndarray:
    """The distance of each point to its k-th nearest other one: [M]."""
    if not 1 <= k < len(points_MF):
        raise ConjureError(f"k: expected a neighbour from 1 to {len(points_MF) - 1}, got {k}")
    found = []
    for start in range(0, len(points_MF), CHUNK):
        apart_NM = distances(points_MF[start : start + CHUNK], points_MF)
        rows = np.arange(len(apart_NM))
        apart_NM[rows, start + rows] = np.inf  # a point is no neighbour of itself; its double is
        found.append(np.partition(apart_NM, k - 1, axis=1)[:, k - 1])
    return np.concatenate(found)


def _share(name: str, inside_N: np.ndarray, made: int, real: int, k: int) -> Measured:
    value, low, high = wilson(int(inside_N.sum()), len(inside_N))
    return Measured(
        value=value,
        low=low,
        high=high,
        n=made,
        protocol=(
            f"{name}, {made:,} generated against {real:,} real pictures, k = {k}, 95 % Wilson interval over "
            f"pictures with the manifold held fixed"
        ),
        warnings=() if made == real else ("both depend on the sizes of the sets, which differ here",),
    )
