"""EDM: a denoiser whose inputs, outputs and targets all have unit variance.

Legend: B batch; x, x0, noise [B, ...] of any medium; sigma_B standard deviation of the noise, 0 is data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.diffusion.denoiser import Denoiser, column


@dataclass(frozen=True, kw_only=True)
class EDM:
    """Training loss and sampling on x = x0 + sigma noise, preconditioned so that the network's task is even.

    Karras et al., arXiv 2206.00364, table 1, column "Ours"; the same methods as `RectifiedFlow`, with sigma
    for t.
    """

    sigma_data: float = 0.5
    """Standard deviation of the data."""
    mean: float = -1.2
    """Mean of ln(sigma) in training."""
    std: float = 1.2
    """Spread of ln(sigma) in training."""
    sigma_min: float = 0.002
    """Last noise level of sampling above 0."""
    sigma_max: float = 80.0
    """First noise level of sampling."""
    rho: float = 7.0
    """How much sampling steps crowd at low noise."""

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max or self.sigma_data <= 0 or self.std <= 0:
            raise ConjureError(
                "EDM needs 0 < sigma_min < sigma_max, sigma_data > 0 and std > 0, got "
                f"{self.sigma_min}, {self.sigma_max}, {self.sigma_data} and {self.std}",
                hint="the paper has 0.002, 80, 0.5 and 1.2",
            )

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise of equation 7: D(x) = c_skip x + c_out network(c_in x, c_noise)."""
        total = sigma**2 + self.sigma_data**2
        c_skip, c_in = self.sigma_data**2 / total, total.rsqrt()
        return c_skip, sigma * self.sigma_data * c_in, c_in, sigma.log() / 4

    def time(self, u_B: Tensor) -> Tensor:
        """Uniform numbers in (0, 1) -> training noise levels sigma_B, log-normal, float32."""
        return (self.mean + self.std * torch.special.ndtri(u_B.float().clamp(2**-24, 1 - 2**-24))).exp()

    def noisy(self, x0: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
        """Data with noise of that level added."""
        return x0 + column(sigma_B, x0) * noise

    def loss(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        x0: Tensor,
        noise: Tensor,
        sigma_B: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Weighted mean squared error of the denoiser, per sample: float32 [B].

        The paper's weight, (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, is 1 / c_out^2, so the loss is
        the plain error of `network(c_in x, c_noise)` against (x0 - c_skip x) / c_out (equation 8). `weight`,
        broadcastable to x0 [B, ...], multiplies the squared error of each element before the mean.
        """
        x = self.noisy(x0, noise, sigma_B)
        c_skip, c_out, c_in, c_noise = self.scalings(sigma_B)
        target = (x0 - column(c_skip, x) * x) / column(c_out, x)
        error = (network(column(c_in, x) * x, c_noise).float() - target.float()).square()
        return (error if weight is None else error * weight).flatten(1).mean(1)

    def denoise(self, network: Callable[..., Tensor]) -> Denoiser:
        """`network(x, c_noise_B, *condition)` as the estimate of x0 that samplers use."""

        def estimate(x: Tensor, sigma_B: Tensor, *condition: Tensor) -> Tensor:
            c_skip, c_out, c_in, c_noise = self.scalings(sigma_B)
            out = network(column(c_in, x) * x, c_noise, *condition).to(x.dtype)
            return column(c_skip, x) * x + column(c_out, x) * out

        return Denoiser(estimate)

    def sigmas(self, steps: int) -> Tensor:
        """Noise levels of a sampler: float64 [steps + 1] from sigma_max to sigma_min, then 0 (equation 5)."""
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        top, bottom = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return torch.cat([(top + ramp * (bottom - top)) ** self.rho, ramp.new_zeros(1)])

    def prior(self, noise: Tensor) -> Tensor:
        """The start of sampling, x at sigmas[0] = sigma_max."""
        return self.sigma_max * noise
