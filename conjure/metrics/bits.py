"""Likelihood of generators that have latents or codes: bounds in nats, bits per dimension, how a codebook is used.

Legend: K samples of the latent for one picture, N pictures, C codes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def importance_bound(log_weights_KN: Tensor) -> Tensor:
    """log 1/K sum_k w_k, float `[N]`: a lower bound on log p(x), for w_k = p(x, z_k) / q(z_k | x) and z_k from q.

    Its mean over draws rises with K towards log p(x); with K = 1 it is the ELBO (Burda et al. 2015, arXiv 1509.00519,
    theorem 1).
    """
    return torch.logsumexp(log_weights_KN, 0) - math.log(log_weights_KN.shape[0])


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Negative log-likelihood of one picture of so many values (height x width x channels), in bits a value."""
    return nats / (dimensions * math.log(2))


class Usage(NamedTuple):
    """How a codebook is used: codes that occur at all, and exp(entropy) of how often each does, at most C."""

    used: int
    perplexity: float


def code_usage(counts_C: Tensor) -> Usage:
    """`counts_C` says how often each code occurred; at least one did."""
    share_C = counts_C.double() / counts_C.sum()
    entropy = -torch.special.xlogy(share_C, share_C).sum()
    return Usage(int((counts_C > 0).sum()), float(entropy.exp()))


def logistic_nats(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """-log of the probability that a logistic distribution gives to each value of eight bits, float32 like `x`.

    `x` is value / 127.5 - 1; a value has the mass between its two borders, 0 and 255 all beyond (Kingma et al. 2016,
    arXiv 1606.04934; Salimans et al. 2017, arXiv 1701.05517, section 2.1). Written so that no small difference of two
    large numbers is taken: s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s being the logistic function.
    """
    x, mean, log_scale = x.float(), mean.float(), log_scale.float()
    precision = torch.exp(-log_scale)
    upper, lower = (x + 1 / 255 - mean) * precision, (x - 1 / 255 - mean) * precision
    below, above = torch.nn.functional.logsigmoid(upper), torch.nn.functional.logsigmoid(-lower)
    inside = below + above + torch.log(-torch.expm1(-2 / 255 * precision))
    return -torch.where(x < -0.999, below, torch.where(x > 0.999, above, inside))
