"""Samplers that extrapolate from the estimates of earlier steps: second order and more for one evaluation a step.

Legend: as in `samplers.py`; h is the length of a step in log-SNR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.stepping import Draw, Leg, Step, legs, level, needed


def dpmpp_2m_steps(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None, *, plain_end: bool = False
) -> Iterator[Step]:
    """DPM-Solver++(2M), second order: x0 is extrapolated to the middle of the step in log-SNR.

    Lu et al., arXiv 2211.01095, algorithm 2. Steps from pure noise (signal 0) and to clean data (sigma 0) are
    infinitely long in log-SNR: there the extrapolation vanishes, or is left out, and the step is of first
    order; `plain_end` asks for that at the last step whatever its level.
    """
    before: Tensor | None = None
    for leg, reach in _reaches(legs(denoise, sigmas), plain_end):
        x0 = denoise(x, level(x, leg.sigma))
        target = x0 if before is None or reach == 0 else x0 + reach * (x0 - before)
        x = leg.signal_ * target + leg.sigma_ / leg.sigma * (x - leg.signal * target)
        before = x0
        yield Step(x, x0)


def dpmpp_2m_sde_steps(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None, *, plain_end: bool = False
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): the same extrapolation on the reverse SDE, with fresh noise at every step.

    Lu et al., arXiv 2211.01095, section 5 and appendix B. The noise is one plain draw a step from each sample's own
    stream: a picture is the same alone and in a batch, but with another number of steps it is another picture (a
    Brownian path would keep its outline).
    """
    draw = needed(noise, "dpmpp_2m_sde")
    before: Tensor | None = None
    for leg, reach in _reaches(legs(denoise, sigmas), plain_end):
        x0 = denoise(x, level(x, leg.sigma))
        target = x0 if before is None or reach == 0 else x0 + reach * (x0 - before)
        kept = math.exp(-leg.length)
        x = leg.sigma_ / leg.sigma * kept * x + leg.signal_ * (1 - kept**2) * target
        if leg.sigma_ > 0:
            x = x + leg.sigma_ * math.sqrt(1 - kept**2) * draw(x.shape[1:]).to(x)
        before = x0
        yield Step(x, x0)


def lms_steps(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None, *, order: int = 4
) -> Iterator[Step]:
    """Linear multistep (Adams-Bashforth on uneven levels): the slopes of the last `order` steps, as a polynomial in
    sigma, integrated over the step. The first steps know fewer slopes, which holds the whole run to second order.

    Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, chapter III.5; on dx/dsigma = (x -
    x0)/sigma after Karras et al., arXiv 2206.00364, equation 1.
    """
    slopes: list[Tensor] = []
    levels: list[float] = []
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        slopes = [(x - x0) / leg.sigma, *slopes[: order - 1]]
        levels = [leg.sigma, *levels[: order - 1]]
        weights = _integrals(levels, leg.sigma, leg.sigma_)
        x = x + sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
        yield Step(x, x0)


def pndm_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """Pseudo linear multistep (PLMS): Adams-Bashforth with the weights of even steps, whatever the steps; one
    evaluation a step, and one more for the first, which is tried and corrected.

    Liu et al., arXiv 2202.09778, equations 9 and 12; the start of the latent diffusion samplers (Rombach et al.,
    arXiv 2112.10752), which takes the mean of two slopes in place of the paper's Runge-Kutta steps.
    """
    past: list[Tensor] = []
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        past = [*past[-3:], (x - x0) / leg.sigma]
        slope = adams(past)
        if len(past) == 1 and leg.sigma_ > 0:
            tried = x + (leg.sigma_ - leg.sigma) * slope
            slope = (slope + (tried - denoise(tried, level(x, leg.sigma_))) / leg.sigma_) / 2
        x = x + (leg.sigma_ - leg.sigma) * slope
        yield Step(x, x0)


def adams(past: Sequence[Tensor]) -> Tensor:
    """The slope of the next step from those of up to four even steps, oldest first (Adams-Bashforth)."""
    if len(past) == 1:
        return past[-1]
    if len(past) == 2:
        return (3 * past[-1] - past[-2]) / 2
    if len(past) == 3:
        return (23 * past[-1] - 16 * past[-2] + 5 * past[-3]) / 12
    return (55 * past[-1] - 59 * past[-2] + 37 * past[-3] - 9 * past[-4]) / 24


def _reaches(steps: list[Leg], plain_end: bool) -> Iterator[tuple[Leg, float]]:
    """Each step with how far beyond its start x0 is extrapolated, in units of the step before; 0 is not at all."""
    for i, leg in enumerate(steps):
        plain = i == 0 or leg.sigma_ == 0 or (plain_end and i == len(steps) - 1)
        yield leg, 0.0 if plain else leg.length / steps[i - 1].length / 2


def _integrals(levels: list[float], start: float, end: float) -> list[float]:
    """The integral from start to end of each polynomial that is 1 at one of the levels and 0 at the others; exact,
    for Gauss' rule with k points integrates degree 2 k - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(len(levels))
    at = (start + end) / 2 + (end - start) / 2 * nodes
    values = []
    for j, own in enumerate(levels):
        factors = [(at - other) / (own - other) for k, other in enumerate(levels) if k != j]
        values.append(float((end - start) / 2 * (weights * np.prod(factors, axis=0)).sum()))
    return values
