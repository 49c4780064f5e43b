"""Samplers: pure functions from noise to data, blind to the medium and to what `denoise` is.

Each is called as `sampler(denoise, x, sigmas, *, noise=None, on_step=None) -> x0`, or step by step as
`for x, x0 in sampler.steps(denoise, x, sigmas, noise)`, which a caller may leave at any step.
`denoiser.py` says in which coordinates they work and why the same code serves every flow.

Legend: x [B, ...] float32 or float64, the state at sigmas[0] on entry; x0 [B, ...] the current estimate of
the data; sigmas [steps + 1] descending, usually to 0. In formulas sigma, signal are of this step, sigma_,
signal_ of the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.diffusion.denoiser import Denoiser

Draw = Callable[[Sequence[int]], Tensor]
"""Fresh noise for the shape of one sample: `noise(x.shape[1:]) -> [B, ...]`, as `core.seeds.Noise` gives
it."""


class Step(NamedTuple):
    """After one step: the state `x` at the next noise level, and the estimate `x0` of the data (for
    previews)."""

    x: Tensor
    x0: Tensor


@dataclass(frozen=True)
class Sampler:
    """An algorithm and what it costs."""

    steps: Callable[..., Iterator[Step]]
    """`steps(denoise, x, sigmas, noise=None)`: the same, one step at a time."""
    evaluations: Callable[[int], int]
    """Calls of `denoise` for a number of steps that ends at sigma 0."""

    def __call__(
        self,
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: Draw | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """All steps; `on_step(number, x0)` after each, counted from 1. Returns x at sigmas[-1]."""
        for number, step in enumerate(self.steps(denoise, x, sigmas, noise), start=1):
            x = step.x
            if on_step is not None:
                on_step(number, step.x0)
        return x


def euler_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """Euler's method on dx/dsigma = (x - x0)/sigma, first order.

    Karras et al., arXiv 2206.00364, algorithm 1 without its second half; on either path it equals DDIM with
    eta = 0, Song et al., arXiv 2010.02502, equation 12.
    """
    for sigma, sigma_ in _pairs(sigmas):
        x0 = denoise(x, _fill(x, sigma))
        x = x + (sigma_ - sigma) / sigma * (x - x0)
        yield Step(x, x0)


def heun_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """Heun's method, second order: the slope is the mean of those at both ends; plain Euler where sigma_ is
    0.

    Karras et al., arXiv 2206.00364, algorithm 1 (= algorithm 2 without churn).
    """
    for sigma, sigma_ in _pairs(sigmas):
        x0 = denoise(x, _fill(x, sigma))
        slope = (x - x0) / sigma
        if sigma_ > 0:
            tried = x + (sigma_ - sigma) * slope
            slope = (slope + (tried - denoise(tried, _fill(x, sigma_))) / sigma_) / 2
        x = x + (sigma_ - sigma) * slope
        yield Step(x, x0)


def dpmpp_2m_steps(denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
    """DPM-Solver++(2M), second order: x0 is extrapolated to the middle of the step in log-SNR.

    Lu et al., arXiv 2211.01095, algorithm 2. Steps from pure noise (signal 0) and to clean data (sigma 0) are
    infinitely long in log-SNR: there the extrapolation vanishes, or is left out, and the step is of first
    order.
    """
    signals = denoise.signal(sigmas).tolist()
    log_snr = [_log_ratio(signal, sigma) for signal, sigma in zip(signals, sigmas.tolist(), strict=True)]
    before: Tensor | None = None
    for i, (sigma, sigma_) in enumerate(_pairs(sigmas)):
        x0 = denoise(x, _fill(x, sigma))
        target = x0
        if before is not None and sigma_ > 0:
            target = x0 + (log_snr[i + 1] - log_snr[i]) / (log_snr[i] - log_snr[i - 1]) / 2 * (x0 - before)
        x = target + sigma_ / sigma * (x - target)
        before = x0
        yield Step(x, x0)


def euler_ancestral_steps(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None
) -> Iterator[Step]:
    """Ancestral sampling: a step of the reverse Markov chain, with fresh noise of each sample's own stream.

    Ho et al., arXiv 2006.11239, algorithm 2, with the posterior variance of equation 7; that is DDIM with eta
    = 1, arXiv 2010.02502, equation 16. `kept` is the share of the old noise in the new.
    """
    if noise is None:
        raise ConjureError(
            "the sampler euler_ancestral draws noise at every step, but got none to draw from",
            hint="pass noise=Noise(seeds)",
        )
    signals = denoise.signal(sigmas).tolist()
    for i, (sigma, sigma_) in enumerate(_pairs(sigmas)):
        signal, signal_ = signals[i], signals[i + 1]
        x0 = denoise(x, _fill(x, sigma))
        kept = sigma_ * signal / (signal_ * sigma)
        old = (x - signal * x0) / sigma
        x = signal_ * x0 + sigma_ * kept * old
        if sigma_ > 0:
            x = x + sigma_ * math.sqrt(1 - kept**2) * noise(x.shape[1:]).to(x)
        yield Step(x, x0)


euler = Sampler(euler_steps, evaluations=lambda steps: steps)
heun = Sampler(heun_steps, evaluations=lambda steps: 2 * steps - 1)
dpmpp_2m = Sampler(dpmpp_2m_steps, evaluations=lambda steps: steps)
euler_ancestral = Sampler(euler_ancestral_steps, evaluations=lambda steps: steps)

SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "euler_ancestral": euler_ancestral,
}


def _pairs(sigmas: Tensor) -> Iterator[tuple[float, float]]:
    return pairwise(sigmas.tolist())


def _fill(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)


def _log_ratio(signal: float, sigma: float) -> float:
    if signal == 0:
        return -math.inf
    return math.log(signal / sigma) if sigma > 0 else math.inf
