from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from conjure.metrics.bits import bits_per_dimension, code_usage, importance_bound, logistic_nats

WIDE, NOISE = 1.4, 0.7  # spreads of the proposal and of p(x | z)


def log_weights(x_N: torch.Tensor, samples: int, mean: float, spread: float) -> torch.Tensor:
    """p(x, z) / q(z | x) of z ~ N(0, 1), x | z ~ N(z, NOISE), and q = N(mean * x, spread)."""
    proposal = Normal(mean * x_N, spread)
    z_KN = proposal.sample((samples,))
    return Normal(0.0, 1.0).log_prob(z_KN) + Normal(z_KN, NOISE).log_prob(x_N) - proposal.log_prob(z_KN)


@pytest.fixture
def x_N() -> torch.Tensor:
    torch.manual_seed(0)
    return Normal(0.0, math.sqrt(1 + NOISE**2)).sample((3000,)).double()


def test_the_bound_rises_to_the_exact_likelihood_of_a_linear_gaussian_model(x_N: torch.Tensor) -> None:
    exact = Normal(0.0, math.sqrt(1 + NOISE**2)).log_prob(x_N).mean().item()
    found = [importance_bound(log_weights(x_N, k, 0.5, WIDE)).mean().item() for k in (1, 5, 50, 1000)]
    assert found == sorted(found) and found[-1] <= exact + 2e-3
    assert exact - found[0] > 0.3 and exact - found[2] < 0.03 and exact - found[3] < 4e-3
    # The ELBO has a closed form: exact - KL(q || posterior), the posterior being N(x, NOISE^2) / (1 + NOISE^2).
    share = 1 / (1 + NOISE**2)
    posterior = Normal(share * x_N, NOISE * math.sqrt(share))
    gap = torch.distributions.kl_divergence(Normal(0.5 * x_N, WIDE), posterior).mean().item()
    assert log_weights(x_N, 100, 0.5, WIDE).mean().item() == pytest.approx(exact - gap, abs=0.02)


def test_with_the_true_posterior_one_sample_is_exact(x_N: torch.Tensor) -> None:
    share = 1 / (1 + NOISE**2)
    exact_N = Normal(0.0, math.sqrt(1 + NOISE**2)).log_prob(x_N)
    for samples in (1, 7):
        weights_KN = log_weights(x_N, samples, share, NOISE * math.sqrt(share))
        assert torch.allclose(importance_bound(weights_KN), exact_N, atol=1e-6)


def test_large_weights_do_not_overflow() -> None:
    assert importance_bound(torch.tensor([[-1000.0], [-1000.0]])).item() == pytest.approx(-1000)


def test_bits() -> None:
    assert bits_per_dimension(3072 * math.log(256), 3072) == pytest.approx(8)


def test_use_of_codes() -> None:
    assert code_usage(torch.tensor([5, 5, 5, 5])) == (4, pytest.approx(4))
    assert code_usage(torch.tensor([0, 9, 0, 0])) == (1, pytest.approx(1))
    used, perplexity = code_usage(torch.tensor([2, 1, 1, 0]))
    assert used == 3 and perplexity == pytest.approx(2**1.5)


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, -1.0), (-0.97, -4.0), (1.3, -2.0), (0.2, -7.0), (0.1, 2.0)])
def test_a_logistic_distribution_over_eight_bits(mean: float, log_scale: float) -> None:
    x = torch.arange(256) / 127.5 - 1
    nats = logistic_nats(x, torch.tensor(mean), torch.tensor(log_scale))
    assert (-nats.double()).exp().sum().item() == pytest.approx(1, abs=1e-4)
    borders = torch.cat([torch.tensor([-math.inf]), x[:-1].double() + 1 / 255, torch.tensor([math.inf])])
    mass = torch.sigmoid((borders - mean) * math.exp(-log_scale)).diff()
    sure = mass > 1e-9
    assert sure.sum() > 2 and torch.allclose(nats[sure].double(), -mass[sure].log(), rtol=1e-3, atol=2e-5)


def test_a_value_far_off_still_has_a_gradient() -> None:
    mean = torch.tensor(-1.0, requires_grad=True)
    nats = logistic_nats(torch.tensor(0.9), mean, torch.tensor(-6.0))
    nats.backward()
    assert 100 < nats.item() < math.inf and mean.grad is not None and mean.grad.item() < -1
