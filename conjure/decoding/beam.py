"""Beam search: the texts with the highest sum of log-probabilities that a bounded search finds.

As transformers' `generate(num_beams=..., early_stopping=False)` does it, scores and texts alike: a text that ends among
the best `beams` candidates is kept with its sum over length ** length_penalty; the search for a prompt is over when
`beams` texts are kept and the best unfinished one, divided by its length now, is no better than the worst of them.
Rules act on log-probabilities, which are not made to sum to one again.

Legend: N beams of all prompts, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from conjure.decoding.detokenize import Decodes
from conjure.decoding.reader import Network, Reader
from conjure.decoding.rows import Constraint, Ended, Generation, Past, check_tops, ruled, text_after
from conjure.decoding.settings import Decoding
from conjure.decoding.stops import StopStrings


class Beam(Past):
    """A text that may go on, and the sum of its log-probabilities."""

    def __init__(self, known: list[int], begin: int, constraint: Constraint | None, logprobs: list[float]) -> None:
        super().__init__(known, begin, constraint)
        self.logprobs, self.sum = logprobs, 0.0

    def extended(self, token: int, logprob: float, total: float) -> Beam:
        """This text and one more token; the constraint is still this one's."""
        other = Beam([*self.known, token], self.begin, self.constraint, [*self.logprobs, logprob])
        other.sum = total
        return other


@dataclass
class Search:
    """What was found for one prompt."""

    live: list[Beam]
    done: list[tuple[float, Beam, Ended]] = field(default_factory=list)

    def keep(self, beam: Beam, ended: Ended, decoding: Decoding) -> None:
        """A finished text; only the best `beams` stay."""
        self.done.append((beam.sum / beam.count**decoding.length_penalty, beam, ended))
        self.done.sort(key=lambda found: -found[0])
        del self.done[decoding.beams :]

    def over(self, decoding: Decoding) -> bool:
        """Whether to search no further."""
        if not self.live or self.live[0].count >= decoding.tokens:
            return True
        hope = self.live[0].sum / self.live[0].count ** decoding.length_penalty
        return len(self.done) == decoding.beams and hope <= self.done[-1][0]


def beam_search(
    network: Network,
    tokenizer: Decodes,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    end: Collection[int],
    context: int,
    constraints: Sequence[Constraint | None],
) -> list[Generation]:
    """`decoding.best` texts for each prompt, best first; all prompts in one batch."""
    reader = Reader(network, prompts, tokens=decoding.tokens, context=context)
    searches = [Search([Beam(list(ids), len(ids), rule, [])]) for ids, rule in zip(prompts, constraints, strict=True)]
    logits_NV, open_ones = reader.first(), list(searches)
    while True:
        with torch.inference_mode():
            beams = [beam for search in open_ones for beam in search.live]
            check_tops(logits_NV.amax(-1).tolist(), beams)
            logp_NV = ruled(logits_NV.float().log_softmax(-1), beams, decoding, end)
        parents, begin = [], 0
        for search in open_ones:
            width = len(search.live)
            came_from = _step(search, logp_NV[begin : begin + width], tokenizer, decoding, end)
            if not search.over(decoding):
                parents += [begin + parent for parent in came_from]
            begin += width
        open_ones = [search for search in open_ones if not search.over(decoding)]
        if not open_ones:
            break
        reader.keep(parents)
        logits_NV = reader.next([beam.known[-1] for search in open_ones for beam in search.live])
    return [each for search in searches for each in _answers(search, tokenizer, decoding, end)]


def _step(search: Search, logp_KV: Tensor, tokenizer: Decodes, decoding: Decoding, end: Collection[int]) -> list[int]:
    """One more token for the live beams of a prompt; returns the beam that each new one came from."""
    V = logp_KV.shape[1]
    sums_K1 = torch.tensor([beam.sum for beam in search.live], device=logp_KV.device)[:, None]
    # So many that `beams` stay even if every beam could end in each of the ways there are.
    most = max(2, 1 + len(end)) * decoding.beams
    total = (logp_KV + sums_K1).flatten()
    best = total.topk(min(most, len(total)))
    before, search.live = search.live, []
    came_from: list[int] = []
    for rank, (score, place) in enumerate(zip(best.values.tolist(), best.indices.tolist())):
        if score == -math.inf:
            break
        parent, token = divmod(place, V)
        beam = before[parent].extended(token, float(logp_KV[parent, token]), score)
        ended = _ended(beam, token, tokenizer, decoding, end)
        if ended is not None:
            if rank < decoding.beams:
                search.keep(beam, ended, decoding)
        elif len(search.live) < decoding.beams:
            search.live.append(beam)
            came_from.append(parent)
    return came_from


def _ended(beam: Beam, token: int, tokenizer: Decodes, decoding: Decoding, end: Collection[int]) -> Ended | None:
    if token in end:
        return "end"
    if beam.constraint is not None:
        beam.constraint = beam.constraint.copy()
        beam.constraint.accept(token)
        if beam.constraint.finished:
            return "end"
    if decoding.stop and any(stop in text_after(tokenizer, beam.known, beam.begin, end) for stop in decoding.stop):
        return "stop"
    return "length" if beam.count >= decoding.tokens else None


def _answers(search: Search, tokenizer: Decodes, decoding: Decoding, end: Collection[int]) -> list[Generation]:
    answers = []
    for score, beam, ended in search.done[: decoding.best]:
        stops = StopStrings(decoding.stop)
        text = stops.push(text_after(tokenizer, beam.known, beam.begin, end)) + stops.finish()
        logprobs = beam.logprobs if decoding.logprobs else []
        answers.append(Generation(beam.known[beam.begin :], text, logprobs, ended, score))
    return answers
