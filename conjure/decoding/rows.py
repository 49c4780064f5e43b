"""One text that is being written, and the draw of its next token.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import generator
from conjure.decoding import filters
from conjure.decoding.detokenize import Decodes, Detokenizer
from conjure.decoding.sample import best, draw, sample
from conjure.decoding.settings import Decoding
from conjure.decoding.stops import StopStrings

Ended = Literal["length", "end", "stop"]
Alternatives = list[tuple[int, float]]


@dataclass(frozen=True)
class Generation:
    """What was written after a prompt."""

    ids: list[int]
    """All that were drawn: an end mark and the tokens of a stop string too."""
    text: str
    """Without either."""
    logprobs: list[float]
    """Of each id under the distribution it was drawn from; empty unless asked for. A greedy choice is drawn from no
    distribution: its log-probability is that at temperature 1, rules applied, truncations not."""
    ended: Ended
    score: float
    """Mean log-probability of the ids, or of beams the sum over length ** length_penalty; 0 where neither was asked."""
    alternatives: list[Alternatives] = field(default_factory=list)
    """At each place the likeliest (id, log-probability) of the same distribution; empty unless asked for."""


class Constraint(Protocol):
    """What may come next in one text."""

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""
        ...

    def mask(self) -> Tensor:
        """bool [V], true where the token is allowed."""
        ...

    def accept(self, token: int) -> None:
        """`token` was written."""
        ...

    def forced(self) -> list[int]:
        """Tokens that are certain to come next as far as it can tell, perhaps none."""
        ...

    def copy(self) -> Constraint:
        """Another one in the same state."""
        ...


class Past:
    """The ids of a text so far."""

    def __init__(self, known: list[int], begin: int, constraint: Constraint | None = None) -> None:
        """`known[begin:]` was written after the prompt."""
        self.known, self.begin, self.constraint = known, begin, constraint

    @property
    def count(self) -> int:
        return len(self.known) - self.begin


class Row(Past):
    """A text, its luck, and what has become of it."""

    def __init__(
        self,
        index: int,
        prompt: Sequence[int],
        *,
        seed: int,
        decoding: Decoding,
        end: Collection[int],
        tokenizer: Decodes,
        constraint: Constraint | None = None,
        watched: bool = False,
    ) -> None:
        """`index` is the prompt's number. Where the text is `watched`, `push` returns it piece by piece."""
        super().__init__(list(prompt), len(prompt), constraint)
        self.index, self.decoding, self.end, self.tokenizer = index, decoding, end, tokenizer
        self.generator = generator(seed)
        self.logprobs: list[float] = []
        self.alternatives: list[Alternatives] = []
        self.ended: Ended | None = None
        self.stops = StopStrings(decoding.stop)
        self.detokenizer = Detokenizer(tokenizer, after=prompt) if watched or decoding.stop else None
        self.pieces: list[str] = []

    def push(self, token: int) -> str:
        """Note the next token; returns the text that has become certain."""
        self.known.append(token)
        if self.constraint is not None:
            self.constraint.accept(token)
        if token in self.end:
            self.ended = "end"
        if self.detokenizer is None:
            if self.ended is None:
                self._rest()
            return ""
        piece = "" if self.ended else self.stops.push(self.detokenizer.push(token))
        if self.stops.stopped:
            self.ended = "stop"
        elif self.ended is None:
            self._rest()
        if self.ended is not None:
            piece += self.stops.push(self.detokenizer.finish()) + self.stops.finish()
        self.pieces.append(piece)
        return piece

    def _rest(self) -> None:
        if self.constraint is not None and self.constraint.finished:
            self.ended = "end"
        elif self.count >= self.decoding.tokens:
            self.ended = "length"

    def generation(self) -> Generation:
        """The finished text."""
        assert self.ended is not None
        ids = self.known[self.begin :]
        score = sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0
        logprobs = self.logprobs if self.decoding.logprobs else []
        return Generation(ids, self._text(), logprobs, self.ended, score, self.alternatives)

    def _text(self) -> str:
        if self.detokenizer is not None:
            return "".join(self.pieces)
        return text_after(self.tokenizer, self.known, self.begin, self.end)


def text_after(tokenizer: Decodes, known: Sequence[int], begin: int, end: Collection[int]) -> str:
    """The text of known[begin:], without a last id that is in `end`."""
    until = len(known) - (len(known) > begin and known[-1] in end)
    return tokenizer.decode(known[:until])[len(tokenizer.decode(known[:begin])) :]


def choose(logits_BV: Tensor, rows: Sequence[Row], decoding: Decoding, end: Collection[int]) -> list[int]:
    """The next token of each row; log-probabilities, where they are asked for, are noted in the rows."""
    if decoding.temperature == 0:
        logits_BV = ruled(logits_BV, rows, decoding, end)
        tokens, tops = best(logits_BV)
        check_tops(tops, rows)
    elif quick(logits_BV, decoding):
        rows_V = ruled(logits_BV, rows, decoding, end).detach().numpy()
        check_tops([float(row_V.max()) for row_V in rows_V], rows)
        chances = [float(torch.rand(1, generator=row.generator, dtype=torch.float64)) for row in rows]
        settings = {name: getattr(decoding, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        return [draw(row_V, u, **settings) for row_V, u in zip(rows_V, chances)]
    else:
        logits_BV = distribution(logits_BV, rows, decoding, end)
        tokens = sample(logits_BV, [row.generator for row in rows]).tolist()
    note(logits_BV, tokens, rows, decoding)
    return tokens


def quick(logits_BV: Tensor, decoding: Decoding) -> bool:
    """Whether `draw` can do it: on the CPU, where nobody asks for log-probabilities."""
    plain = decoding.typical_p == 1 and not decoding.scored and not decoding.alternatives
    return plain and logits_BV.device.type == "cpu" and logits_BV.dtype == torch.float32


def distribution(logits_BV: Tensor, rows: Sequence[Past], decoding: Decoding, end: Collection[int]) -> Tensor:
    """Logits [B, V] from which the next token of each row is drawn: rules, temperature, truncations."""
    logits_BV = ruled(logits_BV, rows, decoding, end)
    check_tops(logits_BV.amax(-1).tolist(), rows)
    return filters.filtered(
        logits_BV,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        min_p=decoding.min_p,
        typical_p=decoding.typical_p,
    )


def ruled(logits_BV: Tensor, rows: Sequence[Past], decoding: Decoding, end: Collection[int]) -> Tensor:
    """The rules of `decoding` and the rows' constraints, in the order that `filters` gives; float32."""
    logits_BV = logits_BV.float()
    known = [row.known for row in rows]
    if decoding.logit_bias:
        logits_BV = filters.biased(logits_BV, decoding.logit_bias)
    if decoding.repetition_penalty != 1:
        logits_BV = filters.penalise_repeats(logits_BV, known, decoding.repetition_penalty)
    if decoding.presence_penalty or decoding.frequency_penalty:
        drawn = [row.known[row.begin :] for row in rows]
        logits_BV = filters.penalise_counts(
            logits_BV, drawn, presence=decoding.presence_penalty, frequency=decoding.frequency_penalty
        )
    if decoding.no_repeat_ngram:
        logits_BV = filters.without_repeated_ngrams(logits_BV, known, decoding.no_repeat_ngram)
    early = [b for b, row in enumerate(rows) if row.count < decoding.min_tokens]
    if early and end:
        logits_BV = filters.without(logits_BV, end, early)
    if decoding.suppress:
        logits_BV = filters.without(logits_BV, decoding.suppress)
    forced = decoding.forced_first
    if decoding.suppress_first and (first := [b for b, row in enumerate(rows) if row.count == len(forced)]):
        logits_BV = filters.without(logits_BV, decoding.suppress_first, first)
    logits_BV = _constrained(logits_BV, rows)
    if forced and (now := {b: forced[row.count] for b, row in enumerate(rows) if row.count < len(forced)}):
        logits_BV = filters.only(logits_BV, now)
    return logits_BV


def _constrained(logits_BV: Tensor, rows: Sequence[Past]) -> Tensor:
    if any(row.constraint is not None for row in rows):
        logits_BV = logits_BV.clone()
    for b, row in enumerate(rows):
        if row.constraint is None:
            continue
        allowed_V = row.constraint.mask().to(logits_BV.device)
        if not bool(allowed_V.any()):
            raise ConjureError(
                f"the grammar allows no token after {row.count} tokens", hint="it may want what no token can write"
            )
        short = logits_BV.shape[1] - len(allowed_V)  # networks may have more ids than their tokenizer
        logits_BV[b, : len(allowed_V)].masked_fill_(~allowed_V[: logits_BV.shape[1]], filters.RULED_OUT)
        if short > 0:
            logits_BV[b, len(allowed_V) :] = filters.RULED_OUT
    return logits_BV


def check_tops(tops: Sequence[float], rows: Sequence[Past]) -> None:
    """`tops`: the highest logit of each row."""
    for top, row in zip(tops, rows):
        if math.isfinite(top):
            continue
        which = f"token {row.count + 1}" + (f" of text {row.index + 1}" if isinstance(row, Row) else "")
        if top == -math.inf:
            raise ConjureError(f"{which}: the rules leave no token that may be drawn", hint="take a rule away")
        raise ConjureError(
            f"{which}: the network's logits are no finite numbers ({top})",
            hint="its weights may be broken, or their type too narrow: try float32",
        )


def note(logits_BV: Tensor, tokens: Sequence[int], rows: Sequence[Row], decoding: Decoding) -> None:
    """Log-probabilities of these tokens, and of the likeliest, into the rows, as far as they are asked for."""
    if not decoding.scored and not decoding.alternatives:
        return
    log_p_BV = logits_BV.double().log_softmax(-1)
    if decoding.scored:
        drawn_B = log_p_BV.gather(1, torch.tensor(tokens, device=log_p_BV.device)[:, None])[:, 0]
        for row, value in zip(rows, drawn_B.tolist()):
            row.logprobs.append(value)
    if decoding.alternatives:
        top = log_p_BV.topk(min(decoding.alternatives, log_p_BV.shape[1]))
        for row, ids, values in zip(rows, top.indices.tolist(), top.values.tolist()):
            row.alternatives.append([(i, v) for i, v in zip(ids, values) if v > -math.inf])
