"""Samplers that remember nothing from one step to the next.

Legend: as in `samplers.py`; `old` is the noise in x as the estimate has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.stepping import Draw, Step, legs, level, needed


def euler_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """Euler's method on dx/dsigma = (x - x0)/sigma, first order.

    Karras et al., arXiv 2206.00364, algorithm 1 without its second half; on a path whose signal is linear in
    sigma it equals DDIM with eta = 0, Song et al., arXiv 2010.02502, equation 12.
    """
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        x = x + (leg.sigma_ - leg.sigma) / leg.sigma * (x - x0)
        yield Step(x, x0)


def heun_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """Heun's method, second order: the slope is the mean of those at both ends; plain Euler where sigma_ is
    0.

    Karras et al., arXiv 2206.00364, algorithm 1 (= algorithm 2 without churn).
    """
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        slope = (x - x0) / leg.sigma
        if leg.sigma_ > 0:
            tried = x + (leg.sigma_ - leg.sigma) * slope
            slope = (slope + (tried - denoise(tried, level(x, leg.sigma_))) / leg.sigma_) / 2
        x = x + (leg.sigma_ - leg.sigma) * slope
        yield Step(x, x0)


def ddim_steps(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    noise: Draw | None = None,
    *,
    eta: float = 0.0,
    clip: float = math.inf,
) -> Iterator[Step]:
    """DDIM: x is taken apart into data and noise, and put together again at the next level, on any path.

    Song et al., arXiv 2010.02502, equations 12 and 16. `eta` between 0 and 1 replaces a part of the noise by a
    fresh one; 1 is the reverse chain of DDPM. `clip` bounds the estimate of the data, but not that of the noise.
    """
    draw = needed(noise, "ddim with eta above 0") if eta > 0 else None
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        old = (x - leg.signal * x0) / leg.sigma
        kept = leg.sigma_ * leg.signal / (leg.signal_ * leg.sigma)
        fresh = eta * math.sqrt(1 - kept**2)
        if clip < math.inf:
            x0 = x0.clamp(-clip, clip)
        x = leg.signal_ * x0 + leg.sigma_ * math.sqrt(1 - fresh**2) * old
        if draw is not None and leg.sigma_ > 0:
            x = x + leg.sigma_ * fresh * draw(x.shape[1:]).to(x)
        yield Step(x, x0)


def euler_ancestral_steps(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None, *, large: bool = False
) -> Iterator[Step]:
    """Ancestral sampling: a step of the reverse Markov chain, with fresh noise of each sample's own stream.

    Ho et al., arXiv 2006.11239, algorithm 2, with the posterior variance of equation 7; that is DDIM with eta
    = 1, arXiv 2010.02502, equation 16. `kept` is the share of the old noise in the new. `large` draws with the
    variance beta of the forward step instead (section 3.2), on a path where signal^2 + sigma^2 = 1.
    """
    draw = needed(noise, "euler_ancestral")
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        kept = leg.sigma_ * leg.signal / (leg.signal_ * leg.sigma)
        old = (x - leg.signal * x0) / leg.sigma
        x = leg.signal_ * x0 + leg.sigma_ * kept * old
        if leg.sigma_ > 0:
            small = leg.sigma_ * math.sqrt(1 - kept**2)
            std = math.sqrt(1 - (leg.signal / leg.signal_) ** 2) if large else small
            x = x + std * draw(x.shape[1:]).to(x)
        yield Step(x, x0)


def lcm_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """Multistep consistency sampling: the estimate itself, with fresh noise of the next level; no old noise is kept.

    Song et al., arXiv 2303.01469, algorithm 1; Luo et al., arXiv 2310.04378, algorithm 3. It is meant for
    networks distilled to answer with the end of the ODE, in 1 to 8 steps.
    """
    draw = needed(noise, "lcm")
    for leg in legs(denoise, sigmas):
        x0 = denoise(x, level(x, leg.sigma))
        x = leg.signal_ * x0
        if leg.sigma_ > 0:
            x = x + leg.sigma_ * draw(x.shape[1:]).to(x)
        yield Step(x, x0)
