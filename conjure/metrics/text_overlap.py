"""How close a text comes to the one that was asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def edit_similarity(found: str, wanted: str) -> float:
    """1 - Levenshtein distance / length of the longer: 1 where they are equal, 0 where nothing is shared."""
    longest = max(len(found), len(wanted))
    return 1 - _distance(found, wanted) / longest if longest else 1.0


def _distance(a: str, b: str) -> int:
    """Insertions, deletions and replacements of characters that lead from `a` to `b` (Wagner and Fischer 1974)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (x != y))
    return row[-1]


def word_f1(found: str, wanted: str) -> float:
    """Harmonic mean of precision and recall over words, case and punctuation aside (SQuAD, arXiv 1606.05250)."""
    a, b = _words(found), _words(wanted)
    shared = sum((Counter(a) & Counter(b)).values())
    return 2 * shared / (len(a) + len(b)) if shared else float(a == b)


def rouge_l(found: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, ROUGE-L with beta 1)."""
    a, b = _words(found), _words(wanted)
    shared = _common(a, b)
    return 2 * shared / (len(a) + len(b)) if shared else float(a == b)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
