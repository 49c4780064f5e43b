"""Samplers: pure functions from noise to data, blind to the medium and to what `denoise` is.

Each is called as `sampler(denoise, x, sigmas, *, noise=None, on_step=None) -> x0`, or step by step as
`for x, x0 in sampler.steps(denoise, x, sigmas, noise)`, which a caller may leave at any step.
`denoiser.py` says in which coordinates they work and why the same code serves every flow. The algorithms are in
`one_step.py`, `multistep.py` and `unipc.py`.

Legend: x [B, ...] float32 or float64, the state at sigmas[0] on entry; x0 [B, ...] the current estimate of
the data; sigmas [steps + 1] descending, usually to 0. In formulas sigma, signal are of this step, sigma_,
signal_ of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.multistep import dpmpp_2m_sde_steps, dpmpp_2m_steps, lms_steps, pndm_steps
from conjure.diffusion.one_step import ddim_steps, euler_ancestral_steps, euler_steps, heun_steps, lcm_steps
from conjure.diffusion.stepping import Draw, Step, watched
from conjure.diffusion.unipc import unipc_steps

__all__ = ["SAMPLERS", "Draw", "Sampler", "Step", "dpmpp_2m", "euler", "euler_ancestral", "heun", "unipc"]


@dataclass(frozen=True)
class Sampler:
    """An algorithm and what it costs."""

    algorithm: Callable[..., Iterator[Step]]
    """`algorithm(denoise, x, sigmas, noise=None)`: one step at a time."""
    evaluations: Callable[[int], int]
    """Calls of `denoise` for a number of steps that ends at sigma 0."""

    def steps(self, denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: Draw | None = None) -> Iterator[Step]:
        """One step at a time; a ConjureError names the first step whose state holds NaN or infinity."""
        return watched(self.algorithm(denoise, x, sigmas, noise), len(sigmas) - 1)

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


def _each(steps: int) -> int:
    return steps


euler = Sampler(euler_steps, evaluations=_each)
heun = Sampler(heun_steps, evaluations=lambda steps: 2 * steps - 1)
dpmpp_2m = Sampler(dpmpp_2m_steps, evaluations=_each)
euler_ancestral = Sampler(euler_ancestral_steps, evaluations=_each)
unipc = Sampler(unipc_steps, evaluations=_each)

SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
    "lms": Sampler(lms_steps, evaluations=_each),
    "pndm": Sampler(pndm_steps, evaluations=lambda steps: steps + (steps > 1)),
    "ddim": Sampler(ddim_steps, evaluations=_each),
    "euler_ancestral": euler_ancestral,
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde_steps, evaluations=_each),
    "ddpm": Sampler(euler_ancestral_steps, evaluations=_each),
    "lcm": Sampler(lcm_steps, evaluations=_each),
}
