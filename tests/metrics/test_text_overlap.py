from __future__ import annotations

import pytest

from conjure.metrics.text_overlap import edit_similarity, rouge_l, word_f1


def test_edit_similarity() -> None:
    assert edit_similarity("", "") == edit_similarity("abc", "abc") == 1
    assert edit_similarity("abc", "") == edit_similarity("abc", "xyz") == 0
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("flaw", "lawn") == pytest.approx(0.5)


def test_word_f1() -> None:
    assert word_f1("The cat.", "the CAT") == 1
    assert word_f1("a b c", "c b d d") == pytest.approx(2 * 2 / 7)
    assert word_f1("a a", "a") == pytest.approx(2 / 3)
    assert word_f1("x", "y") == 0 and word_f1("", "") == 1 and word_f1("", "y") == 0


def test_rouge_l_counts_the_common_order() -> None:
    assert rouge_l("a b c d", "a b c d") == 1
    assert rouge_l("a c b d", "a b c d") == pytest.approx(2 * 3 / 8)
    assert rouge_l("d c b a", "a b c d") == pytest.approx(2 * 1 / 8)
    assert rouge_l("x", "y") == 0
