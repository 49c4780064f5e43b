from __future__ import annotations

import math

import pytest

from conjure.train.schedule import multiplier


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_warm_up_rises_linearly_to_the_peak(schedule: str) -> None:
    rates = [multiplier(s, 100, schedule, warmup=4, cooldown=10) for s in range(5)]  # type: ignore[arg-type]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_constant_stays() -> None:
    assert {multiplier(s, 10, "constant") for s in range(10)} == {1.0}


def test_linear_is_a_line_to_the_minimum() -> None:
    rates = [multiplier(s, 12, "linear", warmup=2, minimum=0.1) for s in range(2, 12)]
    assert rates == pytest.approx([1 - 0.09 * i for i in range(10)])


def test_cosine_is_half_a_cosine() -> None:
    rates = [multiplier(s, 8, "cosine", minimum=0.2) for s in range(8)]
    assert rates == pytest.approx([0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * s / 8)) for s in range(8)])


def test_wsd_is_flat_and_then_falls() -> None:
    rates = [multiplier(s, 10, "wsd", warmup=2, cooldown=4) for s in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_wsd_whose_cooldown_is_longer_than_the_run_still_warms_up() -> None:
    rates = [multiplier(s, 6, "wsd", warmup=2, cooldown=100) for s in range(6)]
    assert rates == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
