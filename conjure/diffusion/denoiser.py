"""What a flow hands to the samplers: an estimate of the clean data, and the path it lives on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def column(values_B: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ...], so that one number per sample broadcasts over `like` [B, ...]."""
    return values_B.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Denoiser:
    """`denoise(x, sigma_B, *condition) -> estimate of x0`, for x = signal(sigma) * x0 + sigma * noise.

    Two paths are in use, and each has its natural coordinates: variance exploding (signal 1, sigma from 80 to
    0; EDM) and straight (signal 1 - sigma, sigma = t from 1 to 0; rectified flow). On both, and for every
    other path whose signal is linear in sigma with signal(0) = 1, the probability-flow ODE reads

        dx / dsigma = (x - denoise(x, sigma)) / sigma,

    so the samplers integrate either one where it lives, pure noise (signal 0) included. Mapping the straight
    path to the variance-exploding one instead would put its start at sigma = infinity. The few samplers that
    need more than the ODE (ancestral noise, steps in log-SNR) read `signal`, which therefore travels with the
    function: it cannot be forgotten, and a task need not know which flow it uses.
    """

    estimate: Callable[..., Tensor]
    signal: Callable[[Tensor], Tensor] = torch.ones_like

    def __call__(self, x: Tensor, sigma_B: Tensor, *condition: Tensor) -> Tensor:
        return self.estimate(x, sigma_B, *condition)
