"""Gaussian data N(MEAN, SPREAD^2): the flow's denoiser, ODE and losses have closed forms (Karras et al.,
appendix B.3).

On a path x = signal x0 + sigma noise, x is Gaussian with mean signal MEAN and variance signal^2 SPREAD^2 +
sigma^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conjure.diffusion.denoiser import Denoiser, column
from conjure.diffusion.discrete import DiscreteFlow
from conjure.diffusion.edm import EDM
from conjure.diffusion.flow import RectifiedFlow

MEAN, SPREAD = 0.7, 0.6
FLOW = RectifiedFlow()
EDM_FLOW = EDM()
DISCRETE = DiscreteFlow()


def velocity(x: Tensor, t_B: Tensor) -> Tensor:
    """The best network for `RectifiedFlow`: E[noise - x0 | x_t]."""
    t = column(t_B, x)
    signal = 1 - t
    share = 1 / (signal**2 * SPREAD**2 + t**2)
    return (t - signal * SPREAD**2) * share * (x - signal * MEAN) - MEAN


def preconditioned(x_in: Tensor, c_noise_B: Tensor) -> Tensor:
    """The best network for `EDM`: (E[x0 | x] - c_skip x) / c_out, of the scaled x it is given."""
    sigma_B = (4 * c_noise_B).exp()
    c_skip, c_out, c_in, _ = (column(c, x_in) for c in EDM_FLOW.scalings(sigma_B))
    sigma = column(sigma_B, x_in)
    x = x_in / c_in
    x0 = (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)
    return (x0 - c_skip * x) / c_out


def noise_of(x: Tensor, t_B: Tensor) -> Tensor:
    """The best network for `DiscreteFlow` at whole training steps: E[noise | x_t]."""
    alpha_bar = column(DISCRETE.alpha_bar_T[t_B.long()], x)
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * MEAN) / variance


def width(denoise: Denoiser, sigma: float) -> float:
    signal = float(denoise.signal(torch.tensor(sigma, dtype=torch.float64)))
    return (signal**2 * SPREAD**2 + sigma**2) ** 0.5


def carried(denoise: Denoiser, x: Tensor, start: float, end: float) -> Tensor:
    """The solution of the probability-flow ODE: x keeps its place in units of the spread."""
    at = torch.tensor([start, end], dtype=torch.float64)
    mean, mean_ = (denoise.signal(at) * MEAN).tolist()
    return mean_ + (x - mean) * (width(denoise, end) / width(denoise, start))
