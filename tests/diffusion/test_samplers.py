"""Every sampler against the closed-form solution for Gaussian data, with its order of convergence."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import Noise, normal
from conjure.diffusion import names
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.samplers import SAMPLERS, Sampler, dpmpp_2m, euler, euler_ancestral, heun, unipc
from conjure.diffusion.unipc import unipc_steps
from tests.diffusion.gaussian import EDM_FLOW, FLOW, MEAN, SPREAD, carried, preconditioned, velocity, width

STRAIGHT = FLOW.denoise(velocity)
EXPLODING = EDM_FLOW.denoise(preconditioned)
PATHS = pytest.mark.parametrize("denoise", [STRAIGHT, EXPLODING], ids=["flow", "edm"])
LMS, PNDM, DDIM, SDE = (SAMPLERS[name] for name in ("lms", "pndm", "ddim", "dpmpp_2m_sde"))
ORDERS = pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (DDIM, 1), (heun, 2), (dpmpp_2m, 2)])
HELD = Sampler(partial(unipc_steps, falling=False), evaluations=lambda steps: steps)
STEPS = (20, 40, 80, 160)


def slope(errors: list[float]) -> float:
    """Fitted order: minus the slope of log error over log steps."""
    x = torch.tensor(STEPS, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


@ORDERS
@pytest.mark.parametrize(("denoise", "start"), [(STRAIGHT, 0.9), (EXPLODING, 3.0)], ids=["flow", "edm"])
def test_order_of_convergence_between_two_noise_levels(
    denoise: Denoiser, start: float, sampler: Sampler, order: int
) -> None:
    end = 0.05
    x = torch.tensor([[-1.3, 0.2, 2.1]], dtype=torch.float64)
    exact = carried(denoise, x, start, end)
    errors = []
    for steps in STEPS:
        sigmas = torch.linspace(math.log(start), math.log(end), steps + 1, dtype=torch.float64).exp()
        errors.append((sampler(denoise, x, sigmas) - exact).abs().max().item())
    assert slope(errors) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (DDIM, 1), (heun, 2)])
def test_order_of_convergence_from_pure_noise_to_data(sampler: Sampler, order: int) -> None:
    x = torch.tensor([[-1.3, 0.2, 2.1]], dtype=torch.float64)
    exact = carried(STRAIGHT, x, 1.0, 0.0)
    errors = [(sampler(STRAIGHT, x, FLOW.sigmas(n)) - exact).abs().max().item() for n in STEPS]
    assert slope(errors) == pytest.approx(order, abs=0.2), errors


def last_order(sampler: Sampler, denoise: Denoiser, levels: Callable[[int], torch.Tensor]) -> float:
    """Measured where the first steps, which have nothing to remember yet, no longer hide it."""
    x = torch.tensor([[-1.3, 0.2, 2.1]], dtype=torch.float64)
    errors = []
    for steps in (160, 320):
        sigmas = levels(steps)
        exact = carried(denoise, x, sigmas[0].item(), sigmas[-1].item())
        errors.append((sampler(denoise, x, sigmas) - exact).abs().max().item())
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(("sampler", "order"), [(LMS, 2), (PNDM, 2), (HELD, 3)], ids=["lms", "pndm", "unipc"])
@pytest.mark.parametrize(("denoise", "start"), [(STRAIGHT, 0.9), (EXPLODING, 3.0)], ids=["flow", "edm"])
def test_order_of_samplers_with_a_memory(denoise: Denoiser, start: float, sampler: Sampler, order: int) -> None:
    """UniPC, corrected, gains one; pndm's weights are for even steps, and these are even in log sigma only."""
    ends = math.log(start), math.log(0.05)
    measured = last_order(sampler, denoise, lambda n: torch.linspace(*ends, n + 1, dtype=torch.float64).exp())
    assert measured == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("sampler", "order"), [(LMS, 2), (PNDM, 3), (unipc, 2)], ids=["lms", "pndm", "unipc"])
def test_order_of_samplers_with_a_memory_from_pure_noise_to_data(sampler: Sampler, order: int) -> None:
    assert last_order(sampler, STRAIGHT, FLOW.sigmas) == pytest.approx(order, abs=0.2)


def test_dpmpp_2m_from_pure_noise_to_data_is_second_order_but_for_a_logarithm() -> None:
    """Evenly spaced t is not even in log-SNR towards both ends, so the error falls as log(n) / n^2."""
    x = torch.tensor([[-1.3, 0.2, 2.1]], dtype=torch.float64)
    exact = carried(STRAIGHT, x, 1.0, 0.0)
    errors = [(dpmpp_2m(STRAIGHT, x, FLOW.sigmas(n)) - exact).abs().max().item() for n in (160, 320, 640)]
    ratios = [a / b for a, b in pairwise(errors)]
    assert 3.2 < ratios[0] < ratios[1] < 4.0, errors
    euler_error = (euler(STRAIGHT, x, FLOW.sigmas(12)) - exact).abs().max().item()
    assert (dpmpp_2m(STRAIGHT, x, FLOW.sigmas(12)) - exact).abs().max().item() < euler_error / 5


@pytest.mark.parametrize("sampler", [heun, dpmpp_2m, unipc, LMS])
def test_karras_levels_reach_the_data(sampler: Sampler) -> None:
    x = EDM_FLOW.prior(normal([1, 2], (5,)).double())
    exact = carried(EXPLODING, x, 80.0, 0.0)
    assert (sampler(EXPLODING, x, EDM_FLOW.sigmas(160)) - exact).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "unipc", "euler_ancestral", "dpmpp_2m_sde", "lcm"])
def test_both_paths_give_the_same_sample(name: str) -> None:
    """x_t = (1 - t) x_sigma at sigma = t / (1 - t): steps in log-SNR do not depend on the path."""
    t = RectifiedFlow(shift=2.0).sigmas(12)[1:]
    x_t = normal([3, 4], (6,)).double()
    straight = SAMPLERS[name](STRAIGHT, x_t, t, noise=Noise([3, 4]))
    exploding = SAMPLERS[name](EXPLODING, x_t / (1 - t[0]), t / (1 - t), noise=Noise([3, 4]))
    torch.testing.assert_close(straight, exploding, rtol=1e-9, atol=1e-9)


def test_both_paths_agree_for_heun_in_the_limit() -> None:
    t = torch.linspace(0.9, 0, 401, dtype=torch.float64)
    x_t = normal([3, 4], (6,)).double()
    straight = heun(STRAIGHT, x_t, t)
    exploding = heun(EXPLODING, x_t / (1 - t[0]), t / (1 - t))
    torch.testing.assert_close(straight, exploding, rtol=0, atol=1e-4)


@PATHS
def test_ancestral_steps_carry_mean_and_variance_as_the_chain_does(denoise: Denoiser) -> None:
    """The chain is linear in x for Gaussian data, so its mean and variance follow an exact recursion."""
    flow = FLOW if denoise is STRAIGHT else EDM_FLOW
    sigmas = flow.sigmas(12)
    x = flow.prior(normal(range(4), (50_000,)).double())
    samples = euler_ancestral(denoise, x, sigmas, noise=Noise(range(4)))
    mean, variance = 0.0, sigmas[0].item() ** 2
    for sigma, sigma_ in pairwise(sigmas.tolist()):
        signal, signal_ = denoise.signal(torch.tensor([sigma, sigma_], dtype=torch.float64)).tolist()
        gain = signal * SPREAD**2 / width(denoise, sigma) ** 2
        kept = sigma_ * signal / (signal_ * sigma)
        a = signal_ * gain + sigma_ * kept * (1 - signal * gain) / sigma
        b = (signal_ - sigma_ * kept * signal / sigma) * (1 - gain * signal) * MEAN
        mean, variance = a * mean + b, a**2 * variance + sigma_**2 * (1 - kept**2)
    n = samples.numel()
    assert abs(samples.mean().item() - mean) < 4 * (variance / n) ** 0.5
    assert abs(samples.var().item() - variance) < 4 * variance * (2 / n) ** 0.5


@PATHS
def test_ancestral_samples_have_the_data_distribution(denoise: Denoiser) -> None:
    flow = FLOW if denoise is STRAIGHT else EDM_FLOW
    x = flow.prior(normal(range(2), (20_000,)).double())
    samples = euler_ancestral(denoise, x, flow.sigmas(400), noise=Noise(range(2)))
    n = samples.numel()
    assert abs(samples.mean().item() - MEAN) < 4 * SPREAD / n**0.5 + 1e-3
    # Steps this long lose up to 1 % of the spread.
    assert abs(samples.std().item() / SPREAD - 1) < 4 / (2 * n) ** 0.5 + 0.01


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_sample_alone_equals_the_sample_in_a_batch(name: str) -> None:
    def run(seeds: list[int]) -> torch.Tensor:
        x = FLOW.prior(normal(seeds, (3, 2)))
        return SAMPLERS[name](STRAIGHT, x, FLOW.sigmas(6), noise=Noise(seeds))

    assert torch.equal(run([5, 9, 7])[1], run([9])[0])


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_steps_and_evaluations_are_counted(name: str) -> None:
    calls = 0

    def network(x: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        assert t_B.shape == (2,) and (t_B > 0).all()
        return velocity(x, t_B)

    seen: list[int] = []
    x = FLOW.prior(normal([1, 2], (3,)))
    denoise = FLOW.denoise(network)
    out = SAMPLERS[name](
        denoise, x, FLOW.sigmas(7), noise=Noise([1, 2]), on_step=lambda number, x0: seen.append(number)
    )
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert calls == SAMPLERS[name].evaluations(7)
    assert torch.isfinite(out).all() and out.dtype == torch.float32


def test_stepping_is_the_same_and_may_stop_early() -> None:
    x = FLOW.prior(normal([1], (3,)))
    steps = list(dpmpp_2m.steps(STRAIGHT, x, FLOW.sigmas(7)))
    assert torch.equal(steps[-1].x, dpmpp_2m(STRAIGHT, x, FLOW.sigmas(7)))
    assert torch.equal(next(dpmpp_2m.steps(STRAIGHT, x, FLOW.sigmas(7))).x, steps[0].x)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_point_is_found_in_one_step(name: str) -> None:
    """Where the estimate is already right, one step from pure noise is exact."""
    right = Denoiser(lambda x, sigma_B: torch.full_like(x, 0.25), STRAIGHT.signal)
    out = SAMPLERS[name](right, normal([1], (4,)), FLOW.sigmas(1), noise=Noise([1]))
    torch.testing.assert_close(out, torch.full((1, 4), 0.25))


@PATHS
def test_noisy_dpm_solver_has_the_data_distribution(denoise: Denoiser) -> None:
    flow = FLOW if denoise is STRAIGHT else EDM_FLOW
    x = flow.prior(normal(range(2), (20_000,)).double())
    samples = SDE(denoise, x, flow.sigmas(60), noise=Noise(range(2)))
    n = samples.numel()
    assert abs(samples.mean().item() - MEAN) < 4 * SPREAD / n**0.5 + 1e-3
    assert abs(samples.std().item() / SPREAD - 1) < 4 / (2 * n) ** 0.5 + 0.01


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde", "ddpm", "lcm"])
def test_noisy_samplers_without_noise_are_refused(name: str) -> None:
    with pytest.raises(ConjureError, match="draws noise"):
        SAMPLERS[name](STRAIGHT, torch.zeros(1, 2), FLOW.sigmas(2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_a_number_is_named_with_its_step(bad: float) -> None:
    broken = Denoiser(lambda x, sigma_B: torch.where(sigma_B[:, None] < 0.7, bad, x), STRAIGHT.signal)
    with pytest.raises(ConjureError, match=r"became (NaN|infinite) at step 3 of 5") as error:
        euler(broken, normal([1], (4,)), FLOW.sigmas(5))
    assert "float32" in error.value.hint


def test_the_torch_free_list_of_names_is_true() -> None:
    assert list(names.SAMPLER_NAMES) == list(SAMPLERS)
    tree = ast.parse(Path(names.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "conjure.core.errors"}
