"""Rational-quadratic splines: functions that only rise, through knots that a network chooses, with an exact inverse.

Durkan et al. 2019, Neural Spline Flows, arXiv 1906.04032, section 3 and A.1.

Legend: K bins; any shape in front.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-3
"""Of the width and height of a bin, as a share of the interval, and of a slope."""


def inverse(y: Tensor, told: Tensor, bound: float) -> Tensor:
    """The x at which the spline is y.

    `told` `[..., 3 K - 1]` are K logits of widths, K of heights and K - 1 slopes before their softplus; `y` `[...]`.
    The spline goes from -bound to bound both ways with slope 1 at its ends, and is the identity outside.
    """
    K = (told.shape[-1] + 1) // 3
    x_knots, widths = _knots(told[..., :K], bound)
    y_knots, heights = _knots(told[..., K : 2 * K], bound)
    one = math.log(math.exp(1 - LEAST) - 1)  # what softplus makes a slope of 1
    slopes = LEAST + F.softplus(F.pad(told[..., 2 * K :], (1, 1), value=one))

    inside = y.clamp(-bound, bound)
    at = ((inside[..., None] >= y_knots[..., :-1]).sum(-1, keepdim=True) - 1).clamp(0, K - 1)

    def here(values: Tensor) -> Tensor:
        return values.gather(-1, at)[..., 0]

    width, height, slope, next_slope = here(widths), here(heights), here(slopes), here(slopes[..., 1:])
    mean = height / width
    up = inside - here(y_knots)
    bend = up * (slope + next_slope - 2 * mean)
    a, b, c = height * (mean - slope) + bend, height * slope - bend, -mean * up
    root = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
    return torch.where((y >= -bound) & (y <= bound), root * width + here(x_knots), y)


def _knots(logits: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """(K + 1 places from -bound to bound, the K distances between them)."""
    shares = LEAST + (1 - LEAST * logits.shape[-1]) * logits.softmax(-1)
    places = F.pad(shares.cumsum(-1), (1, 0)) * (2 * bound) - bound
    places[..., -1] = bound
    return places, places.diff(dim=-1)
