"""Sampling with a part held: exact at every level, for every sampler, and against a closed form."""

from __future__ import annotations

import pytest
import torch

from conjure.core.seeds import Noise, normal
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.edm import EDM
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.samplers import SAMPLERS
from conjure.tasks.held_region import held_steps, holding, noised

SHAPE = (2, 4, 4)
MASK = (torch.arange(16).view(4, 4) % 3 == 0).float()
KNOWN = normal([8, 9], SHAPE)


def flow(name: str) -> tuple[RectifiedFlow | EDM, Denoiser]:
    its = RectifiedFlow() if name == "straight" else EDM(sigma_max=20)
    return its, its.denoise(lambda x, t: torch.tanh(x.flip(-1)) + t.view(-1, 1, 1, 1))


@pytest.mark.parametrize("name", ["straight", "edm"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_what_is_known_lies_on_its_line_at_every_level(name: str, sampler: str) -> None:
    its, denoise = flow(name)
    sigmas, noise = its.sigmas(6).float(), normal([1, 2], SHAPE)
    x = its.prior(noise)
    steps = held_steps(SAMPLERS[sampler].steps, denoise, x, sigmas, Noise([1, 2]), known=KNOWN, mask=MASK)
    for sigma, step in zip(sigmas[1:], steps, strict=True):
        line = denoise.signal(sigma) * KNOWN + sigma * noise
        assert torch.allclose(((1 - MASK) * step.x), (1 - MASK) * line, atol=2e-5)
        assert torch.equal((1 - MASK) * step.x0, (1 - MASK) * KNOWN)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_with_what_is_known(sampler: str, repeats: int) -> None:
    its, denoise = flow("straight")
    x = its.prior(normal([1, 2], SHAPE))
    *_, last = held_steps(SAMPLERS[sampler].steps, denoise, x, its.sigmas(5), Noise([1, 2]),
                          known=KNOWN, mask=MASK, repeats=repeats)  # fmt: skip
    assert torch.allclose((1 - MASK) * last.x, (1 - MASK) * KNOWN, atol=1e-5)
    assert (MASK * (last.x - KNOWN)).abs().max() > 0.1


def test_a_mask_of_everything_changes_nothing() -> None:
    its, denoise = flow("straight")
    x, sigmas, one = its.prior(normal([1, 2], SHAPE)), its.sigmas(5), torch.ones(4, 4)
    plain = [step.x for step in SAMPLERS["heun"].steps(denoise, x, sigmas, Noise([1]))]
    held = [s.x for s in held_steps(SAMPLERS["heun"].steps, denoise, x, sigmas, Noise([1]), known=KNOWN, mask=one)]
    assert all(torch.equal(a, b) for a, b in zip(plain, held, strict=True))


def test_the_new_part_sees_the_known_one() -> None:
    """Data whose two values are equal: the best denoiser averages both; with one known the other must come out so."""
    its = RectifiedFlow()

    def mean(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """E[x0 | x] for x0 = (a, a), a normal with variance 1, in closed form."""
        t = t.view(-1, 1)
        return ((1 - t) * x.sum(1, keepdim=True) / (2 * (1 - t) ** 2 + t**2)).expand(-1, 2)

    denoise = Denoiser(mean, signal=lambda sigma: 1 - sigma)
    mask, known = torch.tensor([1.0, 0.0]), torch.full((64, 2), 1.5)

    def off(repeats: int) -> float:
        seeds = range(64)
        *_, last = held_steps(SAMPLERS["euler_ancestral"].steps, denoise, normal(seeds, (2,)), its.sigmas(50),
                              Noise(seeds), known=known, mask=mask, repeats=repeats)  # fmt: skip
        return float((last.x[:, 0] - 1.5).abs().mean())

    assert off(1) < 0.3 and off(6) < 0.2


def test_a_guess_is_where_a_late_start_begins() -> None:
    its, denoise = flow("straight")
    sigmas = its.sigmas(10)[-3:]
    noise = float(sigmas[0]) * normal([1, 2], SHAPE)
    seen: list[torch.Tensor] = []
    spy = Denoiser(lambda x, sigma: seen.append(x) or denoise(x, sigma), signal=denoise.signal)
    list(held_steps(SAMPLERS["euler"].steps, spy, noise, sigmas, Noise([1]), known=KNOWN, mask=MASK, guess=KNOWN))
    assert torch.allclose(seen[0], (1 - sigmas[0]).float() * KNOWN + noise, atol=1e-6)


def test_noise_that_goes_back_up_has_the_right_size() -> None:
    x0, seeds = torch.zeros(4000, 1), range(4000)
    for name in ("straight", "edm"):
        its, denoise = flow(name)
        low, high = its.sigmas(8)[[4, 2]]
        x = denoise.signal(low) * (x0 + 2) + low * normal(seeds, (1,))
        up = noised(denoise, x.float(), low, high, Noise(seeds))
        assert float(up.mean()) == pytest.approx(float(denoise.signal(high)) * 2, abs=0.06 * float(high))
        assert float(up.std()) == pytest.approx(float(high), rel=0.04)


def test_the_estimate_is_sure_of_what_is_known() -> None:
    _, denoise = flow("straight")
    x, sigma = normal([1, 2], SHAPE), torch.tensor([0.5, 0.5])
    out, plain = holding(denoise, KNOWN, MASK)(x, sigma), denoise(x, sigma)
    assert torch.equal(torch.where(MASK > 0, plain, KNOWN), out)
