"""Batches: a text alone is the same text among others; what ends leaves; errors say what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.decoding.generate import Decoding, Generation, generate
from conjure.models.transformer import Transformer
from conjure.nn.cache import Cache
from tests.decoding.networks import Letters, Remembering, Table, toy

PROMPTS = [[1, 2, 3], [4], [5, 1, 1, 2, 3, 4, 5, 5], [2, 2]]
SEEDS = [11, 12, 13, 14]


def one(network: Any, prompt: list[int], decoding: Decoding, seed: int = 1, **more: Any) -> Generation:
    (found,) = generate(network, Letters(), [prompt], decoding, seeds=[seed], **more)
    return found


def greedy_without_cache(network: Transformer, ids: list[int], tokens: int, context: int) -> list[int]:
    """The rule in its plainest form: read everything again for every token."""
    known, begin = list(ids), 0
    with torch.inference_mode():
        for _ in range(tokens):
            if len(known) - begin > context:
                begin = len(known) - context // 2
            known.append(int(network(torch.tensor([known[begin:]]))[0, -1].argmax()))
    return known[len(ids) :]


@pytest.mark.parametrize("max_length", [0, 32], ids=["rope", "learned"])
def test_greedy_rows_of_a_padded_batch_are_those_of_each_read_whole(max_length: int) -> None:
    network, context = toy(max_length=max_length), 32
    prompts = [list(range(5, 5 + n)) for n in (3, 17, 9, 32)]
    expected = [greedy_without_cache(network, ids, 40, context) for ids in prompts]
    assert all(len(set(ids)) > 5 for ids in expected)
    found = generate(
        network, Letters(), prompts, Decoding(tokens=40, temperature=0), seeds=[0] * 4, context=context
    )  # each outgrows its context at another time
    assert [each.ids for each in found] == expected
    assert {each.ended for each in found} == {"length"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "typical_p": 0.9},
        {"no_repeat_ngram": 2, "min_p": 0.05},
    ],
)
def test_a_text_alone_is_what_it_is_among_others(settings: dict[str, Any]) -> None:
    network = toy(vocab=27)
    prompts, seeds = [*PROMPTS, [9, 8], [7], [3, 2, 1], [6] * 5], list(range(21, 29))
    decoding = Decoding(tokens=30, **settings)
    together = generate(network, Letters(), prompts, decoding, seeds=seeds, end=[0], context=64)
    for prompt, seed, among in zip(prompts, seeds, together):
        assert one(network, prompt, decoding, seed, end=[0], context=64) == among
    assert len({each.text for each in together}) == 8


def test_rows_that_end_leave_the_batch() -> None:
    network = Table(sharpness=1.0)
    found = generate(network, Letters(), PROMPTS, Decoding(tokens=30), seeds=SEEDS, end=[0])
    lengths = sorted(len(each.ids) for each in found)
    assert lengths[0] < lengths[-1]
    expected = [(4, 8)] + [(sum(n > step for n in lengths), 1) for step in range(1, lengths[-1])]
    assert network.given == expected


def test_texts_end_at_the_end_mark_which_is_drawn_but_no_text() -> None:
    found = one(Table(sharpness=1.0), [1, 2], Decoding(tokens=100, logprobs=True), end=[0])
    assert found.ended == "end" and found.ids[-1] == 0 and 0 not in found.ids[:-1]
    assert found.text == Letters().decode(found.ids) and len(found.logprobs) == len(found.ids)


def test_stop_strings_end_a_text_before_them() -> None:
    network = Table(sharpness=1.0)
    free = one(network, [1, 2], Decoding(tokens=60, suppress=(0,)), seed=5)
    stop = free.text[7:10]
    found = one(network, [1, 2], Decoding(tokens=60, suppress=(0,), stop=(stop,)), seed=5)
    assert found.ended == "stop" and found.text == free.text[: free.text.index(stop)]
    assert found.ids == free.ids[: len(found.text) + 3]


def test_equal_prompts_are_read_once() -> None:
    network = Table()
    found = generate(network, Letters(), [[1, 2, 3]] * 3, Decoding(tokens=9), seeds=[1, 2, 3])
    assert network.given[0] == (1, 3)
    for seed, each in enumerate(found, 1):
        assert one(network, [1, 2, 3], Decoding(tokens=9), seed) == each


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5, "top_k": 3}, {"repetition_penalty": 2.0, "top_p": 0.8}])
def test_logprobs_are_those_of_the_distribution_that_was_drawn_from(settings: dict[str, Any]) -> None:
    network = Table(vocab=5)
    decoding = Decoding(tokens=4, logprobs=True, alternatives=5, **settings)
    found = one(network, [1, 2], decoding, 3)
    # The shares of many first tokens are the probabilities that are stated for them.
    stated = dict(found.alternatives[0])
    assert abs(sum(map(math.exp, stated.values())) - 1) < 1e-9
    assert found.logprobs == [dict(place)[token] for place, token in zip(found.alternatives, found.ids)]
    assert found.score == pytest.approx(sum(found.logprobs) / 4)
    n, first = 1200, Decoding(tokens=1, **settings)
    drawn = generate(network, Letters(), [[1, 2]] * n, first, seeds=range(n))
    for token in range(5):
        share = sum(each.ids == [token] for each in drawn) / n
        assert share == pytest.approx(math.exp(stated.get(token, -math.inf)), abs=0.05)


def test_greedy_logprobs_are_those_of_the_network() -> None:
    network = Table()
    found = one(network, [1, 2], Decoding(tokens=6, temperature=0, logprobs=True))
    known = [1, 2]
    for token, logprob in zip(found.ids, found.logprobs):
        assert logprob == pytest.approx(float(network.logits(known).log_softmax(-1)[token]), abs=1e-6)
        assert token == int(network.logits(known).argmax())
        known.append(token)


def test_best_of_keeps_the_likeliest_and_the_first_is_what_one_draw_gives() -> None:
    network = Table()
    three = generate(network, Letters(), [[1], [2]], Decoding(tokens=5, best_of=6, best=6), seeds=[1, 2])
    assert len(three) == 12
    for k, seed in ((0, 1), (1, 2)):
        takes = three[6 * k : 6 * k + 6]
        assert [take.score for take in takes] == sorted((take.score for take in takes), reverse=True)
        assert one(network, [k + 1], Decoding(tokens=5), seed).text in [take.text for take in takes]
        assert one(network, [k + 1], Decoding(tokens=5, best_of=6), seed) == takes[0]


def test_forced_and_suppressed_ids_and_the_least_length() -> None:
    decoding = Decoding(
        tokens=40, forced_first=(5, 5), suppress=(3,), suppress_first=(1, 2, 4), min_tokens=7, logit_bias={0: 3.0}
    )
    for seed in range(20):
        ids = one(Table(sharpness=0.5), [1], decoding, seed, end=[0]).ids
        assert ids[:2] == [5, 5] and ids[2] == 5 and 3 not in ids and len(ids) >= 8
    assert len(one(Table(sharpness=0.5), [1], decoding, 1, end=[0]).ids) < 40


def test_tokens_are_told_as_they_come() -> None:
    told: list[tuple[int, int, str]] = []
    found = generate(
        Table(sharpness=1.0), Letters(), PROMPTS, Decoding(tokens=12, stop=("zz",)), seeds=SEEDS, end=[0],
        on_token=lambda *step: told.append(step),
    )  # fmt: skip
    for index, each in enumerate(found):
        assert [token for row, token, _ in told if row == index] == each.ids
        assert "".join(piece for row, _, piece in told if row == index) == each.text


class Constant(Remembering):
    """The same logits for ever, but for one place."""

    def __init__(self, wrong: float) -> None:
        self.wrong = wrong

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        self.read(ids_BT, cache)
        logits_BV = torch.zeros(len(ids_BT), 1, 5)
        if cache.length == 5:
            logits_BV[-1, 0, 3] = self.wrong
        return logits_BV


@pytest.mark.parametrize("settings", [{"temperature": 0}, {}, {"beams": 2}, {"top_p": 0.5}])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_end_in_a_message_that_says_where(wrong: float, settings: dict[str, Any]) -> None:
    with pytest.raises(ConjureError, match=r"token 3.*no finite numbers") as error:
        generate(Constant(wrong), Letters(), [[1], [1, 2, 3]], Decoding(**settings), seeds=[0, 0])
    assert "beams" in settings or "of text 2" in error.value.message


def test_nothing_left_to_draw_is_an_error() -> None:
    with pytest.raises(ConjureError, match="token 1 of text 1: the rules leave no token"):
        one(Table(vocab=3), [1], Decoding(suppress=(0, 1, 2)))


@pytest.mark.parametrize(
    ("prompts", "seeds", "message"),
    [
        ([], [], "at least one prompt"),
        ([[1], []], [0, 0], "prompt 2: there is nothing to continue"),
        ([[1] * 9], [0], "reads at most 8 tokens, the prompt has 9"),
        ([[1, 27]], [0], "token 27: expected ids from 0 to 26"),
        ([[1], [-3]], [0, 0], "prompt 2: token -3"),
        ([[1], [2]], [0], "as many seeds as prompts, got 1 and 2"),
    ],
)
def test_what_cannot_be_continued(prompts: list[list[int]], seeds: list[int], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        generate(toy(vocab=27), Letters(), prompts, Decoding(), seeds=seeds, context=8)


@pytest.mark.parametrize("settings", [{"suppress": (99,)}, {"logit_bias": {-1: 2.0}}, {"forced_first": (6,)}])
def test_ids_of_settings_outside_the_vocabulary(settings: dict[str, Any]) -> None:
    with pytest.raises(ConjureError, match="expected an id from 0 to 5"):
        one(Table(), [1], Decoding(**settings))
