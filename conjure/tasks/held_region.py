"""Sampling with a part held fixed: what a mask keeps stays what it is, at every noise level on the way.

It knows a denoiser, a sampler, the known data and a mask, and neither pictures nor models.

Legend: B batch; x, x0, known [B, ...], the state, an estimate of the data, the data that are kept; mask broadcastable
to them, 1 where there may be something new, 0 where `known` holds; signal and sigma as in `diffusion/denoiser.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.samplers import Draw, Step

Steps = Callable[..., Iterator[Step]]


def holding(denoise: Denoiser, known: Tensor, mask: Tensor) -> Denoiser:
    """The same denoiser, sure of what is known: its estimate there is `known` itself.

    On paths that are linear in the noise (`Denoiser`) a sampler moves x along the line through its state and the
    estimate. So where x starts as signal * known + sigma * noise it stays that at every level, whichever sampler
    runs: the replacement method (Song et al., arXiv 2011.13456, appendix I.2) with the same noise throughout,
    or, where the sampler adds fresh noise, with that.
    """

    def estimate(x: Tensor, sigma_B: Tensor, *condition: Tensor) -> Tensor:
        return mask * denoise(x, sigma_B, *condition) + (1 - mask) * known

    return replace(denoise, estimate=estimate)


def held_steps(
    steps: Steps, denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw, *,
    known: Tensor, mask: Tensor, guess: Tensor | float = 0.0, repeats: int = 1,
) -> Iterator[Step]:  # fmt: skip
    """`steps(denoise, x, sigmas, noise)` with the known part held; at the end x is `known` there.

    `x` is noise of size sigmas[0], as `flow.prior` gives it; what is known is added to it, and where something new may
    be the sampler starts from `guess`, which matters the more the lower sigmas[0] is. `repeats` above 1 does every
    step so often, going back between with fresh noise, so that the new part can come to terms with the known one
    (RePaint, Lugmayr et al., arXiv 2201.09865, algorithm 1 with jumps of one step); samplers that remember their last
    step then forget it.
    """
    held = holding(denoise, known, mask)
    x = x + float(denoise.signal(sigmas[:1])) * ((1 - mask) * known + mask * guess)
    if repeats == 1:
        yield from steps(held, x, sigmas, noise)
        return
    for n in range(len(sigmas) - 1):
        levels = sigmas[n : n + 2]
        (step,) = steps(held, x, levels, noise)
        for _ in range(repeats - 1):
            (step,) = steps(held, noised(denoise, step.x, levels[1], levels[0], noise), levels, noise)
        x = step.x
        yield step


def noised(denoise: Denoiser, x: Tensor, low: Tensor, high: Tensor, noise: Draw) -> Tensor:
    """From noise level `low` up to `high`: as if the clean data had been noised to `high` at once."""
    signal = denoise.signal(low), denoise.signal(high)
    kept = float(signal[1] / signal[0])
    added = math.sqrt(max(0.0, float(high) ** 2 - (kept * float(low)) ** 2))
    return kept * x + added * noise(x.shape[1:]).to(x)
