"""Long sound to text with a network that was trained by CTC: parts in which somebody speaks, read in batches; words
with their times by where the symbols stand.

`Listener` has the interface of `transcriber.Transcriber` and knows no network: it is given a function from sounds to
what was heard, and what each symbol means. It serves starter/ear and public models of the wav2vec 2.0 kind.

Legend: N samples, T frames, V symbols.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from conjure.codecs.voice_activity import Chunk, Floats, VoiceActivity, chunks, spans
from conjure.core.errors import ConjureError
from conjure.decoding.ctc import Piece, Scorer, aligned, greedy, prefix_beam
from conjure.media.captions import Segment, Word


@dataclass(frozen=True, eq=False)
class Heard:
    """What a network makes of one sound: log-probabilities (or logits), without the frames of padding. Where it has a
    second opinion: of each of several texts the log-probability."""

    logits_TV: Tensor
    opinion: Callable[[Sequence[Sequence[int]]], Sequence[float]] | None = None


Hear = Callable[[Sequence[Floats]], Sequence[Heard]]
"""Mono sounds float32 `[N]` at the network's rate -> what is made of each."""
PAUSE = 0.6
"""Seconds without a word that begin a new segment."""
LONGEST = 12.0
"""Seconds from which a segment ends at the next word."""


class Listening(Protocol):
    """What is asked of a listener; an `Asked` is one, and a `transcriber.Hearing`."""

    @property
    def words(self) -> bool:
        """Times of words too."""
        ...

    @property
    def voice(self) -> VoiceActivity | None:
        """None: everything is read."""
        ...

    @property
    def batch(self) -> int:
        """Parts that are read together."""
        ...


@dataclass(frozen=True, kw_only=True)
class Asked:
    """See `Listening`."""

    words: bool = False
    voice: VoiceActivity | None = field(default_factory=VoiceActivity)
    batch: int = 8


@dataclass(frozen=True, kw_only=True)
class Tongue:
    """A language model beside the network, as `ctc.prefix_beam` takes it."""

    score: Scorer
    begin: Any = None
    end: Callable[[Any], float] | None = None


class Listener:
    """A CTC network with its alphabet.

    `hear` is the network: sounds of a batch -> log-probabilities of each, `[T, V]`, T frames of `hop` samples.
    `alphabet` has a text for each of the V symbols, " " for the border of words ("|" of wav2vec 2.0), "" for those
    that write nothing (the blank, <pad>, <s>, <unk>). `rate` and `hop` are the network's, `hop` in samples (wav2vec
    2.0: 320). `blank` is CTC's empty symbol (<pad> there). `least` are the fewest samples that give a frame (there:
    400). `seconds` is the longest part that is read at once. With more than one of `beams` the text is the likeliest
    over all of its paths, and of `tongue` where there is one; else that of the best path. `trust` is what a second
    opinion on these texts weighs. `write` makes the final text of a segment of what was read, words with single spaces
    between. A segment whose symbols have a mean log-probability below `doubt` is left out, and so is a part of which a
    second opinion says so, its end counted as a symbol. `language` is what segments say they are in.
    """

    def __init__(
        self, hear: Hear, alphabet: Sequence[str], *, rate: int, hop: int, blank: int = 0, least: int = 400,
        seconds: float = 30.0, beams: int = 1, tongue: Tongue | None = None, trust: float = 0.0,
        write: Callable[[str], str] = str.strip, doubt: float = -math.inf, language: str = "",
    ) -> None:  # fmt: skip
        if not 0 <= blank < len(alphabet) or hop < 1 or beams < 1:
            raise ConjureError(f"expected the blank among {len(alphabet)} symbols, hop and beams above 0, got {blank}, "
                               f"{hop} and {beams}")  # fmt: skip
        self.hear, self.alphabet, self.rate, self.hop, self.blank = hear, tuple(alphabet), rate, hop, blank
        self.least, self.seconds, self.beams, self.tongue, self.trust = least, seconds, beams, tongue, trust
        self.write, self.doubt, self.language = write, doubt, language

    def parts(self, samples_N: Floats, voice: VoiceActivity | None) -> list[Chunk]:
        """What is to be read: where somebody speaks, or all of it."""
        if len(samples_N) < self.least:
            raise ConjureError(
                f"expected sound of at least {1000 * self.least / self.rate:g} ms, got "
                f"{1000 * len(samples_N) / self.rate:.3g} ms"
            )
        if not np.isfinite(samples_N).all():
            raise ConjureError("the sound has samples that are no numbers", hint="write the file again")
        found = spans(samples_N, self.rate, voice) if voice else [(0, len(samples_N))]
        cut = chunks(found, samples_N, self.rate, self.seconds, voice or VoiceActivity())
        return [chunk for chunk in cut if chunk.samples >= self.least]

    def transcribe(
        self, samples_N: Floats, how: Listening, seed: int = 0
    ) -> Iterator[tuple[list[Segment], float]]:  # fmt: skip
        """(the next segments, seconds of the sound that are done) of mono sound at `rate`, batch by batch. Nothing is
        drawn: every `seed` gives the same."""
        parts = self.parts(samples_N, how.voice)
        for begin in range(0, len(parts), how.batch):
            some = parts[begin : begin + how.batch]
            made = list[Segment]()
            heard = self.hear([chunk.cut(samples_N) for chunk in some])
            for chunk, each in zip(some, heard, strict=True):
                made += self._segments(self._words(each, chunk), how.words)
            yield made, some[-1].pieces[-1][1] / self.rate

    def read(self, heard: Heard) -> list[Piece]:
        """The symbols of one part, each with its frames; none where a second opinion doubts them all."""
        found = self._best(heard)
        if found and heard.opinion is not None and self.doubt > -math.inf:
            ids = [piece.id for piece in found]
            if heard.opinion([ids])[0] < self.doubt * (len(ids) + 1):
                return []
        return found

    def _best(self, heard: Heard) -> list[Piece]:
        if self.beams == 1 and self.tongue is None:
            return greedy(heard.logits_TV, self.blank)
        tongue = self.tongue
        found = prefix_beam(
            heard.logits_TV, self.blank, beams=self.beams, score=tongue and tongue.score, begin=tongue and tongue.begin,
            end=tongue and tongue.end,
        )  # fmt: skip
        scores = [reading.score for reading in found]
        if heard.opinion is not None and self.trust:
            scores = [a + self.trust * b for a, b in zip(scores, heard.opinion([r.ids for r in found]), strict=True)]
        return aligned(heard.logits_TV, found[int(np.argmax(scores))].ids, self.blank)

    def text(self, heard: Heard) -> str:
        """The words of one part, with single spaces between, as they were read: without `write`."""
        return " ".join("".join(self.alphabet[piece.id] for piece in self.read(heard)).split())

    def _words(self, heard: Heard, chunk: Chunk) -> list[tuple[Word, list[float]]]:
        """The words of a part in the time of the whole sound, each with the log-probabilities of its symbols."""
        pieces = [piece for piece in self.read(heard) if self.alphabet[piece.id]]
        found = []
        for border, run in itertools.groupby(pieces, key=lambda piece: self.alphabet[piece.id].isspace()):
            if border:
                continue
            own = list(run)
            chances = [piece.logprob for piece in own]
            start = chunk.at(own[0].start * self.hop / self.rate)
            end = chunk.at(own[-1].end * self.hop / self.rate, end=True)
            text = "".join(self.alphabet[piece.id] for piece in own)
            found.append((Word(start, max(start, end), text, math.exp(sum(chances) / len(chances))), chances))
        return found

    def _segments(self, words: Sequence[tuple[Word, list[float]]], keep: bool) -> list[Segment]:
        """Words between pauses."""
        groups = list[list[tuple[Word, list[float]]]]()
        for word, chances in words:
            last = groups[-1] if groups else []
            if not last or word.start - last[-1][0].end >= PAUSE or word.end - last[0][0].start > LONGEST:
                groups.append([])
            groups[-1].append((word, chances))
        made = []
        for group in groups:
            chances = [chance for _, each in group for chance in each]
            confidence = sum(chances) / len(chances)
            text = self.write(" ".join(word.text for word, _ in group))
            if text and confidence >= self.doubt:
                own = _rewritten([word for word, _ in group], text) if keep else ()
                made.append(Segment(group[0][0].start, group[-1][0].end, text, own, self.language, confidence))
        return made


def _rewritten(words: Sequence[Word], text: str) -> tuple[Word, ...]:
    """The words as the final text has them, where it has as many."""
    final = text.split()
    if len(final) != len(words):
        return tuple(words)
    return tuple(replace(word, text=each) for word, each in zip(words, final, strict=True))
