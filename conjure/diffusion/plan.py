"""A plan: everything that is decided before the first step, and the steps themselves.

A published network knows x in one form and is told a timestep of its own; the algorithms of `samplers.py` know noise
levels and an estimate of the data. A plan stands between them: it holds the levels, what the network is told at each
of them, and what its answer means.

Legend: B batch; x [B, C, H, W]; n steps; a, b: x = a * data + b * noise in the coordinates that the network reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from conjure.diffusion.denoiser import Denoiser, column
from conjure.diffusion.stepping import Draw, Step, watched

Predict = Callable[[Tensor, Tensor], Tensor]
"""`predict(x, t_B) -> the network's answer`, with t_B float32 [B] on the network's own clock."""


@dataclass(frozen=True)
class Path:
    """The coordinates in which an algorithm works: x = signal(sigma) * data + sigma * noise."""

    signal: Callable[[Tensor], Tensor]
    norm: Callable[[Tensor], Tensor]
    """x / norm(sigma) is what the network reads."""


EXPLODING = Path(torch.ones_like, lambda sigma: (1 + sigma**2).sqrt())
"""Signal 1, sigma from about 15 to 0; the network reads x with its variance brought back to 1."""
PRESERVING = Path(lambda sigma: (1 - sigma**2).clamp_min(0).sqrt(), torch.ones_like)
"""Signal^2 + sigma^2 = 1."""
STRAIGHT = Path(lambda sigma: 1 - sigma, torch.ones_like)
"""Signal + sigma = 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Sampling of a published network with a number of steps, from noise or from a picture with noise."""

    algorithm: Callable[..., Iterator[Step]]
    path: Path
    levels: Tensor
    """What `algorithm` gets as its noise levels: float64."""
    asked: Tensor
    """The levels at which the network is asked, float64 [m]."""
    timesteps: Tensor
    """What it is told at each of them, float32 [m]."""
    predicts: str
    """What the answer means: "epsilon", "v", "sample" or "flow"."""
    count: int
    """Steps that `steps` yields."""
    evaluations: int
    """Calls of the network."""
    spread: float
    """Standard deviation of the noise that sampling starts from."""
    unit: bool = False
    """Whether latents are shown with their variance brought back to 1, though the path's explode."""
    clip: float = math.inf
    boundary: float = 0.0
    """Consistency models: the scale of the clock that blends x into the answer near the data; 0 is none."""

    def prior(self, noise: Tensor) -> Tensor:
        """The start from nothing: standard normal noise at the spread of the first level."""
        return self.spread * noise

    def noisy(self, x0: Tensor, noise: Tensor) -> Tensor:
        """The start from a picture's latents: with the noise of the plan's first level."""
        signal, sigma = self._start()
        return signal * x0 + sigma * noise

    def steps(
        self,
        predict: Predict,
        x: Tensor,
        noise: Draw | None = None,
        *,
        hold: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Step]:
        """From `prior` or `noisy` to the data: `Step.x` is what is called latents elsewhere, `Step.x0` the estimate.

        `predict` gets x as the network reads it. `noise(shape of one sample)` draws for the samplers that add noise,
        each sample from its own stream. `hold` changes every estimate of the data before it is used, as in-painting
        does to keep what the mask protects. A ConjureError names the step at which x is no longer made of numbers.
        """
        denoise = self._denoiser(predict, x, hold)
        norms = self.path.norm(self.levels).flatten().tolist() if self.unit else [1.0] * (self.count + 1)

        def shown() -> Iterator[Step]:
            for i, step in enumerate(self.algorithm(denoise, x * norms[0], self.levels, noise), start=1):
                yield Step(step.x / norms[i], step.x0) if self.unit else step

        return watched(shown(), self.count)

    def _start(self) -> tuple[float, float]:
        """Signal and sigma of the first level, in the latents' coordinates."""
        first = self.asked[:1]
        norm = self.path.norm(first) if self.unit else torch.ones_like(first)
        return float(self.path.signal(first) / norm), float(first / norm)

    def _denoiser(self, predict: Predict, x: Tensor, hold: Callable[[Tensor], Tensor] | None) -> Denoiser:
        norm = self.path.norm(self.asked)
        norms, a, b = (v.to(x) for v in (norm, self.path.signal(self.asked) / norm, self.asked / norm))
        levels, timesteps = self.asked.to(x), self.timesteps.to(x.device)

        def estimate(x: Tensor, sigma_B: Tensor) -> Tensor:
            at_B = (levels - sigma_B[:, None]).abs().argmin(1)
            read = x / column(norms[at_B], x)
            out = predict(read, timesteps[at_B]).to(x.dtype)
            if out.shape[1] == 2 * x.shape[1]:
                out = out.chunk(2, 1)[0]  # a network that also predicts its variance, which no sampler here uses
            x0 = data_from(self.predicts, read, out, column(a[at_B], x), column(b[at_B], x))
            x0 = x0.clamp(-self.clip, self.clip) if self.clip < math.inf else x0
            if self.boundary:
                clock = column(timesteps[at_B], x) * (2 * self.boundary)
                x0 = (clock * (clock**2 + 1).rsqrt()) * x0 + read / (clock**2 + 1)
            return x0 if hold is None else hold(x0)

        return Denoiser(estimate, self.path.signal)


def data_from(predicts: str, x: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The estimate of the data from the network's answer `out` to x = a * data + b * noise.

    epsilon: the noise. v: a * noise - b * data (Salimans and Ho, arXiv 2202.00512, appendix D). sample: the data.
    flow: noise - data, where a + b = 1.
    """
    if predicts == "sample":
        return out
    if predicts == "epsilon":
        return (x - b * out) / a
    return (a * x if predicts == "v" else x) - b * out
