"""Drawing one token per row, each row from its own stream of numbers.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample(logits_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Token ids int64 [B], row b drawn with generators[b]: one number per step, so a row's draws depend
    neither on the batch around it nor on the size of the vocabulary. Tokens at -inf are never drawn."""
    u_B = torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in generators])
    return inverse_cdf(logits_BV, u_B.to(logits_BV.device))


def inverse_cdf(logits_BV: Tensor, u_B: Tensor) -> Tensor:
    """The token in whose stretch of [0, 1), laid out in order of ids, u falls; in float64. int64 [B]."""
    cdf_BV = logits_BV.double().softmax(-1).cumsum(-1)
    # u < 1, so u times the last sum stays below it, rounding included: what is found has probability above 0.
    return torch.searchsorted(cdf_BV, u_B[:, None] * cdf_BV[:, -1:], right=True)[:, 0]
