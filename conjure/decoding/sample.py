"""Drawing one token per row, each row from its own stream of numbers.

Legend: B rows, V vocabulary, N blocks of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256


def best(logits_BV: Tensor) -> tuple[list[int], list[float]]:
    """The most likely token of each row, of equals the lowest, and its logit; the first NaN, where there is one."""
    if logits_BV.device.type != "cpu" or logits_BV.dtype != torch.float32:
        top_B1, index_B1 = logits_BV.max(-1, keepdim=True)
        return index_B1[:, 0].tolist(), top_B1[:, 0].tolist()
    # numpy looks through a row several times as fast as torch does on the CPU.
    rows = logits_BV.detach().numpy()
    tokens = [int(row.argmax()) for row in rows]
    return tokens, [float(row[token]) for row, token in zip(rows, tokens)]


def draw(
    logits_V: np.ndarray, u: float, *, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> int:
    """The token that `inverse_cdf` finds after `filters.filtered`, for one float32 row on the CPU, in a fraction of the
    time: what is left after each filter is a short list of ids, and only that is sorted."""
    weights_V = np.exp((logits_V - logits_V.max()) / np.float32(temperature))
    ids = None
    if 0 < top_k < len(logits_V):
        least = np.partition(logits_V, len(logits_V) - top_k)[len(logits_V) - top_k]
        ids = np.flatnonzero(logits_V >= least)
        if len(ids) > top_k:  # of equals at the border the lower ids stay
            ids = np.sort(ids[np.argsort(-logits_V[ids], kind="stable")[:top_k]])
    if top_p < 1:
        kept_N = weights_V if ids is None else weights_V[ids]
        total = float(kept_N.sum(dtype=np.float64))
        # Tokens below this hold less than 1 - top_p together, so the nucleus is among the others.
        few = np.flatnonzero(kept_N >= min(1.0, (1 - top_p) * total / len(kept_N)))
        order = few[np.argsort(-kept_N[few], kind="stable")]
        before = np.cumsum(kept_N[order], dtype=np.float64) - kept_N[order]
        inside = np.sort(order[: max(1, int(np.searchsorted(before, top_p * total)))])
        ids = inside if ids is None else ids[inside]
    if min_p > 0:
        likely = np.flatnonzero((weights_V if ids is None else weights_V[ids]) >= np.float32(min_p))
        ids = likely if ids is None else ids[likely]
    cdf_N = np.cumsum(weights_V if ids is None else weights_V[ids], dtype=np.float64)
    place = int(np.searchsorted(cdf_N, u * cdf_N[-1], side="right"))
    return place if ids is None else int(ids[place])


def sample(logits_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Token ids int64 [B], row b drawn with generators[b]: one number per step, so a row's draws depend
    neither on the batch around it nor on the size of the vocabulary. Tokens at -inf are never drawn."""
    u_B = torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in generators])
    return inverse_cdf(logits_BV, u_B.to(logits_BV.device))


def inverse_cdf(logits_BV: Tensor, u_B: Tensor) -> Tensor:
    """The token in whose stretch of [0, 1), laid out in order of ids, u falls; sums in float64. int64 [B]."""
    weights_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)).exp_()
    if weights_BV.shape[1] % BLOCK:
        weights_BV = F.pad(weights_BV, (0, -weights_BV.shape[1] % BLOCK))
    # First the block, then the token in it: a running sum over all tokens costs more than all the rest.
    blocks_BNV = weights_BV.unflatten(1, (-1, BLOCK))
    upto_BN = blocks_BNV.sum(-1, dtype=torch.float64).cumsum(-1)
    # u < 1, so u times the last sum stays below it, rounding included: what is found has probability above 0.
    at_B1 = u_B[:, None] * upto_BN[:, -1:]
    block_B1 = torch.searchsorted(upto_BN, at_B1, right=True)
    before_B1 = F.pad(upto_BN, (1, 0)).gather(1, block_B1)
    inside_BV = blocks_BNV.gather(1, block_B1[:, :, None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    rest_B1 = torch.minimum((at_B1 - before_B1).clamp_min(0), inside_BV[:, -1:].nextafter(torch.zeros_like(at_B1)))
    return (block_B1 * BLOCK + torch.searchsorted(inside_BV, rest_B1, right=True))[:, 0]
