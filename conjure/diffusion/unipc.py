"""UniPC: a predictor whose next evaluation also corrects the step it has just made.

Legend: x [B, ...]; h length of a step in log-SNR; m estimates of the data, newest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from torch import Tensor

from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.stepping import Draw, Leg, Step, legs, level


def unipc_steps(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    noise: Draw | None = None,
    *,
    order: int = 2,
    kind: Literal["bh1", "bh2"] = "bh2",
    falling: bool = True,
) -> Iterator[Step]:
    """UniPC of that order, one evaluation a step: UniP predicts; UniC, with the estimate at the predicted point,
    corrects.

    Zhao et al., arXiv 2302.04867, algorithms 1 and 2 in the data-prediction form. `kind` is the paper's B(h): h or
    e^h - 1. `falling` lowers the order over the last steps, so that the last one is of first order.
    """
    steps = legs(denoise, sigmas)
    estimates: list[Tensor] = []
    start = x
    used = 0
    for i, leg in enumerate(steps):
        x0 = denoise(x, level(x, leg.sigma))
        if used:
            x = _moved(start, steps[:i][::-1], estimates, used, kind, at_end=x0)
        estimates = [x0, *estimates[: order - 1]]
        used = min(order, i + 1, len(steps) - i if falling else order)
        if leg.sigma_ in (0, leg.sigma):
            used = 1
        start = x
        x = _moved(start, steps[: i + 1][::-1], estimates, used, kind)
        yield Step(x, x0)


def _moved(
    x: Tensor, back: list[Leg], m: list[Tensor], order: int, kind: str, at_end: Tensor | None = None
) -> Tensor:
    """x carried over the step back[0], whose start has the estimate m[0]; equation 3 with the weights of theorem 3.1.

    `back` are this step and those before it; `at_end`, the estimate at the end, makes it the corrector.
    """
    leg = back[0]
    h = leg.length
    grown = math.expm1(-h)
    scale = -h if kind == "bh1" and h < math.inf else grown
    # Where an earlier estimate lies, in steps; one at pure noise is infinitely far away and says nothing here.
    places = [-sum(one.length for one in back[1 : k + 1]) / h for k in range(1, order)]
    known = [(place, m[k]) for k, place in enumerate(places, start=1) if place > -math.inf]
    differences = [(estimate - m[0]) / place for place, estimate in known]
    if at_end is not None:
        differences.append(at_end - m[0])
    moved = leg.sigma_ / leg.sigma * x - leg.signal_ * grown * m[0]
    weights = _weights([place for place, _ in known], h, scale, corrects=at_end is not None)
    for weight, difference in zip(weights, differences, strict=True):
        moved = moved - leg.signal_ * scale * weight * difference
    return moved


def _weights(places: list[float], h: float, scale: float, corrects: bool) -> list[float]:
    """rho of equation 6: what each difference counts. The first orders are 1/2, as the authors take them."""
    count = len(places) + corrects
    if count == 0:
        return []
    if count == 1:
        return [0.5]
    at = np.array([*places, 1.0][:count])
    phi, factorial = math.expm1(-h) / -h - 1, 1
    right = []
    for k in range(1, count + 1):
        right.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    return np.linalg.solve(np.vander(at, count, increasing=True).T, np.array(right)).tolist()
