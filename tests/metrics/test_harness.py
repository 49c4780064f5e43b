from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.metrics import harness
from conjure.metrics.harness import Scored, Subject

LETTERS = "_abcdefgh ."  # 0 is the beginning of a text


class Bigram:
    """After letter i comes i + 1 with odds of e**2 against each other letter; counts what it reads."""

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []

    def logits(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        assert (ids_BT * (1 - mask_BT) == 0).all()
        self.read.append((ids_BT.shape[0], ids_BT.shape[1]))
        return 2.0 * torch.nn.functional.one_hot((ids_BT + 1) % len(LETTERS), len(LETTERS)).float()


def write(prompts: Sequence[Sequence[int]], tokens: int, stop: Sequence[str]) -> list[list[int]]:
    return [[(prompt[-1] + 1 + k) % len(LETTERS) for k in range(tokens)] for prompt in prompts]


def subject(model: Bigram, *, context: int = 8, prefix: int | None = 0, special: bool = False) -> Subject:
    """A letter a token; "gh" is one token, which merges across the border of context and continuation."""

    def encode(text: str, add: bool) -> list[int]:
        ids = [LETTERS.index(letter) for letter in text.replace("gh", "h")]
        return [0, *ids] if add and special else ids

    return Subject(
        logits=model.logits, encode=encode, decode=lambda ids: "".join(LETTERS[i] for i in ids), write=write,
        vocabulary=len(LETTERS), prefix=prefix, prefix_text="_", end_text="", context=context,
    )  # fmt: skip


LIKELY = 2 - math.log(math.exp(2) + len(LETTERS) - 1)
UNLIKELY = LIKELY - 2


def test_log_likelihoods_in_closed_form() -> None:
    asked = [("a", "bcd"), ("ab", "d"), ("", "a"), ("", "_a"), ("abc", "dd"), ("a", "b")]
    told: list[int] = []
    found = harness.loglikelihood(subject(Bigram()), asked, told.append)
    likely = [(3, 0), (0, 1), (1, 0), (1, 0), (1, 1), (1, 0)]
    assert sum(told) == len(asked)
    for each, (good, bad) in zip(found, likely, strict=True):
        assert each.logprob == pytest.approx(good * LIKELY + bad * UNLIKELY, abs=1e-5)
        assert (each.greedy, each.tokens) == (bad == 0, good + bad)


def test_context_and_continuation_are_cut_as_one_text() -> None:
    plain, marked = subject(Bigram()), subject(Bigram(), special=True)
    ids = LETTERS.index
    assert harness.encoded_pair(plain, "a  ", "b") == ([1], [ids(" "), ids(" "), 2])
    assert harness.encoded_pair(marked, "a", "b") == ([0, 1], [2])
    assert harness.encoded_pair(marked, "_a", "b") == ([0, 1], [2]), "no second mark before one that is there"
    assert harness.encoded_pair(plain, "", "ab") == ([0], [1, 2])
    assert harness.encoded_pair(plain, "", "_b") == ([0], [2])
    assert harness.encoded_pair(plain, "  ", "b") == ([0], [ids(" "), ids(" "), 2])
    assert harness.encoded_pair(plain, "ag", "hb") == ([1, 7], [2]), "what merged belongs to the context's length"
    with pytest.raises(ConjureError, match="no token of its own"):
        harness.encoded_pair(plain, "ag", "h")


def test_a_context_loses_its_left_end() -> None:
    model = Bigram()
    (found,) = harness.loglikelihood(subject(model, context=3), [("hhhhab", "cd")])
    assert model.read == [(1, 3)]
    assert found == Scored(pytest.approx(2 * LIKELY, abs=1e-5), True, 2)  # type: ignore[arg-type]
    with pytest.raises(ConjureError, match="4 tokens, the model reads 3"):
        harness.loglikelihood(subject(model, context=3), [("a", "bcde")])


def test_rows_that_read_the_same_are_read_once_and_lengths_are_kept_together() -> None:
    model = Bigram()
    answers = harness.loglikelihood(subject(model, context=100), [("abc", letter) for letter in "abcd"])
    assert model.read == [(1, 3)] and [each.greedy for each in answers] == [False, False, False, True]
    rows = sorted({tuple(range(n)) for n in range(4, 80)}, key=lambda row: -len(row))
    batches = list(harness.batches(rows, 10))
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch[-1]) >= harness.SHORTEST * len(batch[0]) for batch in batches)
    assert max(map(len, harness.batches([(1,)] * 100, 10))) == harness.ROWS
    assert all(len(batch) == 1 for batch in harness.batches([(1,) * 100] * 3, harness.LOGITS))


def test_padding_changes_nothing() -> None:
    asked = [("abcdefabc"[:n], "abcdefabc"[n]) for n in range(1, 9)]
    together = harness.loglikelihood(subject(Bigram()), asked)
    assert together == [harness.loglikelihood(subject(Bigram()), [each])[0] for each in asked]


@pytest.mark.parametrize("count", range(10))
def test_windows_predict_each_token_once(count: int) -> None:
    ids = list(range(10, 10 + count))
    windows = list(harness.rolling_windows(ids, 9, 4))
    assert [token for _, targets in windows for token in targets] == ids
    assert all(len(before) + len(targets) == min(5, count + 1) for before, targets in windows)
    text = [9, *ids]
    for before, targets in windows:
        at = text.index(targets[0])
        assert before == text[max(0, at - len(before)) : at]


def test_whole_texts() -> None:
    found = harness.loglikelihood_rolling(subject(Bigram(), context=4), ["abcdef.b", "", "ab"])
    assert found == [pytest.approx(6 * LIKELY + 2 * UNLIKELY, abs=1e-4), 0.0, pytest.approx(2 * LIKELY, abs=1e-5)]


def test_writing_stops_at_the_first_string_and_prompts_lose_their_left_end() -> None:
    seen: list[list[int]] = []

    def watched(prompts: Sequence[Sequence[int]], tokens: int, stop: Sequence[str]) -> list[list[int]]:
        seen.extend(list(prompt) for prompt in prompts)
        assert list(stop) == ["f", "ef", "."]
        return write(prompts, tokens, stop)

    own = dataclasses.replace(subject(Bigram()), write=watched, end_text=".")
    told: list[int] = []
    found = harness.generate_until(own, ["a", "hhhhhab", ""], stop=["f", "ef"], tokens=6, advance=told.append)
    assert found == ["bcde", "cde", "abcde"] and sum(told) == 3, "the first string cuts before the second is looked for"
    assert harness.cut("bcdefg", ["ef", "f"]) == "bcd"
    assert seen == [[1, 2], [1], [0]]
    with pytest.raises(ConjureError, match="8 new tokens"):
        harness.generate_until(own, ["a"], stop=["f", "ef"], tokens=8)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ConjureError, match="neither a beginning nor an end"):
        harness.loglikelihood(subject(Bigram(), prefix=None), [("", "a")])
    broken = dataclasses.replace(subject(Bigram()), logits=lambda ids, mask: torch.full((*ids.shape, 11), math.nan))
    with pytest.raises(ConjureError, match="NaN"):
        harness.loglikelihood(broken, [("a", "b")])
    assert dataclasses.replace(broken, context=0).longest == 2048
