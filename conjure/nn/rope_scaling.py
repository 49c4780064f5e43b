"""Rotary frequencies for texts longer than those a network was trained on.

Legend: T tokens, R rotated width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from conjure.core.errors import ConjureError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How the frequencies f_i = theta^(-2i/R) change; which numbers are used depends on `kind`.

    linear: f / factor (Chen et al. 2023, arXiv 2306.15595). dynamic: a larger theta beyond `original` tokens. llama3:
    low frequencies over `factor`, high ones as they are, a ramp between. yarn: the same by turns within `original`
    tokens (Peng et al. 2023, arXiv 2309.00071). longrope: a divisor for each pair, others once the text is longer than
    `original` (Ding et al. 2024, arXiv 2402.13753).
    """

    kind: Literal["linear", "dynamic", "llama3", "yarn", "longrope"]
    factor: float = 1.0
    original: int = 0
    """Tokens of the texts it was trained on."""
    gain: float = 1.0
    """cos and sin are multiplied by it."""
    low: float = 1.0
    """llama3: low_freq_factor; yarn: beta_slow."""
    high: float = 4.0
    """llama3: high_freq_factor; yarn: beta_fast."""
    rounded: bool = True
    """yarn: the ends of the ramp are whole numbers."""
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ConjureError(f"rope.scaling.factor: expected above 0, got {self.factor}")
        if self.kind != "linear" and self.original <= 0:
            raise ConjureError(f"rope.scaling.original: expected above 0 for {self.kind}, got {self.original}")


def frequencies(dim: int, theta: float, scaling: RopeScaling | None, positions: Tensor) -> tuple[Tensor, float]:
    """Radians per token of each pair, float32 `[R/2]`, and the gain of cos and sin. `positions` are those to be turned:
    two kinds look at the last of them."""
    pairs = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device)
    if scaling is not None and scaling.kind == "dynamic":
        ratio = scaling.factor * max(_length(positions), scaling.original) / scaling.original - (scaling.factor - 1)
        theta *= ratio ** (dim / (dim - 2))
    plain = 1.0 / theta ** (pairs / dim)
    if scaling is None or scaling.kind == "dynamic":
        return plain, 1.0
    if scaling.kind == "linear":
        return plain / scaling.factor, scaling.gain
    if scaling.kind == "llama3":
        turns = scaling.original * plain / (2 * math.pi)
        smooth = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        return plain / scaling.factor * (1 - smooth) + plain * smooth, scaling.gain
    if scaling.kind == "yarn":
        ramp = _ramp(dim, theta, scaling, pairs)
        return plain / scaling.factor * ramp + plain * (1 - ramp), scaling.gain
    divisors = scaling.long if _length(positions) > scaling.original else scaling.short
    return plain / torch.tensor(divisors, device=positions.device), scaling.gain


def _ramp(dim: int, theta: float, scaling: RopeScaling, pairs: Tensor) -> Tensor:
    """0 for pairs that turn often within `original` tokens, 1 for those that turn seldom (equations 16 to 18)."""

    def pair_with(turns: float) -> float:
        return dim * math.log(scaling.original / (2 * math.pi * turns)) / (2 * math.log(theta))

    low, high = pair_with(scaling.high), pair_with(scaling.low)
    if scaling.rounded:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    return ((pairs / 2 - low) / (high - low if high != low else 1e-3)).clamp(0, 1)


def yarn_gain(factor: float, mscale: float = 1.0) -> float:
    """0.1 mscale ln(factor) + 1: how much cos and sin grow (equation 21)."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def _length(positions: Tensor) -> int:
    return int(positions.max()) + 1
