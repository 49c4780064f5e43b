from __future__ import annotations

import pytest

from conjure.data.phrases import article, plural, spoken, synonyms


@pytest.mark.parametrize(
    "name, plain",
    [
        ("flag: Côte d’Ivoire", "flag of cote divoire"),
        ("keycap: #", "keycap hash"),
        ("keycap: *", "keycap asterisk"),
        ("man’s shoe", "mans shoe"),
        ("A Small,  red-hot  Poker!", "a small red hot poker"),
        ("salt & pepper", "salt and pepper"),
        ("piñata", "pinata"),
        ("snake_case", "snake case"),
        ("1st place", "1st place"),
        ("", ""),
    ],
)
def test_spoken(name: str, plain: str) -> None:
    assert spoken(name) == plain
    assert spoken(plain) == plain, "what is plain stays as it is"


@pytest.mark.parametrize(
    "phrase, wanted",
    [
        ("apple", "an"), ("umbrella", "an"), ("hourglass", "an"), ("ice cream", "an"), ("orange car", "an"),
        ("unicorn", "a"), ("ukulele", "a"), ("utensil", "a"), ("user", "a"), ("house", "a"), ("yo yo", "a"),
        ("small apple", "a"),
    ],
)  # fmt: skip
def test_article(phrase: str, wanted: str) -> None:
    assert article(phrase) == wanted


@pytest.mark.parametrize(
    "one, many",
    [
        ("cat", "cats"), ("box", "boxes"), ("church", "churches"), ("brush", "brushes"), ("glass", "glasses"),
        ("berry", "berries"), ("toy", "toys"), ("scissors", "scissors"), ("woman", "women"), ("fireman", "firemen"),
        ("human", "humans"), ("person", "people"), ("mouse", "mice"), ("leaf", "leaves"), ("sheep", "sheep"),
        ("fire engine", "fire engines"), ("old woman", "old women"), ("computer mouse", "computer mice"),
    ],
)  # fmt: skip
def test_plural(one: str, many: str) -> None:
    assert plural(one) == many


def test_a_synonym_belongs_to_the_thing_it_describes_most_narrowly() -> None:
    names = ["red apple", "cherry", "green apple"]
    keywords = [("apple", "fruit", "red"), ("fruit", "Stone"), ("apple", "fruit", "cherry", "red apples")]
    assert synonyms(names, keywords, frozenset({"red"})) == [("apple",), ("fruit", "stone"), ()]


def test_words_of_the_grammar_and_names_are_no_synonyms() -> None:
    assert synonyms(["cat", "dog"], [("left", "dog", "dogs", ""), ("cats",)], frozenset({"left"})) == [(), ()]
