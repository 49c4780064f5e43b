"""Bach's chorales in four voices, and what is made of them: crops, transpositions, and what is told of each.

The set `jsb_chorales` holds them at sixteenths with the split of Boulanger-Lewandowski et al. (2012, arXiv 1206.6392).
Every fourth step of a piece is the piece at quarter notes, as that paper and those after it measure it.

Legend: T steps, V voices, K splits of a piece.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from conjure.codecs.chorale_tokens import STEPS_PER_BEAT, VOICES, shifts_of, transposed
from conjure.codecs.music_words import key_of, movement
from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.archives import file
from conjure.data.fetch import get

SET = "jsb_chorales"
FILES = ("Jsb16thSeparated.train_valid.json", "Jsb16thSeparated.json")
Split = Literal["train", "valid", "test"]
BLOCK = 4
"""So many examples after each other are of one kind, so that a batch of them is little padded."""
QUARTERS, WHOLE, PARTLY = "quarters", "whole", "partly"
_KINDS = ((QUARTERS, 0.45), (WHOLE, 0.28), (PARTLY, 0.27))
_AT_ONCE = 0.4
"""Share of crops that begin where the piece begins."""
_OWN_KEY = 0.5
"""Share of examples in Bach's own key; the others are moved to any that the ranges allow."""


@dataclass(frozen=True)
class Example:
    """A stretch of a piece. `grid_TV` int16 pitches, -1 rests; `given_TV` is true where the note is told beforehand."""

    grid_TV: np.ndarray
    given_TV: np.ndarray
    before_V: np.ndarray | None
    """The step in front; None where the piece begins."""
    start: int
    """How many sixteenths into the piece."""
    rest: int
    """Sixteenths of the piece after it."""
    stride: int
    """Sixteenths from step to step: 1, or 4 for quarters."""
    key: int
    motion: int


class Chorales:
    """One split. `pieces` are int16 `[T, 4]` grids of sixteenths; example i is a pure function of (seed, i)."""

    def __init__(self, split: Split = "train", seed: int = 0, *, steps: int = 256) -> None:
        read = _read(str(get(SET)))
        if split not in read:
            raise ConjureError(f"the set {SET} has no part '{split}' on this machine, only {', '.join(read)}")
        self.pieces, self.split = read[split], split
        self.borders = motion_borders(read["train"])
        self._seed, self._steps = seed, steps
        self._order = lru_cache(maxsize=2)(self._draw_order)
        self._about = lru_cache(maxsize=None)(self._looked_at)

    def __len__(self) -> int:
        return len(self.pieces)

    def example(self, index: int) -> Example:
        """Epoch `index` // N visits every piece once; key, crop and what is told are drawn for the index."""
        draw = rng(derive(self._seed, "chorale", index))
        number = int(self._order(index // len(self))[index % len(self)])
        key, motion = self._about(number)
        shift = 0
        if draw.random() >= _OWN_KEY:
            shift = int(draw.choice(list(shifts_of(self.pieces[number])) or [0]))
        piece_TV, about = transposed(self.pieces[number], shift), (key // 12 * 12 + (key + shift) % 12, motion)
        kind = self.kind(index)
        if kind == QUARTERS:
            given_TV = _masks(draw, -(-len(piece_TV) // 4), 4, draw.random() < 0.3)
            return _cut(piece_TV, 0, len(piece_TV), 4, given_TV, about)
        size = self._steps if kind == WHOLE else self._steps // 2
        first = 0
        if len(piece_TV) > size and draw.random() > _AT_ONCE:
            first = int(draw.integers((len(piece_TV) - size) // STEPS_PER_BEAT + 1)) * STEPS_PER_BEAT
        length = min(size, len(piece_TV) - first)
        return _cut(piece_TV, first, length, 1, _masks(draw, length, 1, kind == PARTLY), about)

    def kind(self, index: int) -> str:
        """Of what kind an example is: the same for `BLOCK` of them."""
        u = rng(derive(self._seed, "kind", index // BLOCK)).random()
        for kind, share in _KINDS:
            if (u := u - share) < 0:
                return kind
        return _KINDS[-1][0]

    def piece(self, index: int, stride: int = 1) -> Example:
        """A whole piece as it is, nothing told beforehand."""
        piece_TV = self.pieces[index]
        given_TV = np.zeros((-(-len(piece_TV) // stride), len(VOICES)), bool)
        return _cut(piece_TV, 0, len(piece_TV), stride, given_TV, self._about(index))

    def _looked_at(self, number: int) -> tuple[int, int]:
        """Key and movement of a piece."""
        piece_TV = self.pieces[number]
        return key_of(piece_TV), int(np.searchsorted(self.borders, movement(piece_TV)))

    def _draw_order(self, epoch: int) -> np.ndarray:
        return rng(derive(self._seed, "chorales", epoch)).permutation(len(self))


def _cut(piece_TV: np.ndarray, first: int, length: int, stride: int, given_TV: np.ndarray,
         about: tuple[int, int]) -> Example:  # fmt: skip
    before_V = piece_TV[first - 1] if first else None
    return Example(piece_TV[first : first + length : stride], given_TV, before_V, first,
                   len(piece_TV) - first - length, stride, *about)  # fmt: skip


def motion_borders(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """The two values of `movement` that part pieces into three equal groups."""
    return np.quantile([movement(piece) for piece in pieces], [1 / 3, 2 / 3])


def _masks(draw: np.random.Generator, length: int, stride: int, some: bool) -> np.ndarray:
    """Which notes are told, bool `[T, 4]`: a voice or more; all but a stretch of some voices; or blocks at random."""
    given_TV = np.zeros((length, len(VOICES)), bool)
    if not some:
        return given_TV
    u, beat = draw.random(), STEPS_PER_BEAT // stride
    if u < 0.5:
        count = int(draw.choice([1, 1, 1, 2, 3]))
        # The melody is what is mostly harmonised.
        chosen = draw.choice(len(VOICES), count, replace=False, p=[0.55, 0.15, 0.15, 0.15])
        given_TV[:, chosen] = True
    elif u < 0.8:
        given_TV[:] = True
        span = int(draw.integers(2, 25)) * beat
        first = int(draw.integers(max(1, (length - span) // beat + 1))) * beat
        hidden = draw.choice(len(VOICES), int(draw.integers(1, 5)), replace=False)
        given_TV[first : first + span, hidden] = False
    else:
        size = int(draw.integers(1, 9)) * beat
        blocks_KV = draw.random((-(-length // size), len(VOICES))) < draw.random()
        given_TV[:] = np.repeat(blocks_KV, size, axis=0)[:length]
    return given_TV


@lru_cache(maxsize=2)
def _read(folder: str) -> dict[str, list[np.ndarray]]:
    from pathlib import Path

    for name in FILES:
        try:
            data = json.loads(file(Path(folder), name))
            break
        except ConjureError:
            continue
        except ValueError as error:
            raise ConjureError(f"{folder}/{name}: expected JSON: {error}") from None
    else:
        raise ConjureError(f"{folder}: expected {' or '.join(FILES)}, plain or gzipped")
    found = {}
    for split, pieces in data.items() if isinstance(data, dict) else ():
        try:
            found[split] = [np.array(piece, np.int16) for piece in pieces]
        except (ValueError, OverflowError, TypeError):
            found[split] = []
        if not found[split] or any(p.ndim != 2 or p.shape[1] != 4 or p.min() < -1 for p in found[split]):
            raise ConjureError(f"{folder}: expected pieces as lists of four pitches a step, {split} holds others")
    if "train" not in found:
        raise ConjureError(f"{folder}: expected parts train and valid, got {', '.join(found) or 'none'}")
    return found
