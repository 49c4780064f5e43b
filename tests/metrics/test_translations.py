from __future__ import annotations

import builtins
import math
from typing import Any

import pytest

from conjure.core.errors import ConjureError
from conjure.metrics.translations import closeness

WANTED = ["the cat sat on the mat today", "Tom likes his old house", "it rains", "we saw a big red boat"]
FOUND = ["the cat sat on a mat today", "Tom likes his old house", "it rains", "we saw the big boat"]


def test_bleu_by_hand() -> None:
    # Of words, pairs, triples and fours: how many of those found stand in the reference. Lengths 19 against 20.
    hits, totals = (6 + 5 + 2 + 4, 4 + 4 + 1 + 1, 2 + 3 + 0 + 0, 1 + 2 + 0 + 0), (19, 15, 11, 8)
    expected = 100 * math.exp(1 - 20 / 19) * math.prod(a / b for a, b in zip(hits, totals)) ** 0.25
    score = closeness(FOUND, WANTED)
    assert score.bleu.value == pytest.approx(expected)
    assert 0 <= score.bleu.low < score.bleu.value and score.chrf.low < score.chrf.value < score.chrf.high <= 100
    assert "tok:13a" in score.signatures[0] and "case:mixed" in score.signatures[0] and "nc:6" in score.signatures[1]


def test_equal_texts_are_a_hundred_and_draws_are_the_same_again() -> None:
    assert closeness(WANTED, WANTED).bleu.value == pytest.approx(100)
    assert closeness(FOUND, WANTED) == closeness(FOUND, WANTED)


def test_too_few_texts_and_no_library_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConjureError, match="at least two, got 1 and 1"):
        closeness(["a"], ["a"])
    with pytest.raises(ConjureError, match="got 2 and 4"):
        closeness(["a", "b"], WANTED)
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConjureError, match="BLEU needs sacrebleu"):
        closeness(FOUND, WANTED)
