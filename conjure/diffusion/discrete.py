"""DDPM-style diffusion: a fixed number of training steps, each with its own amount of noise.

Legend: B batch; T training steps; x, x0, noise [B, ...] of any medium; t_B training steps 0 (nearly clean) to T - 1;
alpha_bar share of the data's variance left; sigma = sqrt((1 - alpha_bar) / alpha_bar).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.diffusion.denoiser import Denoiser, column
from conjure.diffusion.plan import data_from
from conjure.diffusion.spacing import FAINT, Betas, alpha_bars, betas_of, spaced, steps_at, zero_terminal


@dataclass(frozen=True, kw_only=True)
class DiscreteFlow:
    """Training loss and sampling of x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise; the same methods as
    `RectifiedFlow` and `EDM`.

    Ho et al., arXiv 2006.11239, equations 4 and 14. Sampling happens on x / sqrt(alpha_bar), where every sampler of
    `samplers.py` works and `sigma` is the noise beside data of unit scale.
    """

    betas: Betas = "linear"
    """How the noise grows: `spacing.betas_of`."""
    start: float = 0.0001
    """Variance of the noise that the first training step adds."""
    end: float = 0.02
    """Variance of the noise that the last training step adds."""
    count: int = 1000
    """Number of training steps, T."""
    predict: Literal["epsilon", "v", "sample"] = "epsilon"
    """What the network's output means: the noise, the velocity sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0
    (Salimans and Ho, arXiv 2202.00512), or the data."""
    zero_terminal: bool = False
    """Whether the last training step has no signal left (Lin et al., arXiv 2305.08891); wants "v" or "sample"."""
    min_snr: float = 0.0
    """Above 0 the loss counts the error of x0 with weight min(SNR, this): Hang et al., arXiv 2303.09556; 5 is usual."""
    clock: Literal["step", "share"] = "step"
    """What the network is told: the step 0..T - 1, or its share t / T in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 < self.start < self.end < 1 or self.count < 2 or self.min_snr < 0:
            raise ConjureError(
                "a discrete flow needs 0 < start < end < 1, 2 training steps or more and min_snr of 0 or more, got "
                f"{self.start}, {self.end}, {self.count} and {self.min_snr}",
                hint="the paper has 0.0001, 0.02 and 1000",
            )
        if self.zero_terminal and self.predict == "epsilon":
            raise ConjureError(
                "where no signal is left, the noise says nothing of the data, so epsilon cannot be predicted",
                hint="use predict: v",
            )

    @cached_property
    def alpha_bar_T(self) -> Tensor:
        """float64 [T]; never below 2^-24."""
        betas_T = betas_of(self.betas, self.start, self.end, self.count)
        return alpha_bars(zero_terminal(betas_T) if self.zero_terminal else betas_T).double().clamp_min(FAINT)

    def time(self, u_B: Tensor) -> Tensor:
        """Uniform numbers in [0, 1] -> training steps, float32 whole numbers."""
        return (u_B.double() * self.count).floor().clamp(0, self.count - 1).float()

    def noisy(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """Data at training step t."""
        a_B, b_B = self._mix(t_B)
        return column(a_B, x0) * x0 + column(b_B, x0) * noise

    def loss(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        x0: Tensor,
        noise: Tensor,
        t_B: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of `network(x_t, told_B)`'s answer, per sample: float32 [B].

        `weight`, broadcastable to x0 [B, ...], multiplies the squared error of each element before the mean.
        """
        a_B, b_B = self._mix(t_B)
        a, b = column(a_B, x0), column(b_B, x0)
        target = {"epsilon": noise, "v": a * noise - b * x0, "sample": x0}[self.predict]
        error = (network(a * x0 + b * noise, self._told(t_B)).float() - target.float()).square()
        if self.min_snr > 0:
            snr_B = (a_B / b_B).square()
            of_data_B = {"epsilon": 1 / snr_B, "v": 1 / (snr_B + 1), "sample": torch.ones_like(snr_B)}[self.predict]
            error = error * column(snr_B.clamp_max(self.min_snr) * of_data_B, error)
        return (error if weight is None else error * weight).flatten(1).mean(1)

    def denoise(self, network: Callable[..., Tensor]) -> Denoiser:
        """`network(x_t, told_B, *condition)` as the estimate of x0 that samplers use, for x = x0 + sigma noise.

        Levels between those of training steps are told as steps between, straight in log sigma.
        """
        table_T = self._sigmas()

        def estimate(x: Tensor, sigma_B: Tensor, *condition: Tensor) -> Tensor:
            at = steps_at(sigma_B.detach().cpu().numpy(), table_T)
            told_B = self._told(torch.from_numpy(at)).to(x.device, torch.float32)
            a = column((1 + sigma_B**2).rsqrt(), x)
            b = column(sigma_B, x) * a
            read = a * x
            return data_from(self.predict, read, network(read, told_B, *condition).to(x.dtype), a, b)

        return Denoiser(estimate)

    def sigmas(self, steps: int) -> Tensor:
        """Noise levels of a sampler: float64 [steps + 1], those of evenly spaced training steps from the last one
        down, then 0."""
        visited = spaced("trailing", steps, self.count).round().astype(int)
        return torch.from_numpy(np.append(self._sigmas()[visited], 0.0))

    def prior(self, noise: Tensor) -> Tensor:
        """The start of sampling: noise that the network reads with variance 1, as at the last training step."""
        return (1 + float(self._sigmas()[-1]) ** 2) ** 0.5 * noise

    def _sigmas(self) -> np.ndarray:
        return ((1 - self.alpha_bar_T) / self.alpha_bar_T).sqrt().numpy()

    def _mix(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar_B = self.alpha_bar_T.to(t_B.device)[t_B.long()]
        return alpha_bar_B.sqrt(), (1 - alpha_bar_B).sqrt()

    def _told(self, t_B: Tensor) -> Tensor:
        return t_B if self.clock == "step" else t_B / self.count
