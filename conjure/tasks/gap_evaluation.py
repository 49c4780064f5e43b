"""The published figures of a model that fills gaps: how many it fills exactly as the author did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress
from conjure.core.seeds import derive, rng
from conjure.data.books import Document
from conjure.data.python_code import code_lines
from conjure.metrics.confidence import bootstrap_mean, wilson
from conjure.metrics.text_overlap import edit_similarity

GAPS = 400
ROWS = 16
"""Gaps filled at once."""
SHORTEST = 4
"""Characters of the shortest gap."""

Figures = dict[str, dict[str, Any]]


def gap_figures(
    fill: Callable[[Sequence[tuple[str, str]]], list[str]],
    texts: Sequence[Document],
    on_progress: Callable[[Event], None] | None = None,
    *,
    count: int = GAPS,
) -> Figures:
    """Exact matches and edit similarity of `count` gaps each of one line and of half a line.

    What `fill([(before, after), ...])` gives is compared with what stood there, space at the ends aside.
    """
    found: Figures = {}
    for kind, words in (("line", "a line of code without its indentation"), ("half_line", "the end of a line of code")):
        cases = gaps(texts, kind, count)
        made: list[str] = []
        while len(made) < len(cases):
            made += fill([(before, after) for before, _, after in cases[len(made) : len(made) + ROWS]])
            if on_progress:
                on_progress(Progress(len(made), len(cases), "gap", kind))
        pairs = [(ours.strip(), wanted.strip()) for ours, (_, wanted, _) in zip(made, cases, strict=True)]
        exact = wilson(sum(ours == wanted for ours, wanted in pairs), len(pairs))
        near = bootstrap_mean([edit_similarity(ours, wanted) for ours, wanted in pairs], seed=0)
        protocol = f"{words}, of files held out, drawn at random; the likeliest tokens"
        found[f"{kind}_exact_match"] = {
            **exact._asdict(), "n": len(pairs), "protocol": f"{protocol}; equal but for space at the ends; 95 % Wilson"
        }  # fmt: skip
        found[f"{kind}_edit_similarity"] = {
            **near._asdict(), "n": len(pairs), "protocol": f"{protocol}; 1 - Levenshtein / longer; 95 % bootstrap"
        }  # fmt: skip
    return found


def gaps(texts: Sequence[Document], kind: str, count: int) -> list[tuple[str, str, str]]:
    """(before, what stood there, after) of `count` lines of code, the same ones every time; for "half_line" the gap
    begins at a place in the line that is drawn."""
    places = [(text.text, begin, end) for text in texts for begin, end in code_lines(text.text)]
    places = [(text, begin, end) for text, begin, end in places if end - begin >= 2 * SHORTEST]
    if not places:
        raise ConjureError("these files have no line of code to take out")
    draw = rng(derive(0, "gaps", kind))
    chosen = draw.permutation(len(places))[:count]
    cases = []
    for text, begin, end in (places[i] for i in chosen):
        at = begin if kind == "line" else int(draw.integers(begin + 1, end - SHORTEST + 1))
        cases.append((text[:at], text[at:end], text[end:]))
    return cases
