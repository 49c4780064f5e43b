"""Small letters and back."""

from __future__ import annotations

import pytest

from conjure.codecs.plain_letters import SYMBOLS, encode, sentence, spelled


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  President's car -- a Lincoln!", "the president's car a lincoln"),
        ("'Tis the dogs' \u2018own\u2019 \u201cCaf\u00e9\u201d", "tis the dogs own cafe"),
        ("well-known\nM\u00fcller", "well known muller"),
        ("it\u2019s", "it's"),
        ("\u4f60\u597d 12", ""),
    ],
)
def test_what_is_spelled(text: str, wanted: str) -> None:
    assert spelled(text) == wanted
    assert spelled(wanted) == wanted


def test_ids_are_those_of_the_symbols() -> None:
    assert "".join(SYMBOLS[n] for n in encode("It's a Dog.")) == "it's a dog"
    assert SYMBOLS[0] == ""
    assert len(set(SYMBOLS)) == len(SYMBOLS) == 29


def test_a_sentence_has_capitals_and_a_stop() -> None:
    assert sentence("mister smith said i'm late and i know") == "Mr. smith said I'm late and I know."
    assert sentence("good day mister") == "Good day Mr."
    assert sentence("") == ""
    words = "i saw missus jones"
    assert len(sentence(words).split()) == len(words.split())
