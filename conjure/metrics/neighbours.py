"""Did a model learn, or does it copy? The nearest training picture of each sample, beside what held-out pictures have.

A picture that was never in training has some distance to its nearest training picture. Samples of a model that learnt
the distribution have the same distances; samples of one that copies have smaller ones (Meehan et al. 2020, arXiv
2004.05675, whose statistic `nearer` is). Samples that look like nothing have larger ones: a value below one half is no
praise. Samples of a part of the classes may be nearer because those lie closer together: held-out pictures should be
of the same classes in the same shares.

Legend: N samples, M training pictures, H held-out pictures, F features (or pixels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from conjure.core.errors import ConjureError
from conjure.metrics.measured import Measured, checked, resampled

Share = Callable[[np.ndarray, np.ndarray], float]
"""Distances of samples [N] and of held-out pictures [H] -> a share."""
CHUNK = 1024
RESAMPLES = 400
CLOSEST = 0.01
"""Share of held-out pictures whose distances count as unusually small."""


class Nearest(NamedTuple):
    """Index of the nearest one, int64 [N], and the distance to it, float64 [N]."""

    index_N: np.ndarray
    distance_N: np.ndarray


class Memorisation(NamedTuple):
    """`nearer`: how often a sample is nearer to training than a held-out picture is, one half where both are alike.
    `copies`: the share of samples nearer than all but 1 % of held-out pictures, 0.01 where both are alike."""

    nearer: Measured
    copies: Measured
    nearest: Nearest


def nearest(points_NF: np.ndarray, known_MF: np.ndarray) -> Nearest:
    """For each point the nearest known one, the first of equals."""
    parts = []
    for start in range(0, len(points_NF), CHUNK):
        apart_NM = distances(points_NF[start : start + CHUNK], known_MF)
        index_N = apart_NM.argmin(1)
        parts.append((index_N, apart_NM[np.arange(len(index_N)), index_N]))
    return Nearest(np.concatenate([index for index, _ in parts]), np.concatenate([apart for _, apart in parts]))


def memorisation(
    made_NF: np.ndarray, train_MF: np.ndarray, held_out_HF: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Memorisation:
    """How near samples come to training pictures, against held-out pictures; bootstrap intervals over both."""
    made_NF, held_out_HF = checked(made_NF, held_out_HF)
    if train_MF.ndim != 2 or len(train_MF) == 0 or train_MF.shape[1] != made_NF.shape[1]:
        raise ConjureError(
            f"training features: expected [M, {made_NF.shape[1]}], got shape {list(train_MF.shape)}",
            hint="take all features from the same extractor",
        )
    found, usual_H = nearest(made_NF, train_MF), nearest(held_out_HF, train_MF).distance_N
    counts = len(made_NF), len(held_out_HF)
    against = f"n = {counts[0]:,} samples and {counts[1]:,} held-out against {len(train_MF):,} training pictures"
    few = (f"{counts[1]} held-out pictures: 1 % of them is hardly one",) if counts[1] < 200 else ()

    def measured(share: str, measure: Share, warnings: tuple[str, ...] = ()) -> Measured:
        def drawn(made: np.ndarray, held_out: np.ndarray) -> float:
            return measure(found.distance_N[made], usual_H[held_out])

        low, high = np.quantile(resampled(drawn, counts, seed=seed, resamples=resamples), (0.025, 0.975))
        said = f"{share}, {against}, 95 % bootstrap interval"
        value = measure(found.distance_N, usual_H)
        return Measured(value=value, low=float(low), high=float(high), n=counts[0], protocol=said, warnings=warnings)

    return Memorisation(
        measured("samples nearer to training than held-out pictures are (0.5: alike)", nearer),
        measured("samples nearer to training than 99 % of held-out pictures (0.01: alike)", closest, few),
        found,
    )


def nearer(made_N: np.ndarray, held_out_H: np.ndarray) -> float:
    """The share of pairs in which the sample's distance is the smaller one, equal ones counted half (Mann and Whitney
    1947)."""
    ordered_H = np.sort(held_out_H)
    above_N = len(ordered_H) - np.searchsorted(ordered_H, made_N, side="right")
    equal_N = np.searchsorted(ordered_H, made_N, side="right") - np.searchsorted(ordered_H, made_N, side="left")
    return float((above_N + equal_N / 2).mean() / len(ordered_H))


def closest(made_N: np.ndarray, held_out_H: np.ndarray) -> float:
    """The share of samples whose distance is below the 1 % quantile of held-out ones."""
    return float((made_N < np.quantile(held_out_H, CLOSEST)).mean())


def distances(a_NF: np.ndarray, b_MF: np.ndarray) -> np.ndarray:
    """Euclidean distances, float64 [N, M]. Both are moved to the mean of `b` first, so that little cancels."""
    centre_F = b_MF.mean(0, dtype=np.float64)
    a, b = a_NF - centre_F, b_MF - centre_F
    squared_NM = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(squared_NM.clip(0))
