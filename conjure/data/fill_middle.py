"""Rows of documents of which some have a gap: the network learns to write what stood in it.

Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle", arXiv 2207.14255: a text is cut by
characters into prefix, middle and suffix, which are put down as prefix, suffix, middle (PSM) or suffix, prefix, middle
(SPM), so that an ordinary decoder learns it. All tokens carry loss, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.packing import IGNORED, Packed, laid

Order = Literal["psm", "spm"]


@dataclass(frozen=True)
class Marks:
    """Ids of the special tokens."""

    prefix: int
    suffix: int
    middle: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """How many rows have one, and how they look."""

    rate: float = 0.5
    """Share of the pieces that get a gap."""
    spm: float = 0.5
    """Share of the gaps that are put down as suffix, prefix, middle."""
    lines: float = 0.5
    """Share of the gaps that begin within a line and end with it, as those of editors do; the rest lie anywhere."""

    span: int = 0
    """Tokens of the stretches that get a gap each; 0: a piece has one gap."""
    loss: Literal["all", "middle"] = "all"
    """Which tokens of a stretch with a gap in PSM order are to be learnt: where gaps are short, the others are many."""

    def __post_init__(self) -> None:
        for name in ("rate", "spm", "lines"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConjureError(f"data.gaps.{name}: expected a fraction of 1, got {getattr(self, name)}")
        if self.span and self.span < 32:
            raise ConjureError(f"data.gaps.span: expected 0, or at least 32 tokens, got {self.span}")


def gap(text: str, draw: np.random.Generator, lines: float) -> tuple[int, int]:
    """[begin, end) of a gap in characters; two places drawn evenly, or one from which it reaches to a line's end."""
    if draw.random() >= lines:
        begin, end = sorted(draw.integers(0, len(text) + 1, 2).tolist())
        return begin, end
    at = int(draw.integers(0, len(text) + 1))
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    if draw.random() < 0.5:  # the whole line behind its indentation
        at = start + len(text[start:end]) - len(text[start:end].lstrip())
    return at, end


def arranged(
    prefix: Sequence[int], middle: Sequence[int], suffix: Sequence[int], marks: Marks, order: Order
) -> list[int]:
    """The tokens of a text with a gap. With no middle yet, `[:-1]` of it is the prompt."""
    if order == "psm":
        return [marks.prefix, *prefix, marks.suffix, *suffix, marks.middle, *middle, marks.end]
    return [marks.prefix, marks.suffix, *suffix, marks.middle, *prefix, *middle, marks.end]


class FillMiddle:
    """Rows of `packed`, whose pieces get gaps; row i is a pure function of (seed, i)."""

    def __init__(
        self,
        packed: Packed,
        *,
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        marks: Marks,
        gaps: Gaps,
    ) -> None:
        self.packed, self.encode, self.decode, self.marks, self.gaps = packed, encode, decode, marks, gaps

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """As `Packed.batch`."""
        return laid([self.row(index) for index in indices], self.packed.length)

    def row(self, index: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids, targets) of the pieces of row `index`."""
        draw = rng(derive(self.packed.seed, "gaps", index))
        found = []
        for piece in self.packed.row(index):
            whole = self.packed.ids[piece.start : piece.stop]
            step = self.gaps.span or len(whole)
            for tokens in (whole[at : at + step] for at in range(0, len(whole), step)):
                if draw.random() < self.gaps.rate:
                    tokens = self._with_gap(tokens, draw)
                if len(tokens) > 1:
                    found.append((tokens[:-1], self._targets(tokens)))
        return found

    def _targets(self, tokens: np.ndarray) -> np.ndarray:
        """The next tokens; those before the middle are not learnt where `loss` says so."""
        targets = tokens[1:].astype(np.int64)
        if self.gaps.loss == "middle" and tokens[0] == self.marks.prefix and tokens[1] != self.marks.suffix:
            targets[: int((tokens == self.marks.middle).argmax())] = IGNORED
        return targets

    def _with_gap(self, tokens: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """At most as many tokens as came; what has no room is left away at the outer ends."""
        inner = tokens[tokens != self.marks.end].tolist()
        text = self.decode(inner)
        if len(text) < 8 or "\ufffd" in text:  # too short, or cut within a character
            return tokens
        begin, end = gap(text, draw, self.gaps.lines)
        order: Order = "spm" if draw.random() < self.gaps.spm else "psm"
        prefix, middle, suffix = (self.encode(part) for part in (text[:begin], text[begin:end], text[end:]))
        over = len(prefix) + len(middle) + len(suffix) + 4 - len(tokens)
        if over > 0:
            cut = min(over, len(suffix), max(0, over - len(prefix) // 2))
            suffix, over = suffix[: len(suffix) - cut], over - cut
            cut = min(over, len(prefix))
            prefix, over = prefix[cut:], over - cut
        if over > 0:
            return tokens
        return np.array(arranged(prefix, middle, suffix, self.marks, order), dtype=tokens.dtype)
