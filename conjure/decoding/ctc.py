"""Reading what a network says about every frame when it was trained by CTC (Graves et al. 2006, "Connectionist temporal
classification", ICML): a path has one symbol a frame, its text is the path with repeats joined and blanks left out.

Three ways: the best path (`greedy`), the best path of a text that is known (`aligned`), and the texts of the highest
probability over all of their paths, with a language model if there is one (`prefix_beam`; Hannun et al. 2014, arXiv
1408.2873).

Legend: T frames, V symbols, S states of a known text with blanks around its symbols.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError

Scorer = Callable[[Any, int], tuple[float, Any]]
"""(what the language model knows of a text, the next symbol) -> (what is added to the score, what it knows then)."""
UNLIKELY = -7.0
"""Log-probability below which a symbol is not tried in a frame."""


@dataclass(frozen=True)
class Piece:
    """A symbol of a text in the frames `start` to `end`, the last one excluded."""

    id: int
    start: int
    end: int
    logprob: float
    """Mean over these frames."""


@dataclass(frozen=True)
class Reading:
    """A text that was found."""

    ids: tuple[int, ...]
    logprob: float
    """Of the text, over all of its paths that were followed."""
    score: float
    """The same and what the language model added."""


def greedy(logits_TV: Tensor, blank: int = 0) -> list[Piece]:
    """The text of the best path. Logits may be normalised or not."""
    logp_TV = _normal(logits_TV)
    best_T = logp_TV.argmax(-1)
    chances_T = logp_TV[np.arange(len(best_T)), best_T]
    return _pieces(best_T, chances_T, blank)


def aligned(logits_TV: Tensor, ids: Sequence[int], blank: int = 0) -> list[Piece]:
    """One piece for each of `ids`, in order, by the best of all paths of that text (Viterbi).

    Raises `ConjureError` where there are fewer frames than the text takes: one a symbol, one more between two alike.
    """
    logp_TV, text = _normal(logits_TV), list(ids)
    T, S = len(logp_TV), 2 * len(text) + 1
    least = len(text) + sum(a == b for a, b in itertools.pairwise(text))
    if least > T:
        raise ConjureError(f"{len(text)} symbols take at least {least} frames, there are {T}")
    if not text:
        return []
    states_S = np.full(S, blank)
    states_S[1::2] = text
    skips_S = np.zeros(S, bool)  # from the symbol before, over the blank between
    skips_S[3::2] = states_S[3::2] != states_S[1:-2:2]
    best_S = np.full(S, -np.inf)
    best_S[:2] = logp_TV[0, states_S[:2]]
    came_TS = np.zeros((T, S), np.int8)
    for t in range(1, T):
        ways_3S = np.full((3, S), -np.inf)
        ways_3S[0] = best_S
        ways_3S[1, 1:] = best_S[:-1]
        ways_3S[2, 2:] = np.where(skips_S[2:], best_S[:-2], -np.inf)
        came_TS[t] = ways_3S.argmax(0)
        best_S = ways_3S.max(0) + logp_TV[t, states_S]
    state = S - 1 if best_S[-1] > best_S[-2] else S - 2
    path_T = np.empty(T, int)
    for t in range(T - 1, -1, -1):
        path_T[t] = state
        state -= int(came_TS[t, state])
    made = []
    for place, symbol in enumerate(text):
        frames = np.flatnonzero(path_T == 2 * place + 1)
        chance = float(logp_TV[frames, symbol].mean())
        made.append(Piece(symbol, int(frames[0]), int(frames[-1]) + 1, chance))
    return made


@dataclass(eq=False)
class _Node:
    """A text as a node of a tree: its parent and one symbol more. `blank` and `symbol` are the log-probabilities of
    all its paths that end so."""

    parent: _Node | None
    id: int
    known: Any
    """What the language model knows."""
    added: float
    """By the language model, over the whole text."""
    blank: float = -np.inf
    symbol: float = -np.inf
    children: dict[int, _Node] = field(default_factory=dict)

    def total(self) -> float:
        return _plus(self.blank, self.symbol)

    def ids(self) -> tuple[int, ...]:
        node, found = self, list[int]()
        while node.parent is not None:
            found.append(node.id)
            node = node.parent
        return tuple(reversed(found))


def prefix_beam(
    logits_TV: Tensor, blank: int = 0, *, beams: int = 16, score: Scorer | None = None, begin: Any = None,
    end: Callable[[Any], float] | None = None, unlikely: float = UNLIKELY,
) -> list[Reading]:  # fmt: skip
    """The texts of the highest score, best first, at most `beams` of them.

    A text's score is the log-probability of all of its paths plus what `score` adds for each symbol and `end` at last;
    `begin` is what the language model knows at first. A symbol below `unlikely` is not tried in a frame. With enough
    beams and `unlikely` at minus infinity the result is exact.
    """
    if beams < 1:
        raise ConjureError(f"expected at least one beam, got {beams}")
    root = _Node(None, -1, begin, 0.0, blank=0.0)
    live = [root]
    for row_V in _normal(logits_TV):
        tried = np.flatnonzero(row_V >= unlikely)
        symbols = [(int(v), float(row_V[v])) for v in tried if v != blank]
        live = _stepped(live, float(row_V[blank]), symbols, row_V, score)
        live.sort(key=lambda node: -(node.total() + node.added))
        for node in live[beams:]:  # what is left behind begins anew where a longer text leads back to it
            node.blank = node.symbol = -np.inf
        del live[beams:]
    found = []
    for node in live:
        total, last = node.total(), end(node.known) if end is not None else 0.0
        found.append(Reading(node.ids(), total, total + node.added + last))
    return sorted(found, key=lambda reading: -reading.score)


def _stepped(
    live: list[_Node], none: float, symbols: list[tuple[int, float]], row_V: np.ndarray, score: Scorer | None
) -> list[_Node]:
    """Every text that one frame more can lead to, with its probabilities."""
    blanks: dict[_Node, float] = {}
    spoken: dict[_Node, float] = {}
    for node in live:
        total = node.total()
        blanks[node] = total + none
        if node.parent is not None:  # the last symbol goes on
            spoken[node] = _plus(spoken.get(node, -np.inf), node.symbol + float(row_V[node.id]))
        for symbol, chance in symbols:
            # The same symbol again is a new one only behind a blank.
            before = node.blank if symbol == node.id else total
            if before == -np.inf:
                continue
            child = node.children.get(symbol)
            if child is None:
                added, known = score(node.known, symbol) if score is not None else (0.0, None)
                child = node.children[symbol] = _Node(node, symbol, known, node.added + added)
            spoken[child] = _plus(spoken.get(child, -np.inf), before + chance)
    found = list(dict.fromkeys((*blanks, *spoken)))
    for node in found:
        node.blank, node.symbol = blanks.get(node, -np.inf), spoken.get(node, -np.inf)
    return found


def _pieces(best_T: np.ndarray, chances_T: np.ndarray, blank: int) -> list[Piece]:
    borders = [0, *(np.flatnonzero(np.diff(best_T)) + 1).tolist(), len(best_T)]
    runs = [(a, b) for a, b in itertools.pairwise(borders) if b > a and best_T[a] != blank]
    return [Piece(int(best_T[a]), a, b, float(chances_T[a:b].mean())) for a, b in runs]


def _normal(logits_TV: Tensor) -> np.ndarray:
    if logits_TV.dim() != 2:
        raise ConjureError(f"expected logits of frames, [T, V], got the shape {list(logits_TV.shape)}")
    return torch.log_softmax(logits_TV.detach().double(), -1).cpu().numpy()


def _plus(a: float, b: float) -> float:
    """log(e^a + e^b)"""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + float(np.log1p(np.exp(b - a)))
