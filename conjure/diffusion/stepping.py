"""What all samplers share: the step they yield, the noise they draw, and the coordinates of a step.

Legend: x [B, ...]; sigmas [n + 1] descending; log-SNR = log(signal / sigma).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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


class Leg(NamedTuple):
    """One step between two noise levels, in plain numbers; those with `_` are of its end."""

    sigma: float
    sigma_: float
    signal: float
    signal_: float

    @property
    def length(self) -> float:
        """The step in log-SNR: infinite from pure noise (signal 0) and to clean data (sigma_ 0)."""
        return log_snr(self.signal_, self.sigma_) - log_snr(self.signal, self.sigma)


def legs(denoise: Denoiser, sigmas: Tensor) -> list[Leg]:
    """The steps of a list of levels [n + 1], or of pairs [n, 2] (from, to) where a schedule starts a step at
    another level than the last one ended at."""
    signals = denoise.signal(sigmas)
    if sigmas.dim() == 2:
        return [Leg(*pair, *of) for pair, of in zip(sigmas.tolist(), signals.tolist(), strict=True)]
    return [Leg(*pair, *of) for pair, of in zip(pairwise(sigmas.tolist()), pairwise(signals.tolist()), strict=True)]


def log_snr(signal: float, sigma: float) -> float:
    if signal == 0:
        return -math.inf
    return math.log(signal / sigma) if sigma > 0 else math.inf


def level(x: Tensor, sigma: float) -> Tensor:
    """One level for every sample: [B]."""
    return torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)


def needed(noise: Draw | None, sampler: str) -> Draw:
    """The source of noise of a sampler that cannot do without."""
    if noise is None:
        raise ConjureError(
            f"the sampler {sampler} draws noise at every step, but got none to draw from",
            hint="pass noise=Noise(seeds)",
        )
    return noise


def watched(steps: Iterator[Step], count: int) -> Iterator[Step]:
    """The same steps, stopped with a ConjureError at the first whose state is not made of numbers."""
    for number, step in enumerate(steps, start=1):
        if not torch.isfinite(step.x).all():
            what = "NaN" if torch.isnan(step.x).any() else "infinite"
            raise ConjureError(
                f"the latents became {what} at step {number} of {count}",
                hint="half precision overflows in some networks: use float32 (--dtype float32); "
                "if it is float32 already, the weights do not fit this sampler or are damaged",
            )
        yield step
