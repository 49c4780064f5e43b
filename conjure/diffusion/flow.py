"""Rectified flow: data and noise joined by straight lines.

Legend: B batch; x, x0, noise [B, ...] of any medium; t_B in [0, 1], 0 is data and 1 is noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.diffusion.denoiser import Denoiser, column


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow:
    """Training loss and sampling of one flow, x_t = (1 - t) x0 + t noise.

    Liu et al., arXiv 2209.03003; time density and shift after Esser et al. (SD3), arXiv 2403.03206, sections
    3.1 and 5.3.2. The network predicts the velocity noise - x0, or x0 itself (`predict="sample"`), which a
    small network finds easier where the prompt says nearly all; its error is weighted so that the loss stays
    the velocity's, 1 / t^2, but for t below `floor` (Li and He, arXiv 2511.13720). `EDM` offers the same
    methods, so that what uses one can use the other.
    """

    density: Literal["logit_normal", "uniform"] = "logit_normal"
    """Where training looks: logit-normal favours the middle of the path."""
    mean: float = 0.0
    """Mean of logit(t) before the shift; above 0 trains nearer to noise."""
    std: float = 1.0
    """Spread of logit(t)."""
    shift: float = 1.0
    """Moves training and sampling times towards noise, t -> shift t / (1 + (shift - 1) t); 1 changes
    nothing."""

    predict: Literal["velocity", "sample"] = "velocity"
    """What the network's output means."""
    floor: float = 0.1
    """predict = "sample": times below this weigh no more than this one."""

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ConjureError(
                f"a flow needs floor in (0, 1], got {self.floor}", hint="0.1 is the usual value"
            )
        if self.shift <= 0 or self.std <= 0:
            raise ConjureError(
                f"a flow needs shift and std above 0, got shift {self.shift} and std {self.std}",
                hint="1.0 is the usual value of both",
            )

    def time(self, u_B: Tensor) -> Tensor:
        """Uniform numbers in (0, 1) -> training times t_B, float32."""
        t_B = u_B.float().clamp(2**-24, 1 - 2**-24)
        if self.density == "logit_normal":
            t_B = torch.sigmoid(self.mean + self.std * torch.special.ndtri(t_B))
        return self._shifted(t_B)

    def noisy(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """The point at t on the line from x0 to noise."""
        t = column(t_B, x0)
        return (1 - t) * x0 + t * noise

    def loss(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        x0: Tensor,
        noise: Tensor,
        t_B: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity that follows from `network(x_t, t_B)`, per sample: float32 [B].

        `weight`, broadcastable to x0 [B, ...], multiplies the squared error of each element before the mean.
        """
        out = network(self.noisy(x0, noise, t_B), t_B).float()
        if self.predict == "velocity":
            error = (out - (noise - x0).float()).square()
        else:
            error = ((out - x0.float()) / column(t_B.clamp_min(self.floor), x0)).square()
        return (error if weight is None else error * weight).flatten(1).mean(1)

    def denoise(self, network: Callable[..., Tensor]) -> Denoiser:
        """`network(x_t, t_B, *condition)` as the estimate of x0 that samplers use; sigma is t."""

        def estimate(x: Tensor, t_B: Tensor, *condition: Tensor) -> Tensor:
            if self.predict == "sample":
                return network(x, t_B, *condition).to(x.dtype)
            return x - column(t_B, x) * network(x, t_B, *condition).to(x.dtype)

        return Denoiser(estimate, signal=lambda sigma: 1 - sigma)

    def sigmas(self, steps: int) -> Tensor:
        """Times of a sampler with that many steps: float64 [steps + 1] from 1 down to 0, shifted like
        training."""
        return self._shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64))

    def prior(self, noise: Tensor) -> Tensor:
        """The start of sampling, x at sigmas[0] = 1: the noise itself."""
        return noise

    def _shifted(self, t: Tensor) -> Tensor:
        return self.shift * t / (1 + (self.shift - 1) * t)
