"""Filters against what their definitions say, and at the edges."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from transformers.generation import logits_process as theirs

from conjure.core.seeds import normal
from conjure.decoding import filters
from conjure.decoding.filters import filtered, keep_min_p, keep_top_k, keep_top_p, keep_typical, tempered

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


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("vocab", [50, 700, 10_001])
def test_truncations_are_those_of_transformers(vocab: int, spread: float) -> None:
    logits_BV = normal(range(3), (vocab,)) * spread
    ids = torch.zeros(3, 1, dtype=torch.int64)
    for k in (1, 7, 40):
        assert torch.equal(keep_top_k(logits_BV, k), theirs.TopKLogitsWarper(k)(ids, logits_BV))
    for p in (0.05, 0.3, 0.6):  # sums in float32 over thousands of tokens leave the border in doubt
        expected = theirs.TopPLogitsWarper(p)(ids, logits_BV.double())
        assert torch.equal(keep_top_p(logits_BV, p).double(), expected)
        expected = theirs.TypicalLogitsWarper(p)(ids, logits_BV.double())
        assert torch.equal(keep_typical(logits_BV, p).double(), expected)
    for p in (0.01, 0.5, 0.9):
        assert torch.equal(keep_min_p(logits_BV, p), theirs.MinPLogitsWarper(p)(ids, logits_BV))
    expected = theirs.TemperatureLogitsWarper(0.7)(ids, logits_BV).softmax(-1)
    torch.testing.assert_close(tempered(logits_BV, 0.7).softmax(-1), expected)


def test_truncations_without_sorting_all_are_those_that_sort_all() -> None:
    for spread in (0.0, 0.02, 1.0, 4.0):
        logits_BV = (normal(range(4), (20_000,)) * spread * 8).round() / 8  # many equals
        for p in (0.0, 0.2, 0.9, 0.999):
            sorted_BV, order_BV = logits_BV.double().sort(dim=-1, descending=True, stable=True)
            share_BV = sorted_BV.softmax(-1)
            out_BV = share_BV.cumsum(-1) - share_BV >= p
            out_BV[:, 0] = False
            expected = logits_BV.masked_fill(out_BV.scatter(-1, order_BV, out_BV), -math.inf)
            found = keep_top_p(logits_BV, p)
            differ = (found != expected).sum(-1)
            assert (differ <= (1 if 0 < p < 1 else 0)).all()  # at the border, where a sum is p but for rounding
        for k in (1, 60, 500):
            order_BV = logits_BV.sort(dim=-1, descending=True, stable=True).indices
            assert torch.equal(keep_top_k(logits_BV, k), logits_BV.scatter(-1, order_BV[:, k:], -math.inf))
        assert torch.equal(filters.best_values(logits_BV, 90), logits_BV.sort(dim=-1, descending=True).values[:, :90])


def test_typical_keeps_what_is_as_surprising_as_expected() -> None:
    # Entropy 1.41 nats; the surprises are 3.00, 0.92, 2.30, 1.39, 1.61, so 3 and 4 come first, then 1.
    assert kept(keep_typical(LOGITS_BV, 0.2)) == [[3]]
    assert kept(keep_typical(LOGITS_BV, 0.4)) == [[3, 4]]
    assert kept(keep_typical(LOGITS_BV, 0.8)) == [[1, 3, 4]]
    assert kept(keep_typical(LOGITS_BV, 1.0)) == [EVERY]


KNOWN = [[1, 2, 3, 1, 2], [4, 4, 4, 0], [7]]


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits_BV = normal(range(3), (9,))
    found = filters.penalise_repeats(logits_BV, KNOWN, 1.7)
    for b, ids in enumerate(KNOWN):
        expected = theirs.RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([ids]), logits_BV[b : b + 1])
        assert torch.equal(found[b], expected[0])
    assert not torch.equal(found, logits_BV)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_repeated_ngrams_are_those_of_transformers(n: int) -> None:
    logits_BV = normal(range(3), (9,))
    found = filters.without_repeated_ngrams(logits_BV, KNOWN, n)
    for b, ids in enumerate(KNOWN):
        expected = theirs.NoRepeatNGramLogitsProcessor(n)(torch.tensor([ids]), logits_BV[b : b + 1])
        assert torch.equal(found[b], expected[0])


def test_suppression_is_that_of_transformers() -> None:
    logits_BV = normal(range(3), (9,))
    expected = theirs.SuppressTokensLogitsProcessor([2, 5])(torch.zeros(3, 1), logits_BV)
    assert torch.equal(filters.without(logits_BV, (2, 5)), expected)
    some_BV = filters.without(logits_BV, (2, 5), [1])
    assert torch.equal(some_BV[1], expected[1]) and torch.equal(some_BV[[0, 2]], logits_BV[[0, 2]])


def test_bias_is_that_of_transformers() -> None:
    logits_BV = normal(range(3), (9,))
    expected = theirs.SequenceBiasLogitsProcessor({(2,): 1.5, (7,): -4.0})(torch.zeros(3, 1).long(), logits_BV)
    assert torch.equal(filters.biased(logits_BV, {2: 1.5, 7: -4.0}), expected)
    assert kept(filters.biased(logits_BV, {4: -math.inf}))[0] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_presence_and_frequency_count_as_the_api_says() -> None:
    # mu[j] - c[j] * frequency - (c[j] > 0) * presence
    logits_BV = normal(range(3), (9,))
    found = filters.penalise_counts(logits_BV, KNOWN, presence=0.3, frequency=0.5)
    for b, ids in enumerate(KNOWN):
        counts = Counter(ids)
        expected = [float(logits_BV[b, j]) - counts[j] * 0.5 - (counts[j] > 0) * 0.3 for j in range(9)]
        torch.testing.assert_close(found[b], torch.tensor(expected))
    assert torch.equal(filters.penalise_counts(logits_BV, [[], [], []], presence=1.0, frequency=1.0), logits_BV)


def test_forced_rows_have_one_choice() -> None:
    logits_BV = normal(range(3), (9,))
    found = filters.only(logits_BV, {0: 4, 2: 8})
    assert kept(found)[0] == [4] and kept(found)[2] == [8] and torch.equal(found[1], logits_BV[1])
