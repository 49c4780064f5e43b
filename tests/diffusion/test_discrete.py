"""DDPM-style training and sampling against closed forms and the tables of diffusers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import Noise, normal
from conjure.diffusion.discrete import DiscreteFlow
from conjure.diffusion.samplers import SAMPLERS
from tests.diffusion.gaussian import DISCRETE, MEAN, SPREAD, noise_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import DDIMScheduler, EulerDiscreteScheduler


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(x: torch.Tensor, told_B: torch.Tensor) -> torch.Tensor:
    return torch.sin(3 * x) + told_B[:, None] / 1000


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("terminal", [False, True])
def test_tables_are_those_of_published_models(betas: Any, terminal: bool) -> None:
    flow = DiscreteFlow(betas=betas, start=0.00085, end=0.012, zero_terminal=terminal, predict="v")
    theirs = EulerDiscreteScheduler(
        beta_schedule=betas, beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=terminal
    )
    torch.testing.assert_close(flow.alpha_bar_T, theirs.alphas_cumprod.double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("predict", ["epsilon", "v", "sample"])
def test_noise_and_target_are_those_of_diffusers(predict: Any) -> None:
    flow, theirs = DiscreteFlow(predict=predict), DDIMScheduler()
    x0, noise, t_B = draws(4, 6).float(), draws(4, 6, seed=1).float(), torch.tensor([0.0, 5.0, 500.0, 999.0])
    noisy = theirs.add_noise(x0, noise, t_B.long())
    torch.testing.assert_close(flow.noisy(x0, noise, t_B), noisy, rtol=1e-5, atol=1e-5)
    target = {"epsilon": noise, "v": theirs.get_velocity(x0, noise, t_B.long()), "sample": x0}[predict]
    expected = (network(noisy, t_B) - target).square().mean(1)
    torch.testing.assert_close(flow.loss(network, x0, noise, t_B), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [10.0, 300.0, 990.0])
def test_loss_of_the_best_network_is_the_posterior_variance(t: float) -> None:
    x0, noise = MEAN + SPREAD * draws(64, 4000), draws(64, 4000, seed=1)
    loss_B = DISCRETE.loss(noise_of, x0, noise, torch.full((64,), t))
    alpha_bar = DISCRETE.alpha_bar_T[int(t)].item()
    expected = alpha_bar * SPREAD**2 / (alpha_bar * SPREAD**2 + 1 - alpha_bar)
    assert abs(loss_B.mean() - expected) < 4 * loss_B.std() / 8


@pytest.mark.parametrize("predict", ["epsilon", "v", "sample"])
def test_min_snr_weighs_the_error_of_the_data_alike_for_every_prediction(predict: Any) -> None:
    flow = DiscreteFlow(predict=predict, min_snr=5.0)
    x0, noise, t_B = draws(5, 7), draws(5, 7, seed=1), torch.tensor([3.0, 100.0, 400.0, 700.0, 999.0])
    snr_B = flow.alpha_bar_T[t_B.long()] / (1 - flow.alpha_bar_T[t_B.long()])
    x = flow.noisy(x0, noise, t_B)
    estimate = flow.denoise(network)(x / flow.alpha_bar_T[t_B.long()].sqrt()[:, None], snr_B.rsqrt())
    expected = snr_B.clamp_max(5) * (estimate - x0).square().mean(1)
    torch.testing.assert_close(flow.loss(network, x0, noise, t_B).double(), expected, rtol=1e-4, atol=1e-6)


def test_training_looks_at_every_step_alike() -> None:
    t_B = DISCRETE.time((torch.arange(100_000) + 0.5) / 100_000)
    assert t_B.dtype == torch.float32
    assert torch.equal(t_B.long().bincount(), torch.full((1000,), 100))
    assert DISCRETE.time(torch.tensor([0.0, 1.0])).tolist() == [0, 999]


@pytest.mark.parametrize("clock", ["step", "share"])
def test_the_network_is_told_its_own_clock(clock: Any) -> None:
    told: list[float] = []

    def listening(x: torch.Tensor, told_B: torch.Tensor) -> torch.Tensor:
        told.append(told_B[0].item())
        return x

    flow = DiscreteFlow(clock=clock)
    flow.loss(listening, draws(1, 3), draws(1, 3), torch.tensor([500.0]))
    denoise = flow.denoise(listening)
    for sigma in flow.sigmas(4)[:-1]:
        denoise(draws(1, 3), sigma[None])
    unit = 1 if clock == "step" else 1000
    assert told == pytest.approx([500 / unit, 999 / unit, 749 / unit, 499 / unit, 249 / unit], rel=1e-6)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_reaches_the_data(name: str) -> None:
    """Mean and spread of Gaussian data, at the precision of 100 steps."""
    seeds = range(2)
    x = DISCRETE.prior(normal(seeds, (4000,)).double())
    samples = SAMPLERS[name](DISCRETE.denoise(noise_of), x, DISCRETE.sigmas(100), noise=Noise(seeds))
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.04)
    if name != "lcm":  # it draws the mean of what is left, not a sample, from a network that is not distilled
        assert samples.std().item() == pytest.approx(SPREAD, rel=0.06)


def test_nothing_is_left_of_the_data_where_the_end_has_no_signal() -> None:
    flow = DiscreteFlow(zero_terminal=True, predict="v")
    x0, noise = draws(1, 8), draws(1, 8, seed=1)
    assert (flow.noisy(x0, noise, torch.tensor([999.0])) - noise).abs().max() < 1e-3
    x = SAMPLERS["euler"](flow.denoise(lambda x, t: -torch.full_like(x, 0.3)), flow.prior(noise), flow.sigmas(1))
    torch.testing.assert_close(x, torch.full_like(x, 0.3), rtol=0, atol=1e-3)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConjureError, match="no signal"):
        DiscreteFlow(zero_terminal=True)
    with pytest.raises(ConjureError, match="start < end"):
        DiscreteFlow(start=0.5, end=0.1)
    with pytest.raises(ConjureError, match="sampling steps"):
        DiscreteFlow(count=10).sigmas(11)
