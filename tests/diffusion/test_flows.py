"""Losses and scalings of both flows against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.diffusion.edm import EDM
from conjure.diffusion.flow import RectifiedFlow
from tests.diffusion.gaussian import EDM_FLOW, FLOW, MEAN, SPREAD, preconditioned, velocity


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_flow_loss_of_the_best_network_is_the_posterior_variance(t: float) -> None:
    x0, noise = MEAN + SPREAD * draws(64, 4000), draws(64, 4000, seed=1)
    loss_B = FLOW.loss(velocity, x0, noise, torch.full((64,), t))
    expected = SPREAD**2 / ((1 - t) ** 2 * SPREAD**2 + t**2)
    assert loss_B.dtype == torch.float32 and loss_B.shape == (64,)
    assert abs(loss_B.mean() - expected) < 4 * loss_B.std() / 8


@pytest.mark.parametrize("sigma", [0.01, 0.6, 30.0])
def test_edm_loss_of_the_best_network_is_the_weighted_posterior_variance(sigma: float) -> None:
    x0, noise = MEAN + SPREAD * draws(64, 4000), draws(64, 4000, seed=1)
    loss_B = EDM_FLOW.loss(preconditioned, x0, noise, torch.full((64,), sigma, dtype=torch.float64))
    data = EDM_FLOW.sigma_data
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    expected = weight * SPREAD**2 * sigma**2 / (SPREAD**2 + sigma**2)
    assert abs(loss_B.mean() - expected) < 4 * loss_B.std() / 8


@pytest.mark.parametrize("sigma", [0.01, 0.6, 30.0])
def test_edm_loss_is_the_weighted_error_of_its_own_denoiser(sigma: float) -> None:
    def network(x: torch.Tensor, c_noise_B: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x) + c_noise_B[:, None]

    x0, noise, sigma_B = draws(5, 7), draws(5, 7, seed=1), torch.full((5,), sigma, dtype=torch.float64)
    estimate = EDM_FLOW.denoise(network)(EDM_FLOW.noisy(x0, noise, sigma_B), sigma_B)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    expected = weight * (estimate - x0).square().mean(1)
    loss_B = EDM_FLOW.loss(network, x0, noise, sigma_B)
    torch.testing.assert_close(loss_B.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("predict", ["velocity", "sample"])
def test_flow_loss_is_the_error_of_its_own_denoiser_over_t_squared(predict: str, t: float) -> None:
    flow = RectifiedFlow(predict=predict)  # pyright: ignore[reportArgumentType]

    def network(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x) + t_B[:, None]

    x0, noise, t_B = draws(5, 7), draws(5, 7, seed=1), torch.full((5,), t, dtype=torch.float64)
    estimate = flow.denoise(network)(flow.noisy(x0, noise, t_B), t_B)
    least = flow.floor if predict == "sample" else 0.0
    expected = (estimate - x0).square().mean(1) / max(t, least) ** 2
    torch.testing.assert_close(flow.loss(network, x0, noise, t_B).double(), expected, rtol=1e-5, atol=1e-5)


def test_edm_network_sees_and_aims_at_unit_variance() -> None:
    flow = EDM(sigma_data=0.5)
    for sigma in (0.01, 0.5, 50.0):
        sigma_B = torch.full((1,), sigma, dtype=torch.float64)
        x0, noise = 0.5 * draws(1, 400_000), draws(1, 400_000, seed=1)
        c_skip, c_out, c_in, c_noise = flow.scalings(sigma_B)
        x = flow.noisy(x0, noise, sigma_B)
        assert (c_in * x).var().item() == pytest.approx(1, abs=0.01)
        assert ((x0 - c_skip * x) / c_out).var().item() == pytest.approx(1, abs=0.01)
        assert c_noise.item() == pytest.approx(math.log(sigma) / 4)


@pytest.mark.parametrize("flow", [FLOW, EDM_FLOW], ids=["flow", "edm"])
def test_weight_of_an_element_scales_its_error(flow: RectifiedFlow | EDM) -> None:
    def network(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)

    x0, noise, at_B = draws(2, 3, 4), draws(2, 3, 4, seed=1), torch.tensor([0.3, 0.6])
    left = torch.zeros(1, 1, 4).index_fill(2, torch.tensor([0, 1]), 1.0)
    parts = flow.loss(network, x0, noise, at_B, left) + flow.loss(network, x0, noise, at_B, 1 - left)
    torch.testing.assert_close(parts, flow.loss(network, x0, noise, at_B))
    halved = flow.loss(network, x0[:, :, :2], noise[:, :, :2], at_B)
    torch.testing.assert_close(flow.loss(network, x0, noise, at_B, left), halved / 2)


def test_densities_of_training_times() -> None:
    u_B = (torch.arange(9999) + 1) / 10_000
    torch.testing.assert_close(RectifiedFlow(density="uniform").time(u_B), u_B)
    logit_B = torch.logit(RectifiedFlow(mean=0.5, std=1.5).time(u_B).double())
    assert logit_B.mean().item() == pytest.approx(0.5, abs=0.01)
    assert logit_B.std().item() == pytest.approx(1.5, abs=0.01)
    log_B = EDM(mean=-1.0, std=0.8).time(u_B).double().log()
    assert log_B.mean().item() == pytest.approx(-1.0, abs=0.01)
    assert log_B.std().item() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("flow", [FLOW, RectifiedFlow(density="uniform"), EDM_FLOW])
def test_the_borders_of_the_uniform_stay_finite(flow: RectifiedFlow | EDM) -> None:
    t_B = flow.time(torch.tensor([0.0, 1.0]))
    assert torch.isfinite(t_B).all() and (t_B > 0).all()


def test_shift_is_the_same_in_training_and_sampling() -> None:
    flow = RectifiedFlow(density="uniform", shift=3.0)
    assert flow.time(torch.tensor([0.5])).item() == pytest.approx(0.75)
    assert flow.sigmas(4).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert RectifiedFlow().sigmas(4).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_karras_levels() -> None:
    sigmas = EDM_FLOW.sigmas(18).tolist()
    assert len(sigmas) == 19 and sigmas[0] == pytest.approx(80) and sigmas[-2:] == pytest.approx([0.002, 0])
    middle = (80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert sigmas[9] == pytest.approx(middle)
    assert EDM_FLOW.sigmas(1).tolist() == pytest.approx([80, 0])


@pytest.mark.parametrize("flow", [FLOW, EDM_FLOW], ids=["flow", "edm"])
def test_prior_is_all_noise(flow: RectifiedFlow | EDM) -> None:
    noise = draws(2, 3)
    sigma = flow.sigmas(5)[0]
    torch.testing.assert_close(flow.prior(noise), flow.noisy(torch.zeros_like(noise), noise, sigma.expand(2)))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConjureError, match="shift"):
        RectifiedFlow(shift=0)
    with pytest.raises(ConjureError, match="sigma_min"):
        EDM(sigma_min=90)
