"""Masked models: what stands most likely in the gaps.

Several gaps are filled one after the other, each given those before it, keeping the `best` partial answers: from left
to right, or always the gap the network is surest of (as Mask-Predict does in steps, Ghazvininejad et al. 2019,
arXiv 1904.09324).

Legend: B partial answers, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from conjure.core.errors import ConjureError


@dataclass(frozen=True)
class Filling:
    """A text without gaps."""

    ids: list[int]
    fillers: list[int]
    """What was put into the gaps, from left to right."""
    logprobs: list[float]
    """Of each filler, given the gaps that were filled before it."""

    @property
    def score(self) -> float:
        """Log-probability of all fillers."""
        return sum(self.logprobs)


def fill(
    logits: Callable[[Tensor], Tensor],
    ids: Sequence[int],
    *,
    mask: int,
    best: int = 5,
    order: Literal["left", "confidence"] = "confidence",
    suppress: Collection[int] = (),
) -> list[Filling]:
    """The `best` fillings of all tokens `mask` in `ids`, best first. `logits(ids_BT)` are float32 [B, T, V]; `suppress`
    are ids that fill nothing (the mask itself never does)."""
    gaps = [place for place, token in enumerate(ids) if token == mask]
    if not gaps:
        raise ConjureError("there is no gap to fill", hint="write the mask token where a word is missing")
    if best < 1:
        raise ConjureError(f"best: expected at least 1, got {best}")
    partial: list[tuple[list[int], dict[int, float]]] = [(list(ids), {})]
    for _ in gaps:
        with torch.inference_mode():
            log_p_BTV = _log_p(logits, [known for known, _ in partial], {mask, *suppress})
        found = []
        for (known, filled), log_p_TV in zip(partial, log_p_BTV):
            left = [place for place in gaps if place not in filled]
            place = left[0] if order == "left" else max(left, key=lambda at: float(log_p_TV[at].max()))
            top = log_p_TV[place].topk(min(best, log_p_TV.shape[1]))
            for token, value in zip(top.indices.tolist(), top.values.tolist()):
                if value > -math.inf:
                    found.append(([*known[:place], token, *known[place + 1 :]], {**filled, place: value}))
        distinct = {tuple(known): (known, filled) for known, filled in found}  # two orders may lead to one text
        partial = sorted(distinct.values(), key=lambda each: -sum(each[1].values()))[:best]
    return [
        Filling(known, [known[place] for place in gaps], [filled[place] for place in gaps]) for known, filled in partial
    ]


def _log_p(logits: Callable[[Tensor], Tensor], rows: Sequence[Sequence[int]], never: Collection[int]) -> Tensor:
    """Log-probabilities [B, T, V] of the network; ids in `never` at -inf, the others as they were."""
    logits_BTV = logits(torch.tensor(rows)).float()
    if bool(logits_BTV.isnan().any()):
        raise ConjureError("the network's logits are no numbers", hint="its weights may be broken: try float32")
    index = torch.tensor([token for token in never if token < logits_BTV.shape[-1]], device=logits_BTV.device)
    return logits_BTV.log_softmax(-1).index_fill(-1, index, -math.inf)
