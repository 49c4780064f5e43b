"""Guesses change how often the network is asked, not what is written."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch

from conjure.core.seeds import generator
from conjure.decoding.generate import Decoding, generate
from conjure.decoding.rows import Row
from conjure.decoding.sample import sample
from conjure.decoding.speculative import Lookup, accepted
from tests.decoding.networks import Letters, Table, toy

PROMPTS = [[1, 2, 3, 1, 2], [4], [5, 1, 2, 1, 2, 3]]
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.2, "no_repeat_ngram": 4},
    {},
    {"temperature": 0.3, "top_k": 4, "presence_penalty": 0.2, "logprobs": True},
]


class Repeating(Table):
    """Depends on the last two ids alone, so it comes back to what it said."""

    def state(self, ids: Any) -> int:
        return super().state(ids[-2:])


@pytest.mark.parametrize("settings", SETTINGS)
def test_prompt_lookup_writes_what_is_written_without(settings: dict[str, Any]) -> None:
    network, seeds = Repeating(sharpness=3.0), [1, 2, 3]
    plain = generate(network, Letters(), PROMPTS, Decoding(tokens=60, **settings), seeds=seeds, end=[0])
    network.given.clear()
    guessed = generate(network, Letters(), PROMPTS, Decoding(tokens=60, lookup=5, **settings), seeds=seeds, end=[0])
    assert guessed == plain
    assert len(network.given) < sum(len(each.ids) for each in plain)
    assert max(shape[1] for shape in network.given[1:]) == 6


@pytest.mark.parametrize("settings", SETTINGS[:2])
@pytest.mark.parametrize("context", [0, 16])
def test_a_greedy_draft_writes_what_is_written_without(settings: dict[str, Any], context: int) -> None:
    network, draft = toy(vocab=27), toy(vocab=27)
    with torch.no_grad():
        for weight in draft.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator(5))
    prompts, decoding = PROMPTS[:2], Decoding(tokens=25, guesses=3, **settings)
    plain = generate(network, Letters(), prompts, decoding, seeds=[0] * 2, context=context)
    for other in (draft, network, toy(vocab=27, seed=8)):
        found = generate(network, Letters(), prompts, decoding, seeds=[0] * 2, context=context, draft=other)
        assert found == plain


def test_a_draft_that_is_right_saves_most_passes() -> None:
    network, decoding = Table(sharpness=3.0), Decoding(tokens=40, guesses=4, temperature=0)
    (found,) = generate(network, Letters(), [[1, 2]], decoding, seeds=[0], draft=Table(sharpness=3.0))
    assert len(found.ids) == 40 and len(network.given) <= 10


def chi_squared(counts: Counter[tuple[int, ...]], shares: dict[tuple[int, ...], float], n: int) -> float:
    assert set(counts) <= {ids for ids, share in shares.items() if share > 0}
    return sum((counts[ids] - n * share) ** 2 / (n * share) for ids, share in shares.items() if share > 0)


@pytest.mark.parametrize(
    ("settings", "sharpness"), [({}, 1.0), ({"temperature": 0.8, "top_k": 2, "repetition_penalty": 1.5}, 2.0)]
)
def test_the_distribution_with_a_draft_is_that_without(settings: dict[str, Any], sharpness: float) -> None:
    network, draft, n = Table(vocab=3, sharpness=0.8), Table(vocab=3, seed=9, sharpness=sharpness), 600
    prompt, decoding = [1, 2], Decoding(tokens=4, guesses=2, logprobs=True, **settings)
    counts: Counter[tuple[int, ...]] = Counter()
    shares: dict[tuple[int, ...], float] = {}
    for seed in range(n):
        (found,) = generate(network, Letters(), [prompt], decoding, seeds=[seed], draft=draft)
        counts[tuple(found.ids)] += 1
        shares[tuple(found.ids)] = math.exp(sum(found.logprobs))
    exact = reference(network, prompt, decoding)
    for ids, share in shares.items():
        assert share == pytest.approx(exact[ids], abs=1e-6)
    often = {ids: share for ids, share in exact.items() if n * share >= 5}
    freedom = len(often) - 1
    limit = freedom + 3.1 * math.sqrt(2 * freedom) + 6  # above the 0.1 % point
    assert freedom > 5 and chi_squared(Counter({ids: counts[ids] for ids in often}), often, n) < limit


def reference(network: Table, prompt: list[int], decoding: Decoding) -> dict[tuple[int, ...], float]:
    """Probability of every text of four tokens, by the definitions of the filters."""
    shares = {}
    for ids in itertools.product(range(3), repeat=4):
        share = 1.0
        for i, token in enumerate(ids):
            known = [*prompt, *ids[:i]]
            logits = network.logits(known).clone()
            for seen in set(known):
                value, penalty = float(logits[seen]), decoding.repetition_penalty
                logits[seen] = value / penalty if value > 0 else value * penalty
            logits /= decoding.temperature
            if decoding.top_k:
                logits[logits < logits.topk(decoding.top_k).values[-1]] = -math.inf
            share *= float(logits.double().softmax(-1)[token])
        shares[ids] = share
    return shares


def test_what_is_not_accepted_comes_from_the_rest() -> None:
    # p = (.5, .3, .2, 0), q = (.2, .2, .2, .4): guesses are kept with min(1, p / q), the rest is (.3, .1, 0, 0) / .4.
    p = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    q_V, n, decoding = torch.tensor([0.2, 0.2, 0.2, 0.4], dtype=torch.float64), 1500, Decoding(logprobs=True)
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(n):
        row = Row(0, [1], seed=seed, decoding=decoding, end=[], tokenizer=Letters())
        guess = int(sample(q_V.log()[None].float(), [row.generator]))
        token = accepted(p.log(), row, decoding, (guess, q_V))
        assert token == guess or guess == 3
        assert row.logprobs == [pytest.approx(math.log(p[0, token]), abs=1e-6)]
        counts[(token,)] += 1
    assert chi_squared(counts, {(i,): float(p[0, i]) for i in range(4)}, n) < 13.8  # the 0.1 % point, 2 degrees


def test_lookup_finds_the_last_time_and_prefers_the_longer() -> None:
    lookup = Lookup()
    known = [1, 2, 3, 4, 1, 2, 5, 9, 2, 3, 7, 1, 2, 3]
    assert lookup(known, 4) == [4, 1, 2, 5]  # after 1 2 3
    assert lookup([*known, 7], 3) == [1, 2, 3]  # after 2 3 7
    known += [7, 8, 2, 3]
    assert lookup(known, 2) == [7, 8]  # 8 2 3 never came before: after the last 2 3
    assert lookup([*known, 6], 2) == [] and Lookup()([1], 3) == []
