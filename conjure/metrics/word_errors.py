"""How much of what was said was understood: word and character error rates, by jiwer's alignment.

What is counted as the same word matters more than how errors are counted, so both texts go through `plain` first, the
language-independent rules that Whisper's results were published with (Radford et al. 2022, arXiv 2212.04356,
appendix C): case, punctuation, symbols and what stands in brackets do not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng

DRAWS = 1000
"""Of the bootstrap."""


def plain(text: str) -> str:
    """Lower case, without punctuation, symbols, and what stands in brackets; single spaces."""
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    text = re.sub(r"\(([^)]+?)\)", "", text)
    kept = (" " if unicodedata.category(each)[0] in "MSP" else each for each in unicodedata.normalize("NFKC", text))
    return " ".join("".join(kept).lower().split())


@dataclass(frozen=True)
class Errors:
    """Counts over some texts; `total` is the number of words (or characters) that were wanted."""

    substitutions: int
    deletions: int
    insertions: int
    total: int

    @property
    def rate(self) -> float:
        """Errors a wanted word: 0 is perfect, above 1 more was written than said."""
        return (self.substitutions + self.deletions + self.insertions) / self.total


def word_errors(
    found: Sequence[str], wanted: Sequence[str], same: Callable[[str], str] = plain
) -> tuple[Errors, tuple[float, float]]:
    """(errors, the interval that holds their rate with 95 % confidence by a bootstrap over texts): WER."""
    return _errors(found, wanted, same, lambda jiwer: jiwer.process_words)


def character_errors(
    found: Sequence[str], wanted: Sequence[str], same: Callable[[str], str] = plain
) -> tuple[Errors, tuple[float, float]]:
    """The same over characters, spaces included: CER."""
    return _errors(found, wanted, same, lambda jiwer: jiwer.process_characters)


def _errors(
    found: Sequence[str], wanted: Sequence[str], same: Callable[[str], str], way: Callable[[Any], Callable[..., Any]]
) -> tuple[Errors, tuple[float, float]]:
    try:
        import jiwer
    except ImportError:
        raise ConjureError("error rates need jiwer", hint="pip install jiwer") from None
    if len(found) != len(wanted) or not wanted:
        raise ConjureError(f"expected as many texts as were wanted, at least one, got {len(found)} and {len(wanted)}")
    pairs = [(same(a), same(b)) for a, b in zip(found, wanted, strict=True)]
    if any(not b for _, b in pairs):
        raise ConjureError("expected texts with words in them to compare with, got one without",
                           hint="count words in silence apart")  # fmt: skip
    compare = way(jiwer)
    each = [compare(reference=b, hypothesis=a) for a, b in pairs]
    rows = np.array([(x.substitutions, x.deletions, x.insertions, x.hits) for x in each])
    totals_N = rows[:, 0] + rows[:, 1] + rows[:, 3]
    wrong_N = rows[:, :3].sum(1)
    drawn = rng(0).integers(0, len(rows), (DRAWS, len(rows)))
    low, high = np.quantile(wrong_N[drawn].sum(1) / totals_N[drawn].sum(1), (0.025, 0.975))
    substituted, deleted, inserted = (int(value) for value in rows[:, :3].sum(0))
    return Errors(substituted, deleted, inserted, int(totals_N.sum())), (float(low), float(high))
