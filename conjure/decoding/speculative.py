"""Speculation: several tokens are guessed, and one pass of the network checks them all.

A guess that was not drawn from a distribution (prompt look-up, Saxena 2023; a greedy draft; what a grammar forces) is
checked by drawing the next token as ever and seeing whether it is the guess. That accepts it with its own probability,
as the rule below would, and the text is the same as without guesses, draw by draw. A draft network's samples are
accepted by the rule of Leviathan et al. 2023, arXiv 2211.17192 (algorithm 1): other draws, the same distribution.

Legend: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from conjure.decoding.reader import Network, Reader
from conjure.decoding.rows import Past, Row, choose, distribution, note, ruled
from conjure.decoding.sample import best, sample
from conjure.decoding.settings import MOST_GUESSES, Decoding

NGRAM = 3
"""Tokens that must agree before the text is thought to go on as it did there; fewer where that is nowhere."""


class Lookup:
    """Where in a text its last few tokens came before."""

    def __init__(self) -> None:
        self.read = 0
        self.after: dict[tuple[int, ...], int] = {}
        """n-gram -> the place after its last occurrence but the newest."""

    def __call__(self, known: list[int], count: int) -> list[int]:
        """At most `count` tokens that followed the last occurrence of the last 3 tokens, else of the last 2."""
        for place in range(self.read, len(known)):  # n-grams that end before `place`
            for n in range(2, min(NGRAM, place) + 1):
                self.after[tuple(known[place - n : place])] = place
        self.read = len(known)
        for n in range(min(NGRAM, len(known)), 1, -1):
            place = self.after.get(tuple(known[-n:]))
            if place is not None:
                return known[place : place + count]
        return []


class Draft:
    """A draft network beside a text."""

    def __init__(self, network: Network, row: Row, context: int) -> None:
        self.row, self.decoding = row, row.decoding
        self.reader = Reader(network, [row.known], tokens=row.decoding.tokens + row.decoding.guesses, context=context)

    def __call__(self, count: int) -> tuple[list[int], list[Tensor]]:
        """`count` guesses, and for each the probabilities [V] it was drawn with (empty where greedy)."""
        past = Past(list(self.row.known), self.row.begin)
        logits_1V, guesses, shares = self._follow(past.known), [], []
        for i in range(count):
            if self.decoding.temperature == 0:
                token = best(ruled(logits_1V, [past], self.decoding, self.row.end))[0][0]
            else:
                logits_1V = distribution(logits_1V, [past], self.decoding, self.row.end)
                token = int(sample(logits_1V, [self.row.generator]))
                shares.append(logits_1V[0].double().softmax(-1))
            guesses.append(token)
            past.known.append(token)
            if i + 1 < count:
                logits_1V = self.reader.next([token])
        return guesses, shares

    def _follow(self, known: list[int]) -> Tensor:
        """Logits after `known`, of which this network may have read less, or something else at the end."""
        read = self.reader.known[0]
        agree = min(len(read), len(known) - 1)
        begin = max(0, agree - 2 * self.decoding.guesses - 2)  # all before is what both have read long ago
        agree = next((i for i in range(begin, agree) if read[i] != known[i]), agree)
        wrong, new, cache = len(read) - agree, len(known) - agree, self.reader.cache
        if cache is None or cache.length <= wrong or self.reader.room + wrong < new:
            self.reader.known[0] = list(known)
            return self.reader.first()
        self.reader.forget(wrong)
        return self.reader.several(known[agree:])[-1:]


def guessed(reader: Reader, row: Row, draft: Network | None = None) -> Iterator[tuple[int, str]]:
    """(id, text that has become certain) as without guesses, which come from what the row's constraint forces, from a
    `draft` that is greedy, and from the text itself."""
    decoding, lookup = row.decoding, Lookup()
    ahead = Draft(draft, row, reader.context) if draft is not None else None
    logits_TV, guesses = reader.first(), []
    while True:
        used = 0
        for logits_V in logits_TV:
            with torch.inference_mode():
                token = choose(logits_V[None], [row], decoding, row.end)[0]
            yield token, row.push(token)
            if row.ended:
                return
            used += 1
            if used <= len(guesses) and token != guesses[used - 1]:
                break
        reader.forget(len(logits_TV) - used)
        most = min(reader.room - 1, decoding.tokens - row.count - 1)
        guesses = row.constraint.forced()[: max(0, min(most, MOST_GUESSES))] if row.constraint is not None else []
        if not guesses and most > 0:
            if ahead is not None:
                guesses = ahead(min(most, decoding.guesses))[0]
            else:
                guesses = lookup(row.known, min(most, decoding.lookup))
        unread = [row.known[-1], *guesses]
        logits_TV = reader.several(unread) if reader.room >= len(unread) else reader.next(unread)


def drafted(reader: Reader, row: Row, draft: Network) -> Iterator[tuple[int, str]]:
    """(id, text that has become certain), drawn from the same distribution as without the `draft`."""
    decoding, ahead = row.decoding, Draft(draft, row, reader.context)
    with torch.inference_mode():
        token = choose(reader.first(), [row], decoding, row.end)[0]
    yield token, row.push(token)
    while not row.ended:
        most = min(decoding.guesses, reader.room - 1, decoding.tokens - row.count - 1)
        with torch.inference_mode():
            guesses, shares = ahead(most) if most > 0 else ([], [])
        unread = [token, *guesses]
        logits_TV = reader.several(unread) if reader.room >= len(unread) else reader.next(unread)
        used = 0
        for guess in [*zip(guesses, shares), None]:
            with torch.inference_mode():
                token = accepted(logits_TV[used : used + 1], row, decoding, guess)
            yield token, row.push(token)
            used += 1
            if row.ended or (guess is not None and token != guess[0]):
                break
        reader.forget(len(unread) - used)


def accepted(logits_1V: Tensor, row: Row, decoding: Decoding, guess: tuple[int, Tensor] | None) -> int:
    """A token from the distribution of `logits`: the guess x, drawn from q, with probability min(1, p(x) / q(x)), else
    one drawn from max(0, p - q)."""
    if guess is None:
        return choose(logits_1V, [row], decoding, row.end)[0]
    token, q_V = guess
    logits_1V = distribution(logits_1V, [row], decoding, row.end)
    p_V = logits_1V[0].double().softmax(-1)
    size = min(len(p_V), len(q_V))  # of two padded vocabularies one may be longer
    allowed = float(p_V[token]) if token < size else 0.0
    u = float(torch.rand(1, generator=row.generator, dtype=torch.float64))
    if u * float(q_V[token]) >= allowed:
        rest_V = p_V.clone()
        rest_V[:size] = (p_V[:size] - q_V[:size]).clamp_min(0)
        if not bool(rest_V.any()):  # p and q are equal but for rounding
            rest_V = p_V
        token = int(sample(rest_V.log()[None].float(), [row.generator]))
    note(logits_1V, [token], [row], decoding)
    return token
