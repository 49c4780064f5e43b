"""Draws follow the distribution, and each row only its own generator."""

from __future__ import annotations

import math

import pytest
import torch

from conjure.core.seeds import generator, normal
from conjure.decoding.filters import filtered
from conjure.decoding.sample import best, draw, inverse_cdf, sample


def test_inverse_cdf_gives_each_token_its_stretch() -> None:
    logits_BV = torch.tensor([[0.125, 0.5, 0.375]]).log().expand(7, 3)
    u_B = torch.tensor([0.0, 0.1249, 0.1251, 0.6249, 0.6251, 0.99, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(logits_BV, u_B).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_a_token_that_is_ruled_out_is_never_drawn() -> None:
    logits_BV = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).expand(3, 5)
    u_B = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(logits_BV, u_B).tolist() == [1, 3, 3]


def test_the_largest_number_finds_the_last_token_whatever_the_sum_rounds_to() -> None:
    logits_BV = normal(range(500), (37,)) * 3
    logits_BV[:, 30:] = -math.inf
    u_B = torch.full((500,), 1 - 2**-53, dtype=torch.float64)
    sums_B = logits_BV.double().softmax(-1).cumsum(-1)[:, -1]
    assert len(set(sums_B.tolist())) > 2
    assert set(inverse_cdf(logits_BV, u_B).tolist()) == {29}


def test_frequencies_follow_the_softmax() -> None:
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    n = 4000
    ids = sample(shares.log().expand(n, 4), [generator(seed) for seed in range(n)])
    counts = torch.bincount(ids, minlength=4)
    chi_squared = ((counts - n * shares) ** 2 / (n * shares)).sum().item()
    assert chi_squared < 16.3  # the 0.1 % point for 3 degrees of freedom


def test_a_row_alone_draws_what_it_draws_in_a_batch() -> None:
    logits_BV = normal(range(3), (40,))
    seeds = [11, 12, 13]
    together, alone = [generator(seed) for seed in seeds], [generator(12)]
    for _ in range(20):
        assert sample(logits_BV, together)[1] == sample(logits_BV[1:2], alone)[0]


def test_blocks_of_the_vocabulary_change_nothing() -> None:
    logits_BV = normal(range(300), (1000,)) * 2
    logits_BV[:, 250:600] = -math.inf
    u_B = torch.linspace(0, 1 - 2**-53, 300, dtype=torch.float64)
    cdf_BV = logits_BV.double().softmax(-1).cumsum(-1)
    expected = torch.searchsorted(cdf_BV, u_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0]
    found = inverse_cdf(logits_BV, u_B)
    assert (found != expected).sum() <= 1  # the border between two tokens, in float32
    assert (logits_BV.gather(1, found[:, None]) > -math.inf).all()


def test_the_best_is_the_first_of_equals_and_no_number_is_told() -> None:
    logits_BV = torch.tensor([[1.0, 5.0, 5.0], [0.0, math.nan, 9.0], [-math.inf, -math.inf, -math.inf]])
    tokens, values = best(logits_BV)
    assert tokens == [1, 1, 0] and values[0] == 5 and math.isnan(values[1]) and values[2] == -math.inf
    assert best(logits_BV[:1].double()) == ([1], [5.0])


@pytest.mark.parametrize("top_k", [0, 1, 5, 40])
@pytest.mark.parametrize(
    ("top_p", "min_p"), [(1.0, 0.0), (0.8973, 0.0), (0.0, 0.0), (0.6047, 0.1), (1.0, 0.2), (0.9999, 1.0)]
)
@pytest.mark.parametrize(("temperature", "spread"), [(1.0, 1.0), (0.7, 4.0), (3.0, 0.0), (1e-30, 1.0)])
def test_the_quick_draw_is_the_slow_one(
    top_k: int, top_p: float, min_p: float, temperature: float, spread: float
) -> None:
    logits_BV = (normal(range(40), (300,)) * spread * 16).round() / 16  # some equals
    logits_BV[:, 50:90] = -math.inf
    u_B = torch.linspace(0, 1 - 2**-53, 40, dtype=torch.float64)
    kept_BV = filtered(logits_BV, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = inverse_cdf(kept_BV, u_B).tolist()
    found = [
        draw(row, u, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        for row, u in zip(logits_BV.numpy(), u_B.tolist())
    ]
    differ = [b for b in range(40) if found[b] != expected[b]]
    assert len(differ) <= 1  # at the border between two tokens, in float32
    assert all(logits_BV[b, token] > -math.inf for b, token in enumerate(found))
