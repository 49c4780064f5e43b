"""PNDM as latent diffusion checkpoints were released with it: on their training's steps, quirks included.

Legend: x [B, ...] with signal^2 + sigma^2 = 1; e estimated noise, v velocity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.multistep import adams
from conjure.diffusion.stepping import Draw, Step, level


def plms_steps(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None, *, velocity: bool = False
) -> Iterator[Step]:
    """The algorithm of `multistep.pndm_steps` on rows [m, 3] of (level asked at, level from, level to).

    The first row is a trial whose end only serves the second's evaluation, and is not yielded. `velocity`
    extrapolates the velocities of a network that predicts them, and not the noise. Rows come from `plms_rows`.
    """
    past: list[Tensor] = []
    start = x
    signals = denoise.signal(sigmas).tolist()
    for i, (row, of_row) in enumerate(zip(sigmas.tolist(), signals, strict=True)):
        (at, sigma, sigma_), (signal_at, signal, signal_) = row, of_row
        x0 = denoise(x, level(x, at))
        answer = (x - signal_at * x0) / at
        if velocity:
            answer = signal_at * answer - at * x0
        if i == 1:
            combined, x = (answer + past[0]) / 2, start
        else:
            past = [*past[-3:], answer]
            combined = adams(past)
        e = signal * combined + sigma * x if velocity else combined
        x = signal_ / signal * (x - sigma * e) + sigma_ * e
        if i > 0 or len(signals) == 1:
            yield Step(x, x0)


def plms_rows(visited: Sequence[int], stride: int) -> list[tuple[int, int, int]]:
    """Training steps in the order of evaluation -> (asked at, from, to) of each; `to` may be below 0, the data.

    A step goes down by `stride`, also where the next evaluation lies elsewhere; the second evaluation ends the first
    step once more. Started in the middle of the list, as image-to-image does, the second is asked where the first was.
    """
    return [(t, t + stride, t) if i == 1 else (t, t, t - stride) for i, t in enumerate(visited)]
