from __future__ import annotations

import builtins
from typing import Any

import jiwer
import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from conjure.core.errors import ConjureError
from conjure.metrics.word_errors import Errors, character_errors, plain, word_errors

SAID = ["The sea was blue.", "Alice wrote a letter", "in Paris, it is said"]
HEARD = ["the see was very blue", "ALICE wrote letter!", "in Paris it is said"]


def test_counts_by_hand() -> None:
    errors, (low, high) = word_errors(HEARD, SAID)
    assert errors == Errors(substitutions=1, deletions=1, insertions=1, total=13)
    assert errors.rate == 3 / 13 and 0 <= low <= errors.rate <= high <= 0.5
    assert word_errors(SAID, SAID) == (Errors(0, 0, 0, 13), (0.0, 0.0))
    assert word_errors(["a b c d"], ["a"])[0].rate == 3


def test_rates_are_those_of_jiwer_over_all_texts() -> None:
    wanted, found = [plain(each) for each in SAID], [plain(each) for each in HEARD]
    assert word_errors(HEARD, SAID)[0].rate == pytest.approx(jiwer.wer(wanted, found))
    assert character_errors(HEARD, SAID)[0].rate == pytest.approx(jiwer.cer(wanted, found))


def test_characters_by_hand() -> None:
    assert character_errors(["abd"], ["abcd"])[0] == Errors(0, 1, 0, 4)


@pytest.mark.parametrize(
    "text", ["Hello, World!", "[Music] It's (softly) <noise> 12.5 %", "Ça va? Straße… naïve", "e\u0301te\u0301 2²", " "]
)
def test_texts_are_made_plain_as_the_reference_does(text: str) -> None:
    assert plain(text) == BasicTextNormalizer()(text).strip()


def test_another_idea_of_sameness() -> None:
    assert word_errors(["The Sea."], ["the sea"], same=str)[0].rate == 1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConjureError, match="got 1 and 2"):
        word_errors(["a"], ["a", "b"])
    with pytest.raises(ConjureError, match="got 0 and 0"):
        word_errors([], [])
    with pytest.raises(ConjureError, match="words in them"):
        word_errors(["a"], ["[silence]"])


def test_without_jiwer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "jiwer":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConjureError, match="need jiwer"):
        word_errors(["a"], ["a"])
