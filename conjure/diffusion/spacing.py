"""Noise levels: how much noise a diffusion model knew at each training step, and which of them a sampler visits.

Legend: T training steps, n sampling steps; alpha_bar [T] share of the data's variance left at each step; sigma =
sqrt((1 - alpha_bar) / alpha_bar), the noise beside data of unit scale; t a training step, 0 (nearly clean) to T - 1.

Tables are made in float32, as those that published checkpoints were trained and are sampled with; what follows
from them is computed in float64.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError, suggest

Betas = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
Spacing = Literal["linspace", "leading", "trailing"]

FAINT = 2.0**-24
"""What stands for an alpha_bar of 0 where its square root divides: noise 4096 times the data."""


def betas_of(kind: Betas, start: float, end: float, count: int) -> Tensor:
    """The variance of the noise that each training step adds: float32 [T].

    linear: Ho et al., arXiv 2006.11239, section 4. scaled_linear, even in sqrt(beta): Rombach et al., arXiv
    2112.10752. squaredcos_cap_v2, alpha_bar a squared cosine: Nichol and Dhariwal, arXiv 2102.09672, equation 17;
    start and end do not matter there.
    """
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float32)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    if kind == "squaredcos_cap_v2":
        left = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(left)], dtype=torch.float32)
    known = ("linear", "scaled_linear", "squaredcos_cap_v2")
    raise ConjureError(f"unknown schedule of betas '{kind}'", hint=suggest(kind, known))


def zero_terminal(betas_T: Tensor) -> Tensor:
    """Betas after which nothing of the data is left: sqrt(alpha_bar) shifted and scaled so that its last value is 0.

    Lin et al., arXiv 2305.08891, algorithm 1.
    """
    root_T = torch.cumprod(1 - betas_T, 0).sqrt()
    first, last = root_T[0].clone(), root_T[-1].clone()
    alpha_bar_T = ((root_T - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([alpha_bar_T[:1], alpha_bar_T[1:] / alpha_bar_T[:-1]])


def alpha_bars(betas_T: Tensor) -> Tensor:
    """Share of the data's variance left after each step: float32 [T]."""
    return torch.cumprod(1 - betas_T, 0)


def sigmas_of(alpha_bar_T: Tensor) -> np.ndarray:
    """alpha_bar -> sigma, float32 [T]; an alpha_bar of 0 counts as `FAINT`."""
    some_T = torch.where(alpha_bar_T == 0, FAINT, alpha_bar_T)
    return (((1 - some_T) / some_T) ** 0.5).numpy()


def spaced(kind: Spacing, steps: int, count: int, *, offset: int = 0, inner: bool = False) -> np.ndarray:
    """Training steps that a sampler visits: float64 [n], descending.

    Lin et al., arXiv 2305.08891, table 2. linspace: both ends. leading: multiples of T // n, plus `offset`, which
    never reaches the last step. trailing: from the last step, every T / n. `inner` asks for n + 1 places and leaves
    out the lowest, for solvers whose last step ends at a level of its own. linspace is not rounded to whole steps.
    """
    if not 1 <= steps <= count:
        raise ConjureError(
            f"a schedule of {count} training steps has no {steps} sampling steps", hint=f"use 1 to {count} steps"
        )
    places = steps + inner
    if kind == "linspace":
        return np.linspace(0, count - 1, places)[::-1][:steps]
    if kind == "leading":
        return (np.arange(places) * (count // places))[::-1][:steps].astype(np.float64) + offset
    if kind == "trailing":
        return np.round(np.arange(count, 0, -(count / steps)))[:steps] - 1
    raise ConjureError(
        f"unknown spacing of timesteps '{kind}'", hint=suggest(kind, ("linspace", "leading", "trailing"))
    )


def karras(highest: float, lowest: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Levels even in sigma^(1/rho), float64 [n]: Karras et al., arXiv 2206.00364, equation 5."""
    ramp = np.linspace(0, 1, steps)
    top, bottom = highest ** (1 / rho), lowest ** (1 / rho)
    return (top + ramp * (bottom - top)) ** rho


def exponential(highest: float, lowest: float, steps: int) -> np.ndarray:
    """Levels even in log sigma, float64 [n]."""
    return np.exp(np.linspace(math.log(highest), math.log(lowest), steps))


def steps_at(sigmas: np.ndarray, table_T: np.ndarray) -> np.ndarray:
    """The (fractional) training steps of given levels, straight in log sigma between those of the table: float64."""
    log_T = np.log(table_T).astype(np.float64)
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), log_T, np.arange(len(table_T)))


def shifted(sigmas: np.ndarray, factor: float) -> np.ndarray:
    """Flow levels moved towards noise, s -> k s / (1 + (k - 1) s): Esser et al., arXiv 2403.03206, section 5.3.2."""
    return factor * sigmas / (1 + (factor - 1) * sigmas)


def dynamic_shift(tokens: int, *, base: float, most: float, base_tokens: int, most_tokens: int) -> float:
    """mu of Flux, straight in the number of picture tokens; the shift is exp(mu)."""
    slope = (most - base) / (most_tokens - base_tokens)
    return tokens * slope + base - slope * base_tokens


def stretched(sigmas: np.ndarray, last: float) -> np.ndarray:
    """Flow levels scaled, as seen from noise, so that the last one is `last`."""
    return 1 - (1 - sigmas) * (1 - last) / (1 - sigmas[-1])
