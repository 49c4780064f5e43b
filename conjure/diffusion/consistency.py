"""Few steps learnt from a teacher of many: the student's own short sampler ends where the teacher's long one does.

Legend: B batch; x, end, noise [B, ...] of any medium.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.multistep import dpmpp_2m_steps
from conjure.diffusion.stepping import level

SMALL = 1e-3  # in the unit of x: errors below it no longer steer


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Training loss and sampling of a student that is to draw in `steps` steps of Euler's method what its teacher draws
    in many.

    The teacher's ODE carries each noise to one end. A consistency function answers with this end from everywhere on the
    way (Song et al., arXiv 2303.01469, definition 1); then one step is enough and more change nothing. Here that is
    asked of what is shown: for each number of steps the student draws from the noise, and how far it ends from the
    teacher's end is the loss. Its gradient goes back through all of the student's steps, as in Watson et al., arXiv
    2202.05830, section 3, who learn a sampler's own numbers so. What the first evaluation leaves open, later ones put
    right. The target stands still, so no second student with weights that trail behind is needed.

    The methods are those of `RectifiedFlow`, but that training has no times of its own and starts from `ends`.
    """

    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    """Teacher's and student's path, and what their networks predict."""
    steps: tuple[int, ...] = (1, 2, 4)
    """Numbers of steps that the student learns."""
    solver: int = 6
    """Steps in which the teacher's ODE is solved, by DPM-Solver++(2M), one evaluation each."""

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1 or self.solver < 1:
            raise ConjureError(
                f"a student needs steps and solver of at least 1, got {list(self.steps)} and {self.solver}",
                hint="(1, 2, 4) and 6 are the usual ones",
            )

    @torch.no_grad()
    def ends(self, teacher: Denoiser, noise: Tensor) -> Tensor:
        """Where the teacher's ODE carries the noise; no gradient reaches the teacher."""
        x = self.prior(noise)
        for step in dpmpp_2m_steps(teacher, x, self.sigmas(self.solver)):
            x = step.x
        return x

    def drawn(self, student: Denoiser, noise: Tensor) -> list[Tensor]:
        """What the student draws from the noise, for each number of steps; the first evaluation is shared."""
        x = self.prior(noise)
        first = student(x, level(x, float(self.sigmas(1)[0])))
        return [self._euler(student, x, first, self.sigmas(steps)) for steps in self.steps]

    def loss(self, network: Callable[..., Tensor], end: Tensor, noise: Tensor) -> Tensor:
        """Root mean squared distance of what the student draws from `end`, mean over `steps`, per sample: float32 [B].

        `network(x_t, t_B)` is that of the flow. The root lets samples with large and with small errors, and all numbers
        of steps, pull alike; its slope stays finite at 0 (Song and Dhariwal, arXiv 2310.14189, equation 8).
        """
        made = self.drawn(self.denoise(network), noise)
        off = [(x.float() - end.float()).square().flatten(1).mean(1) for x in made]
        return torch.stack([(off_B + SMALL**2).sqrt() - SMALL for off_B in off]).mean(0)

    def denoise(self, network: Callable[..., Tensor]) -> Denoiser:
        """`network(x_t, t_B, *condition)` as the estimate of x0 that samplers use."""
        return self.flow.denoise(network)

    def sigmas(self, steps: int) -> Tensor:
        """Times of a sampler with that many steps: float64 [steps + 1], those of the flow."""
        return self.flow.sigmas(steps)

    def prior(self, noise: Tensor) -> Tensor:
        """The start of sampling."""
        return self.flow.prior(noise)

    @staticmethod
    def _euler(student: Denoiser, x: Tensor, first: Tensor, sigmas: Tensor) -> Tensor:
        """`one_step.euler_steps` with gradients, and with the first estimate given."""
        for k, (sigma, sigma_) in enumerate(pairwise(sigmas.tolist())):
            x0 = first if k == 0 else student(x, level(x, sigma))
            x = x + (sigma_ - sigma) / sigma * (x - x0)
        return x
