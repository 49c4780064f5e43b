"""Filters on next-token logits: which tokens may be drawn, and how boldly.

Each takes and returns logits_BV; a token that is ruled out gets -inf. The order in which they act:

1. `biased`, 2. `penalise_repeats`, 3. `penalise_counts`, 4. `without_repeated_ngrams`, 5. `without` (the end before
`min_tokens`, suppressed ids), 6. a constraint's mask, 7. `only` (forced ids); these are rules, and together `ruled`.
8. `tempered`, 9. `keep_top_k`, 10. `keep_top_p`, 11. `keep_min_p`, 12. `keep_typical`: together `filtered`. Of these
each sees what the one before left, and at least one token always stays. Of equally likely tokens the lower id counts
as better. Rules 2 to 7 and 8 to 12 act in the order of transformers' `generate`.

Legend: B rows, V vocabulary, N the best tokens, T tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from conjure.core.errors import ConjureError

RULED_OUT = -math.inf
BLOCK = 64
"""Logits are looked through in blocks of so many."""
FIRST_BEST, MORE = 64, 8
"""How many of the best tokens are sorted first, and by what factor more where they do not hold enough probability."""


def filtered(
    logits_BV: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float, typical_p: float = 1.0
) -> Tensor:
    """Temperature and the four truncations; float32."""
    logits_BV = tempered(logits_BV.float(), temperature)
    if temperature == 0:
        return logits_BV
    logits_BV = keep_min_p(keep_top_p(keep_top_k(logits_BV, top_k), top_p), min_p)
    return keep_typical(logits_BV, typical_p)


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
    least_B1 = best_values(logits_BV, k)[:, -1:]
    out_BV = logits_BV < least_B1
    if bool((out_BV.sum(-1) == logits_BV.shape[-1] - k).all()):
        return logits_BV.masked_fill(out_BV, RULED_OUT)
    order_BV = logits_BV.sort(dim=-1, descending=True, stable=True).indices  # equals at the border
    return logits_BV.scatter(-1, order_BV[:, k:], RULED_OUT)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """The fewest best tokens that hold probability p together (nucleus), Holtzman et al., arXiv 1904.09751.

    1 keeps all, 0 the best one.
    """
    if p >= 1:
        return logits_BV
    # Sorting the vocabulary takes long and the nucleus is small: sort the best few, and more if they hold too little.
    V, n = logits_BV.shape[-1], FIRST_BEST
    top_B1 = logits_BV.amax(-1, keepdim=True)
    total_B1 = (logits_BV - top_B1).exp().sum(-1, keepdim=True, dtype=torch.float64)
    while n * 2 <= V:
        best_BN = best_values(logits_BV, n)
        share_BN = (best_BN - top_B1).double().exp() / total_B1
        inside_BN = share_BN.cumsum(-1) - share_BN < p
        inside_BN[:, 0] = True
        count_B = inside_BN.sum(-1)
        if int(count_B.max()) < n:
            out_BV = logits_BV < best_BN.gather(-1, count_B[:, None] - 1)
            if bool((out_BV.sum(-1) == V - count_B).all()):
                return logits_BV.masked_fill(out_BV, RULED_OUT)
            break  # equals at the border
        n *= MORE
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    share_BV = (sorted_BV - top_B1).double().exp() / total_B1
    out_BV = share_BV.cumsum(-1) - share_BV >= p
    out_BV[:, 0] = False
    return logits_BV.masked_fill(out_BV.scatter(-1, order_BV, out_BV), RULED_OUT)


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Only tokens at least p times as likely as the best one, Nguyen et al., arXiv 2407.01082. 0 keeps
    all."""
    if p == 0:
        return logits_BV
    return logits_BV.masked_fill(logits_BV < logits_BV.amax(-1, keepdim=True) + math.log(p), RULED_OUT)


def keep_typical(logits_BV: Tensor, p: float) -> Tensor:
    """The fewest tokens that hold probability p together, those first whose surprise -log q is nearest to the entropy,
    Meister et al., arXiv 2202.00666 (eq. 11). 1 keeps all. The best token may go."""
    if p >= 1:
        return logits_BV
    log_q_BV = logits_BV.double().log_softmax(-1)
    q_BV = log_q_BV.exp()
    entropy_B1 = -(q_BV * log_q_BV.clamp_min(torch.finfo(torch.float64).min)).sum(-1, keepdim=True)
    order_BV = (log_q_BV + entropy_B1).abs().sort(dim=-1, stable=True).indices
    share_BV = q_BV.gather(-1, order_BV)
    out_BV = share_BV.cumsum(-1) - share_BV >= p
    out_BV[:, 0] = False
    return logits_BV.masked_fill(out_BV.scatter(-1, order_BV, out_BV), RULED_OUT)


def best_values(logits_BV: Tensor, n: int) -> Tensor:
    """The n highest logits of each row, falling, `[B, n]`.

    They lie in the n blocks of the vocabulary whose highest logits are the highest, so only those are sorted.
    """
    B, V = logits_BV.shape
    if n * BLOCK * 2 > V:
        return logits_BV.topk(n).values
    whole = V // BLOCK * BLOCK
    blocks = logits_BV[:, :whole].unflatten(1, (-1, BLOCK))
    chosen = blocks.amax(-1).topk(n, sorted=False).indices[:, :, None].expand(B, n, BLOCK)
    few = torch.cat([blocks.gather(1, chosen).flatten(1), logits_BV[:, whole:]], dim=1)
    return few.topk(n).values


# -- rules ------------------------------------------------------------------------------------------------


def biased(logits_BV: Tensor, bias: Mapping[int, float]) -> Tensor:
    """`bias[id]` added to the logit of each id; -inf rules it out."""
    ids = _checked(list(bias), logits_BV)
    return logits_BV.index_add(1, ids, logits_BV.new_tensor(list(bias.values())).expand(len(logits_BV), -1))


def penalise_repeats(logits_BV: Tensor, known: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits of tokens that have come before, divided by `penalty` where positive and multiplied where negative:
    Keskar et al., arXiv 1909.05858 (4.1), with the sign handled as in transformers. `known[b]` are the ids of row b."""
    out_BV = logits_BV.clone()
    for b, ids in enumerate(known):
        seen = _index(list(set(ids)), logits_BV)
        before = logits_BV[b, seen]
        out_BV[b, seen] = torch.where(before < 0, before * penalty, before / penalty)
    return out_BV


def penalise_counts(
    logits_BV: Tensor, drawn: Sequence[Sequence[int]], *, presence: float = 0.0, frequency: float = 0.0
) -> Tensor:
    """Minus `presence` for each token that was drawn before, and minus `frequency` for each time it was: the OpenAI
    API's penalties."""
    out_BV = logits_BV.clone()
    for b, ids in enumerate(drawn):
        if frequency and ids:
            every = _index(ids, logits_BV)
            out_BV[b].index_add_(0, every, torch.full_like(every, -frequency, dtype=out_BV.dtype))
        if presence:
            out_BV[b, _index(list(set(ids)), logits_BV)] -= presence
    return out_BV


def without(logits_BV: Tensor, ids: Collection[int], rows: Sequence[int] | None = None) -> Tensor:
    """These ids ruled out, in these rows (all rows unless given)."""
    index = _checked(list(ids), logits_BV)
    if rows is None:
        return logits_BV.index_fill(1, index, RULED_OUT)
    out_BV = logits_BV.clone()
    for b in rows:
        out_BV[b].index_fill_(0, index, RULED_OUT)
    return out_BV


def only(logits_BV: Tensor, ids: Mapping[int, int]) -> Tensor:
    """Row b can draw the id `ids[b]` alone; rows not named are as they were."""
    out_BV = logits_BV.clone()
    for b, token in ids.items():
        out_BV[b] = RULED_OUT
        out_BV[b, _checked([token], logits_BV)] = 0.0
    return out_BV


def without_repeated_ngrams(logits_BV: Tensor, known: Sequence[Sequence[int]], n: int) -> Tensor:
    """Rules out each token that would end an n-gram which row b's ids `known[b]` hold already."""
    out_BV = logits_BV.clone()
    for b, ids in enumerate(known):
        if len(ids) < n:
            continue
        windows = torch.tensor(ids, device=logits_BV.device).unfold(0, n, 1)
        again = (windows[:, :-1] == windows[-1, 1:]).all(-1)
        out_BV[b, windows[again, -1]] = RULED_OUT
    return out_BV


def _index(ids: Sequence[int], logits_BV: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=logits_BV.device)


def _checked(ids: Sequence[int], logits_BV: Tensor) -> Tensor:
    V = logits_BV.shape[-1]
    for token in ids:
        if not 0 <= token < V:
            raise ConjureError(f"token {token}: expected an id from 0 to {V - 1}", hint="look the ids up again")
    return _index(ids, logits_BV)
