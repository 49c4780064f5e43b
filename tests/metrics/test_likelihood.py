"""Likelihood of text against models whose probabilities are known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal, rng
from conjure.metrics.confidence import Interval
from conjure.metrics.likelihood import Likelihood, mapped, ratio_interval, token_nats

V = 7
TABLE = normal([0], (V, V))[0]


def bigram(ids: Tensor) -> Tensor:
    """A model that sees one token back."""
    return TABLE[ids]


def test_uniform_bytes_are_eight_bits_a_byte() -> None:
    ids = rng(0).integers(0, 256, 50).tolist()
    nats = np.concatenate([*token_nats(lambda ids: torch.zeros(*ids.shape, 256), ids, context=16, stride=8)])
    figures = Likelihood(nats=nats.sum(), tokens=len(nats), bytes=len(nats), words=10)
    assert figures.bits_per_byte == pytest.approx(8) and figures.token_perplexity == pytest.approx(256)
    assert math.log(figures.word_perplexity) == pytest.approx(4.9 * math.log(256))


@pytest.mark.parametrize("length", [0, 1, 2, 5, 8, 9, 23, 24, 25])
@pytest.mark.parametrize(("context", "stride"), [(8, 8), (8, 3), (8, 1), (1, 1), (64, 32)])
def test_every_token_is_predicted_once_and_in_order(length: int, context: int, stride: int) -> None:
    ids = rng(length).integers(0, V, length).tolist()
    logp = TABLE.double().log_softmax(-1)
    wanted = [-float(logp[a, b]) for a, b in pairwise(ids)]
    got = np.concatenate([np.zeros(0), *token_nats(bigram, ids, context=context, stride=stride, rows=2)])
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_each_token_has_its_context() -> None:
    """A model that tells where it stands in its window: never below context - stride but near the beginning."""
    seen: list[int] = []

    def place(ids: Tensor) -> Tensor:
        B, T = ids.shape
        logits = torch.zeros(B, T, 64)
        logits[..., 0] = -torch.arange(T).float()  # nats of token 0 tell the place
        return logits

    for part in token_nats(place, [0] * 60, context=16, stride=4):
        seen += [round(math.log(math.expm1(n) / 63)) for n in part if n > 0]
    assert len(seen) == 59
    assert seen[:16] == [*range(16)] and all(12 <= place <= 15 for place in seen[16:])


def test_interval_of_a_ratio() -> None:
    sizes = rng(1).integers(50, 150, 200)
    nats = sizes * rng(2).normal(3.0, 0.5, 200)
    found = ratio_interval(nats.tolist(), sizes.tolist())
    assert found.value == pytest.approx(nats.sum() / sizes.sum())
    assert found == ratio_interval(nats.tolist(), sizes.tolist())
    # The textbook standard error of a ratio of sums.
    error = np.std(nats - found.value * sizes) / sizes.mean() / np.sqrt(200)
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.15)
    assert found.value - found.low == pytest.approx(1.96 * error, rel=0.15)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        nats = rng(seed).normal(2.0, 1.0, 60)
        found = ratio_interval(nats.tolist(), [1.0] * 60, resamples=200)
        hits += found.low <= 2.0 <= found.high
    assert 86 <= hits <= 100


def test_no_text() -> None:
    with pytest.raises(ConjureError, match="chunks of text"):
        ratio_interval([], [])


def test_mapped() -> None:
    assert mapped(Interval(1.0, 0.0, 2.0), lambda nats: 3 * nats + 1) == Interval(4.0, 1.0, 7.0)
