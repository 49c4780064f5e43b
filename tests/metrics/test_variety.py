from __future__ import annotations

import numpy as np
import pytest

from conjure.metrics.variety import neighbours, ratio, variety


def test_a_collapsed_generator_is_seen() -> None:
    draws = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1)).astype(np.uint8)
    assert variety(draws, draws) == pytest.approx(1)
    assert variety(draws[:1].repeat(50, 0), draws) == 0


def test_distances_go_round_the_list() -> None:
    assert neighbours(np.array([[0.0, 0], [3, 4]])).tolist() == [5, 5]
    assert neighbours(np.array([[0], [255]], np.uint8)).tolist() == [255, 255]
    assert ratio(np.array([1.0, 3]), np.array([4.0])) == 0.5 and ratio(np.zeros(2), np.zeros(2)) == 0
