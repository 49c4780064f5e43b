"""The equal error rate of verification: where as many pairs of one speaker are refused as pairs of two are taken.

Legend: P pairs, N clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics.confidence import Interval


class EqualError(NamedTuple):
    """The rate, and the score at which it is reached."""

    rate: float
    threshold: float


def equal_error(scores_P: np.ndarray, same_P: np.ndarray, weights_P: np.ndarray | None = None) -> EqualError:
    """The rate at which both kinds of error are equal, between two thresholds by a straight line; pairs of equal score
    are taken or refused together. `weights` say how often each pair counts.

    Raises `ConjureError` unless there are pairs of one speaker and pairs of two.
    """
    scores_P, same_P = np.asarray(scores_P, np.float64), np.asarray(same_P, bool)
    weights_P = np.ones(len(scores_P)) if weights_P is None else np.asarray(weights_P, np.float64)
    own, others = float(weights_P[same_P].sum()), float(weights_P[~same_P].sum())
    if not own or not others:
        raise ConjureError("an equal error rate needs pairs of one speaker and pairs of two",
                           hint="an empty evaluation has no result: check its data")  # fmt: skip
    distinct_U, place_P = np.unique(scores_P, return_inverse=True)
    refused_U = np.bincount(place_P, weights_P * same_P, len(distinct_U)).cumsum() / own
    taken_U = 1 - np.bincount(place_P, weights_P * ~same_P, len(distinct_U)).cumsum() / others
    refused, taken = np.concatenate([[0.0], refused_U]), np.concatenate([[1.0], taken_U])
    apart = refused - taken  # rises from -1 to 1: all below the k-th distinct score are refused
    k = int(np.argmax(apart >= 0))
    part = -apart[k - 1] / (apart[k] - apart[k - 1])
    rate = refused[k - 1] + part * (refused[k] - refused[k - 1])
    above = distinct_U[min(k, len(distinct_U) - 1)]
    return EqualError(float(rate), float((distinct_U[k - 1] + above) / 2))


def pairs(scores_NN: np.ndarray, speakers: Sequence[str], clips: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(scores `[P]`, whether one speaker `[P]`) of all pairs of pieces that are of different clips."""
    first, second = _pairs(clips)
    names = np.asarray(speakers)
    return np.asarray(scores_NN)[first, second], names[first] == names[second]


def resampled_equal_error(
    scores_NN: np.ndarray, speakers: Sequence[str], clips: Sequence[int], *, seed: int, level: float = 0.95,
    resamples: int = 1000,
) -> Interval:  # fmt: skip
    """The rate over all pairs of different clips, with a percentile interval: speakers are drawn with replacement, and
    of each the clips (a bootstrap in two stages; Field and Welsh, J. R. Stat. Soc. B 69 (2007)).

    Pairs share clips and clips share speakers, so pairs drawn one by one would give an interval that is too small.
    """
    first, second = _pairs(clips)
    names, whole = np.asarray(speakers), np.asarray(clips)
    scores_P, same_P = np.asarray(scores_NN)[first, second], names[first] == names[second]
    of_speaker = {name: np.unique(whole[names == name]) for name in np.unique(names)}
    draw, rates = rng(seed), list[float]()
    listed = sorted(of_speaker)
    for _ in range(resamples):
        times = dict.fromkeys(whole.tolist(), 0)
        for chosen in draw.integers(len(listed), size=len(listed)):
            own = of_speaker[listed[chosen]]
            for clip in own[draw.integers(len(own), size=len(own))].tolist():
                times[clip] += 1
        often_N = np.array([times[clip] for clip in whole.tolist()], np.float64)
        weights_P = often_N[first] * often_N[second]
        if weights_P[same_P].any() and weights_P[~same_P].any():  # else one speaker was drawn alone
            rates.append(equal_error(scores_P, same_P, weights_P).rate)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(equal_error(scores_P, same_P).rate, float(low), float(high))


def _pairs(clips: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.triu_indices(len(clips), 1)
    whole = np.asarray(clips)
    apart = whole[first] != whole[second]
    return first[apart], second[apart]
