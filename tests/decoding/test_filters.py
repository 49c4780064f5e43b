"""Filters against what their definitions say, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from conjure.core.seeds import normal
from conjure.decoding.filters import filtered, keep_min_p, keep_top_k, keep_top_p, tempered

EVERY = [0, 1, 2, 3, 4]
SHARES = [0.05, 0.4, 0.1, 0.25, 0.2]
LOGITS_BV = torch.tensor([SHARES]).log() + 3.0


def kept(logits_BV: torch.Tensor) -> list[list[int]]:
    return [[i for i, value in enumerate(row) if value > -math.inf] for row in logits_BV.tolist()]


@pytest.mark.parametrize(("k", "ids"), [(1, [1]), (3, [1, 3, 4]), (5, EVERY), (99, EVERY)])
def test_top_k(k: int, ids: list[int]) -> None:
    assert kept(keep_top_k(LOGITS_BV, k)) == [ids]


@pytest.mark.parametrize(
    ("p", "ids"),
    [(0.0, [1]), (0.39, [1]), (0.5, [1, 3]), (0.8, [1, 3, 4]), (0.97, EVERY), (1.0, EVERY)],
)
def test_top_p_keeps_the_fewest_that_hold_p(p: float, ids: list[int]) -> None:
    assert kept(keep_top_p(LOGITS_BV, p)) == [ids]


@pytest.mark.parametrize(
    ("p", "ids"), [(0.0, [0, 1, 2, 3, 4]), (0.2, [1, 2, 3, 4]), (0.3, [1, 3, 4]), (0.6, [1, 3]), (1.0, [1])]
)
def test_min_p_counts_from_the_best(p: float, ids: list[int]) -> None:
    assert kept(keep_min_p(LOGITS_BV, p)) == [ids]


def test_kept_logits_are_untouched() -> None:
    for out in (keep_top_k(LOGITS_BV, 2), keep_top_p(LOGITS_BV, 0.5), keep_min_p(LOGITS_BV, 0.6)):
        assert kept(out) == [[1, 3]]
        assert torch.equal(out[:, [1, 3]], LOGITS_BV[:, [1, 3]])


def test_of_equals_the_lower_id_stays() -> None:
    equal_BV = torch.zeros(2, 4)
    assert kept(keep_top_k(equal_BV, 2)) == [[0, 1]] * 2
    assert kept(keep_top_p(equal_BV, 0.5)) == [[0, 1]] * 2
    assert kept(keep_min_p(equal_BV, 1.0)) == [[0, 1, 2, 3]] * 2
    assert kept(tempered(equal_BV, 0)) == [[0]] * 2


def test_temperature_is_a_power_of_the_probabilities() -> None:
    shares_BV = tempered(LOGITS_BV, 0.5).softmax(-1)
    squares = torch.tensor([SHARES]) ** 2
    torch.testing.assert_close(shares_BV, squares / squares.sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tempered(LOGITS_BV, 1.0).softmax(-1), LOGITS_BV.softmax(-1))


def test_temperature_towards_zero_is_greedy_and_finite() -> None:
    assert tempered(LOGITS_BV, 1e-38).softmax(-1).tolist() == [[0, 1, 0, 0, 0]]
    assert tempered(LOGITS_BV, 0).softmax(-1).tolist() == [[0, 1, 0, 0, 0]]


def test_order_top_p_counts_after_temperature_and_top_k() -> None:
    def ids(**settings: float) -> list[int]:
        every = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings
        return kept(filtered(LOGITS_BV, **every))[0]  # pyright: ignore[reportArgumentType]

    assert ids(top_p=0.6) == [1, 3]
    assert ids(top_p=0.6, top_k=2) == [1]  # of the two best, the first alone holds 0.4 / 0.65
    assert ids(top_p=0.6, temperature=100.0) == [1, 3, 4]  # nearly even: three of five
    assert ids(min_p=0.6, temperature=2.0) == [1, 3, 4]  # sqrt(0.2 / 0.4) = 0.71
    assert ids(temperature=0.0, top_k=4, min_p=0.1) == [1]


def test_rows_do_not_depend_on_each_other() -> None:
    logits_BV = normal(range(8), (50,)) * 3
    settings = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02}
    together = filtered(logits_BV, **settings)  # pyright: ignore[reportArgumentType]
    for b in range(8):
        alone = filtered(logits_BV[b : b + 1], **settings)  # pyright: ignore[reportArgumentType]
        assert torch.equal(alone[0], together[b])


@pytest.mark.parametrize("settings", [(0.0, 1, 0.0, 1.0), (1e-6, 1, 1e-9, 1.0), (50.0, 3, 0.01, 0.999)])
def test_the_best_always_stays(settings: tuple[float, int, float, float]) -> None:
    logits_BV = normal(range(20), (30,)) * 10
    logits_BV[:, ::2] = -math.inf
    heat, k, p, least = settings
    out_BV = filtered(logits_BV, temperature=heat, top_k=k, top_p=p, min_p=least)
    best_B = logits_BV.argmax(-1)
    assert torch.isfinite(out_BV.gather(1, best_B[:, None])).all()
    assert (out_BV[:, ::2] == -math.inf).all() and not out_BV.isnan().any()
