"""The words beside the letters: probabilities by hand, and the score of a text read letter by letter."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from conjure.codecs.plain_letters import encode
from conjure.core.errors import ConjureError
from conjure.models.word_ngram import DISCOUNT, EDGE, NAME, OTHERS, STRANGE, WordNGram, perplexity

TEXTS = ["the cat sat", "the cat ran", "the dog ran", "a cat's dog", "the cat sat"]


@pytest.fixture(scope="module")
def words() -> WordNGram:
    return WordNGram.learnt(TEXTS)


def test_words_and_runs(words: WordNGram) -> None:
    assert words.words == ("a", "cat", "cat's", "dog", "ran", "sat", "the")
    runs = {tuple(run): int(count) for run, count in zip(words.runs.tolist(), words.counts, strict=True)}
    the, cat = words.ids["the"], words.ids["cat"]
    assert runs[EDGE, the, cat] == 3
    assert runs[the, cat, words.ids["sat"]] == 2
    assert runs[words.ids["cat"], words.ids["sat"], EDGE] == 2


@pytest.mark.parametrize("history", [(), ("cat",), ("the", "cat"), ("dog", "sat"), ("xyz", "cat"), ("the", "xyz")])
def test_chances_of_all_words_have_the_sum_one(words: WordNGram, history: tuple[str, ...]) -> None:
    known = tuple(words.ids.get(word, STRANGE) for word in history)
    chances = [words.chance(word, known) for word in range(words.size)]
    assert sum(chances) == pytest.approx(1, abs=1e-12)
    assert min(chances) > 0


def test_a_chance_by_hand(words: WordNGram) -> None:
    the, cat, sat = (words.ids[each] for each in ("the", "cat", "sat"))
    # Different words before each: 7 words with one another before, the edge with four.
    kinds = {(b, c) for _, b, c in words.runs.tolist()}
    left = DISCOUNT * len({c for _, c in kinds}) / len(kinds)
    p1 = (len([1 for _, c in kinds if c == sat]) - DISCOUNT) / len(kinds) + left / words.size
    after = [(a, c) for a, b, c in words.runs.tolist() if b == cat]  # each of them a different run
    p2 = (len([1 for _, c in after if c == sat]) - DISCOUNT) / len(after) + DISCOUNT * 2 / len(after) * p1
    p3 = (2 - DISCOUNT) / 3 + DISCOUNT * 2 / 3 * p2
    assert words.chance(sat, (the, cat)) == pytest.approx(p3, rel=1e-12)


OTHERS_SAY = [*["a zebra sat"] * 6, *["the zebra ran"] * 3, "the gnu ran"]


def test_other_texts_bring_words_and_pairs(tmp_path: Path) -> None:
    both = WordNGram.learnt(TEXTS, OTHERS_SAY)
    assert set(both.words) == {"a", "cat", "cat's", "dog", "ran", "sat", "the", "zebra"}  # one gnu is too few
    assert both.pairs is not None
    a, zebra, sat = (both.ids[each] for each in ("a", "zebra", "sat"))
    assert {tuple(run) for run in both.pairs.runs.tolist()} == {(EDGE, a), (a, zebra), (zebra, sat), (sat, EDGE)}
    for history in ((), (a,), (EDGE, a), (zebra,), (STRANGE, zebra), (both.ids["cat"],)):
        assert sum(both.chance(word, history) for word in range(both.size)) == pytest.approx(1, abs=1e-9)
    alone = 6 / 40  # of ten sentences of three words and an end
    behind = (6 - DISCOUNT) / 9 + (1 - (6 - DISCOUNT) / 9) * alone
    assert both.pairs.chance(sat, (zebra,)) == pytest.approx(behind)
    kept = WordNGram(both.words, both.runs, both.counts)
    assert both.chance(sat, (zebra,)) == pytest.approx((1 - OTHERS) * kept.chance(sat, (zebra,)) + OTHERS * behind)
    both.save(tmp_path)
    again = WordNGram.load(tmp_path)
    assert again is not None
    assert again.chance(sat, (zebra,)) == both.chance(sat, (zebra,))


def test_letter_by_letter_is_the_whole_sentence(words: WordNGram) -> None:
    tongue = words.tongue(0.5, 0.25, 2.0)
    assert tongue.end is not None
    for text, strange in (("the cat sat", 0), ("cat's dog", 0), ("the zebra ran", 5), ("th ca", 4)):
        known, total = tongue.begin, 0.0
        for symbol in encode(text):
            added, known = tongue.score(known, symbol)
            total += added
        total += tongue.end(known)
        ids = [EDGE, EDGE, *(words.ids.get(word, STRANGE) for word in text.split()), EDGE]
        nats = sum(math.log(words.chance(c, (a, b))) for a, b, c in zip(ids, ids[1:], ids[2:], strict=False))
        count = len(text.split())
        assert total == pytest.approx(0.5 * (nats - 2.0 * strange) + 0.25 * count, abs=1e-9)


def test_a_word_that_is_no_beginning_is_behind_at_once(words: WordNGram) -> None:
    tongue = words.tongue(1.0, 0.0, 2.0)

    def after(text: str) -> float:
        known, total = tongue.begin, 0.0
        for symbol in encode(text):
            added, known = tongue.score(known, symbol)
            total += added
        return total

    assert after("ca") > after("cx")
    assert after("th") > after("ra")  # the likelier word is ahead already


def test_what_was_saved_is_the_same(words: WordNGram, tmp_path: Path) -> None:
    words.save(tmp_path)
    read = WordNGram.load(tmp_path)
    assert read is not None
    assert read.words == words.words
    for a, b, c in itertools.product(range(4), repeat=3):
        assert read.chance(c, (a, b)) == words.chance(c, (a, b))
    np.testing.assert_array_equal(read.runs, words.runs)
    assert WordNGram.load(tmp_path / "none") is None
    (tmp_path / NAME).write_bytes(b"torn")
    with pytest.raises(ConjureError, match="not a whole safetensors file"):
        WordNGram.load(tmp_path)


def test_perplexity_is_lower_where_sentences_are_known(words: WordNGram) -> None:
    known, none = perplexity(words, ["the cat sat"])
    other, some = perplexity(words, ["sat the zebra"])
    assert known < other
    assert none == 0
    assert some == pytest.approx(1 / 4)


def test_no_sentences() -> None:
    with pytest.raises(ConjureError, match="different words, got 0"):
        WordNGram.learnt(["", "!"])
