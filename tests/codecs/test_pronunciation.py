from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from conjure.codecs.pronunciation import FILE, PHONES, SIGNS, Pronunciation
from conjure.codecs.spoken_text import LETTERS
from conjure.core.errors import ConjureError

VOWELS = {"a": "ae", "e": "eh", "i": "ih", "o": "aa", "u": "ah"}
CONSONANTS = {"b": "b", "c": "k", "d": "d", "f": "f", "g": "g", "k": "k", "m": "m", "n": "n", "p": "p", "t": "t"}


@pytest.fixture(scope="module")
def sounds() -> dict[str, tuple[str, ...]]:
    """A small language: letters have one sound, but sh is one phone, x two, c before i is soft, the last e silent."""
    made: dict[str, tuple[str, ...]] = {}
    for a, v, b in itertools.product(CONSONANTS, VOWELS, CONSONANTS):
        first = "s" if (a, v) in (("c", "i"), ("c", "e")) else CONSONANTS[a]
        made[f"{a}{v}{b}"] = (first, VOWELS[v], CONSONANTS[b])
        last = "s" if b == "c" else CONSONANTS[b]
        made[f"{a}{v}{b}e"] = (first, VOWELS[v], last)
        made[f"sh{v}{b}"] = ("sh", VOWELS[v], CONSONANTS[b])
        made[f"{a}{v}x"] = (first, VOWELS[v], "k", "s")
    made["gob"] = ("jh", "ow", "b", "z")  # an exception
    return made


@pytest.fixture(scope="module")
def learnt(sounds: dict[str, tuple[str, ...]]) -> Pronunciation:
    return Pronunciation.learnt(sounds)


def test_what_was_learnt_is_said(learnt: Pronunciation, sounds: dict[str, tuple[str, ...]]) -> None:
    assert {word: learnt.of(word) for word in sounds} == sounds
    assert learnt.exceptions.keys() >= {"gob"} and learnt.known < len(sounds) / 10


def test_rules_say_what_was_never_seen(learnt: Pronunciation, sounds: dict[str, tuple[str, ...]]) -> None:
    for word, phones in {"batnip": "b ae t n ih p", "shapmex": "sh ae p m eh k s", "cinbat": "s ih n b ae t"}.items():
        assert word not in sounds and learnt.of(word) == tuple(phones.split())


def test_endings_letters_and_neighbours(learnt: Pronunciation) -> None:
    assert learnt.of("bat's") == ("b", "ae", "t", "s")
    assert learnt.of("bad's") == ("b", "ae", "d", "z")
    assert learnt.of("bax's")[-3:] == ("s", "ax", "z")
    assert learnt.of_words(["a", "bat", "the", "bat", "the"]) == [
        ("ax",), ("b", "ae", "t"), ("dh", "ax"), ("b", "ae", "t"), learnt.of("the")]  # fmt: skip
    assert learnt.of_words(["the", "em"])[0] == ("dh", "iy")
    for name in LETTERS.values():
        assert all(learnt.of(part) for part in name.split("-"))


def test_no_word_is_silent() -> None:
    mute = Pronunciation({}, {})
    assert mute.of("Bw") == ("b", "iy", *"d ah b ax l y uw".split())
    for word in ("", "'", "two words", "naïve", "a1"):
        with pytest.raises(ConjureError, match="word of letters"):
            mute.of(word)


def test_a_file(learnt: Pronunciation, tmp_path: Path) -> None:
    learnt.save(tmp_path)
    again = Pronunciation.load(tmp_path)
    assert (again.rules, again.exceptions) == (learnt.rules, learnt.exceptions)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ConjureError, match="not JSON"):
        Pronunciation.load(tmp_path)
    (tmp_path / FILE).write_text('{"phones": []}')
    with pytest.raises(ConjureError, match="another format"):
        Pronunciation.load(tmp_path)
    with pytest.raises(ConjureError, match="found none"):
        Pronunciation.load(tmp_path / "nowhere")


def test_each_phone_has_a_sign() -> None:
    assert len(SIGNS) == len(set(SIGNS)) == len(PHONES) == len(set(PHONES)) == 41
