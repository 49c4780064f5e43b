"""Classifier-free guidance against its formula."""

from __future__ import annotations

import pytest
import torch

from conjure.core.seeds import normal
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.guidance import guided, rescaled
from conjure.diffusion.samplers import euler

FLOW = RectifiedFlow()
X = normal([1, 2], (3, 4))
SIGMA_B = torch.tensor([0.5, 0.5])
PROMPT, NOTHING = normal([3, 4], (4,)), normal([5, 6], (4,))


class Counting:
    """A network that remembers the batch of each call."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: torch.Tensor, t_B: torch.Tensor, condition_BD: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return x * t_B[:, None, None] + condition_BD[:, None, :] * x.sin()


def both(denoise: Denoiser) -> tuple[torch.Tensor, torch.Tensor]:
    return denoise(X, SIGMA_B, PROMPT), denoise(X, SIGMA_B, NOTHING)


def test_scale_one_is_the_condition_alone_in_one_pass() -> None:
    network = Counting()
    denoise = FLOW.denoise(network)
    plain = guided(denoise, 1.0, condition=[PROMPT], unconditional=[NOTHING])(X, SIGMA_B)
    assert network.batches == [2]
    assert torch.equal(plain, denoise(X, SIGMA_B, PROMPT))


@pytest.mark.parametrize("scale", [0.0, 0.5, 4.0])
def test_formula_in_one_doubled_pass(scale: float) -> None:
    network = Counting()
    denoise = FLOW.denoise(network)
    out = guided(denoise, scale, condition=[PROMPT], unconditional=[NOTHING])(X, SIGMA_B)
    assert network.batches == [4]
    c, u = both(denoise)
    torch.testing.assert_close(out, u + scale * (c - u), rtol=1e-5, atol=1e-5)


def test_negative_prompt_takes_the_place_of_nothing() -> None:
    denoise = FLOW.denoise(Counting())
    out = guided(denoise, 2.0, condition=[PROMPT], unconditional=[PROMPT])(X, SIGMA_B)
    torch.testing.assert_close(out, denoise(X, SIGMA_B, PROMPT), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_rescale_blends_the_spread_of_the_condition(rescale: float) -> None:
    denoise = FLOW.denoise(Counting())
    c, u = both(denoise)
    raw = u + 5 * (c - u)
    out = guided(denoise, 5.0, condition=[PROMPT], unconditional=[NOTHING], rescale=rescale)(X, SIGMA_B)
    for k in range(2):
        full = raw[k] * c[k].std() / raw[k].std()
        torch.testing.assert_close(out[k], rescale * full + (1 - rescale) * raw[k], rtol=1e-5, atol=1e-5)


def test_the_path_travels_with_the_guided_function() -> None:
    denoise = guided(FLOW.denoise(Counting()), 2.0, condition=[PROMPT], unconditional=[NOTHING])
    assert denoise.signal(torch.tensor(0.25)).item() == 0.75
    assert torch.isfinite(euler(denoise, X, FLOW.sigmas(3))).all()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_rescaling_of_raw_answers(share: float) -> None:
    """The formula of diffusers' guidance_rescale, whose spread is that of a whole sample."""
    mixed, conditional = 3 * normal([1, 2], (4, 5, 5)), normal([3, 4], (4, 5, 5))
    theirs = mixed * conditional.std((1, 2, 3), keepdim=True) / mixed.std((1, 2, 3), keepdim=True)
    torch.testing.assert_close(rescaled(mixed, conditional, share), share * theirs + (1 - share) * mixed)
