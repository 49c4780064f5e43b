"""The equal error rate in closed form, and against a count of every threshold."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.metrics.equal_error import equal_error, pairs, resampled_equal_error


def test_small_cases_by_hand() -> None:
    same = np.array([True, True, False, False])
    assert equal_error(np.array([0.9, 0.8, 0.2, 0.1]), same).rate == 0
    assert equal_error(np.array([0.1, 0.2, 0.8, 0.9]), same).rate == 1
    assert equal_error(np.array([0.9, 0.4, 0.6, 0.1]), same) == pytest.approx((0.5, 0.5))
    assert equal_error(np.full(4, 0.3), same).rate == 0.5  # all are taken, or none
    assert equal_error(np.array([0.9, 0.8, 0.2, 0.1]), same).threshold == pytest.approx(0.5)


def test_as_by_trying_every_threshold_and_as_two_normal_distributions() -> None:
    draw = np.random.default_rng(0)
    same = draw.random(4000) < 0.5
    scores = draw.standard_normal(4000) + 2 * same
    tried = [(np.mean(scores[same] < t), np.mean(scores[~same] >= t)) for t in np.sort(scores)]
    nearest = min(tried, key=lambda both: abs(both[0] - both[1]))
    rate, threshold = equal_error(scores, same)
    assert rate == pytest.approx(np.mean(nearest), abs=5e-4)
    assert rate == pytest.approx(0.1587, abs=0.015) and threshold == pytest.approx(1, abs=0.1)  # Phi(-1)


def test_a_weight_is_a_copy() -> None:
    scores, same = np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False])
    often = np.array([3, 1, 2, 1])
    assert equal_error(scores, same, often) == equal_error(np.repeat(scores, often), np.repeat(same, often))


def test_one_kind_of_pairs_has_no_rate() -> None:
    with pytest.raises(ConjureError, match="pairs of two"):
        equal_error(np.array([0.1, 0.2]), np.array([True, True]))


def test_pieces_of_one_clip_are_no_pair() -> None:
    scores = np.arange(16.0).reshape(4, 4)
    found, same = pairs(scores, ["a", "a", "a", "b"], [0, 0, 1, 2])
    assert found.tolist() == [2, 3, 6, 7, 11] and same.tolist() == [True, False, True, False, False]


def test_the_interval_holds_the_rate_and_is_wider_for_fewer_speakers() -> None:
    draw = np.random.default_rng(1)

    def measured(speakers: int) -> tuple[float, float, float]:
        names = [str(n) for n in range(speakers) for _ in range(5)]
        own = draw.standard_normal((speakers, 8)).repeat(5, 0) + 0.7 * draw.standard_normal((5 * speakers, 8))
        return resampled_equal_error(own @ own.T, names, range(5 * speakers), seed=0, resamples=60)

    few, many = measured(4), measured(24)
    assert few[1] <= few[0] <= few[2] and many[1] <= many[0] <= many[2]
    assert many[2] - many[1] < few[2] - few[1]
