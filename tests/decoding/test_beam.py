"""Beam search against transformers', and against all texts there are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from conjure.decoding.generate import Decoding, Generation, generate
from tests.decoding.networks import Letters, Table, Whole, toy


@pytest.fixture(scope="module")
def peer() -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = GPT2Config(vocab_size=23, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.4)
        return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ({"beams": 4, "best": 4}, {}),
        ({"beams": 3, "best": 2, "length_penalty": 0.0}, {"length_penalty": 0.0}),
        ({"beams": 5, "best": 5, "length_penalty": 2.0}, {"length_penalty": 2.0}),
        ({"beams": 3, "best": 3, "length_penalty": -1.0}, {"length_penalty": -1.0}),
        (
            {"beams": 4, "best": 3, "repetition_penalty": 1.4, "no_repeat_ngram": 2, "min_tokens": 5},
            {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
        ),
        ({"beams": 2, "best": 2, "suppress": (3, 4)}, {"suppress_tokens": [3, 4]}),
    ],
)
@pytest.mark.parametrize("ends", [[0], [0, 7, 9]])
def test_texts_and_scores_are_those_of_transformers(
    peer: GPT2LMHeadModel, ours: dict[str, Any], others: dict[str, Any], ends: list[int]
) -> None:
    prompts, tokens = [[5, 6, 7], [1], [9, 9, 8, 2, 11]], 8
    network = Whole(lambda ids_BT: peer(ids_BT).logits)
    decoding = Decoding(tokens=tokens, **ours)
    found = generate(network, Letters(), prompts, decoding, seeds=[0] * 3, end=ends)
    for index, prompt in enumerate(prompts):
        expected = peer.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), num_beams=ours["beams"],
            num_return_sequences=ours["best"], max_new_tokens=tokens, early_stopping=False, do_sample=False,
            eos_token_id=ends, pad_token_id=0, return_dict_in_generate=True, output_scores=True, **others,
        )  # pyright: ignore[reportCallIssue]  # fmt: skip
        answers = found[index * ours["best"] : (index + 1) * ours["best"]]
        for answer, ids, score in zip(answers, expected.sequences.tolist(), expected.sequences_scores.tolist()):
            theirs = ids[len(prompt) :]
            assert answer.ids == theirs[: len(answer.ids)] and not any(theirs[len(answer.ids) :])
            assert answer.score == pytest.approx(score, rel=1e-5, abs=1e-5)


def everything(network: Table, prompt: list[int], tokens: int, end: int, penalty: float) -> list[tuple[float, tuple]]:
    """All texts and their scores, best first."""
    vocab, found = network.table.shape[1], {}
    for ids in itertools.product(range(vocab), repeat=tokens):
        cut = ids[: ids.index(end) + 1] if end in ids else ids
        if cut not in found:
            total = sum(
                float(network.logits([*prompt, *cut[:i]]).log_softmax(-1)[token]) for i, token in enumerate(cut)
            )
            found[cut] = total / len(cut) ** penalty
    return sorted(((score, ids) for ids, score in found.items()), reverse=True)


def test_wide_beams_find_the_best_texts_there_are() -> None:
    network = Table(vocab=4, sharpness=1.0)
    expected = everything(network, [1, 2], 4, 0, 0.0)[:5]
    decoding = Decoding(tokens=4, beams=256, best=5, length_penalty=0.0, logprobs=True)
    found = generate(network, Letters(), [[1, 2]], decoding, seeds=[0], end=[0])
    assert [tuple(each.ids) for each in found] == [ids for _, ids in expected]
    for each, (score, ids) in zip(found, expected):
        assert each.score == pytest.approx(score, abs=1e-5) == pytest.approx(sum(each.logprobs), abs=1e-5)
        assert each.ended == ("end" if 0 in ids else "length")


def test_prompts_together_are_each_alone() -> None:
    network = toy(vocab=27)
    prompts = [[1, 2, 3], [4], [5, 1, 1, 2, 3, 4, 5, 5]]
    decoding = Decoding(tokens=15, beams=3, best=2)

    def texts(some: list[list[int]]) -> list[tuple[list[int], float]]:
        found = generate(network, Letters(), some, decoding, seeds=[0] * len(some), end=[0, 3, 9])
        return [(each.ids, round(each.score, 4)) for each in found]

    together = texts(prompts)
    assert len({len(ids) for ids, _ in together}) > 1
    assert together == [each for prompt in prompts for each in texts([prompt])]


def test_a_stop_string_ends_a_beam() -> None:
    network = Table(sharpness=1.0)

    def best(**more: Any) -> Generation:
        rules = Decoding(tokens=9, beams=3, suppress=(0,), **more)
        return generate(network, Letters(), [[1, 2]], rules, seeds=[0])[0]

    free = best(length_penalty=0.0).text
    stopped = best(length_penalty=0.0, stop=(free[2:4],))
    assert stopped.ended == "stop" and stopped.text == free[: free.index(free[2:4])]
    assert Letters().decode(stopped.ids) == stopped.text + free[2:4]
