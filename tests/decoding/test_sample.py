"""Draws follow the distribution, and each row only its own generator."""

from __future__ import annotations

import math

import torch

from conjure.core.seeds import generator, normal
from conjure.decoding.sample import inverse_cdf, sample


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
