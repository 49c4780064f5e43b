"""Filters on next-token logits: which tokens may be drawn, and how boldly.

Each takes and returns logits_BV; a token that is ruled out gets -inf, and at least the best one always stays.
Of equally likely tokens the lower id counts as better.
Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import math

from torch import Tensor

RULED_OUT = -math.inf


def filtered(logits_BV: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    """All four in the usual order: temperature, top-k, top-p, min-p; float32.

    Each sees what the one before left, so top-p counts probabilities after temperature and among the k best.
    """
    logits_BV = tempered(logits_BV.float(), temperature)
    return keep_min_p(keep_top_p(keep_top_k(logits_BV, top_k), top_p), min_p)


def tempered(logits_BV: Tensor, temperature: float) -> Tensor:
    """Logits over `temperature`: below 1 bolder, above 1 wilder; 0 leaves only the best token (greedy)."""
    if temperature == 0:
        return keep_top_k(logits_BV, 1)
    # The best token at 0: a tiny temperature cannot overflow.
    return (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Only the k best tokens, Fan et al., arXiv 1805.04833. 0, or k >= V, keeps all."""
    if k == 0 or k >= logits_BV.shape[-1]:
        return logits_BV
    order_BV = logits_BV.sort(dim=-1, descending=True, stable=True).indices
    return logits_BV.scatter(-1, order_BV[:, k:], RULED_OUT)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """The fewest best tokens that hold probability p together (nucleus), Holtzman et al., arXiv 1904.09751.

    1 keeps all, 0 the best one.
    """
    if p >= 1:
        return logits_BV
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    share_BV = sorted_BV.double().softmax(-1)
    out_BV = share_BV.cumsum(-1) - share_BV >= p
    out_BV[:, 0] = False
    return logits_BV.masked_fill(out_BV.scatter(-1, order_BV, out_BV), RULED_OUT)


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Only tokens at least p times as likely as the best one, Nguyen et al., arXiv 2407.01082. 0 keeps
    all."""
    if p == 0:
        return logits_BV
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True) + math.log(p), RULED_OUT)
