"""Contrastive search against its formula, computed anew for every token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.decoding.generate import Decoding, generate
from tests.decoding.networks import Letters, Table, Whole

PROMPT = [1, 2, 3, 1]


def by_formula(network: Table, prompt: list[int], tokens: int, k: int, alpha: float) -> list[int]:
    known = list(prompt)
    for _ in range(tokens):
        chances = network.logits(known).softmax(-1)
        past = torch.stack([network.seen[network.state(known[: i + 1])] for i in range(len(known))])
        scores = {}
        for token in chances.topk(k).indices.tolist():
            own = network.seen[network.state([*known, token])]
            scores[token] = (1 - alpha) * chances[token] - alpha * F.cosine_similarity(own[None], past).max()
        known.append(max(scores, key=lambda token: float(scores[token])))
    return known[len(prompt) :]


@pytest.mark.parametrize(("k", "alpha"), [(2, 0.3), (4, 0.6), (6, 0.9), (3, 1.0)])
def test_choices_are_those_of_the_formula(k: int, alpha: float) -> None:
    network = Table(sharpness=0.7)
    decoding = Decoding(tokens=20, top_k=k, contrastive_alpha=alpha)
    (found,) = generate(network, Letters(), [PROMPT], decoding, seeds=[0])
    assert found.ids == by_formula(network, PROMPT, 20, k, alpha)
    (greedy,) = generate(network, Letters(), [PROMPT], Decoding(tokens=20, temperature=0), seeds=[0])
    assert found.ids != greedy.ids


def test_it_needs_hidden_states_and_room() -> None:
    decoding = Decoding(tokens=20, top_k=4, contrastive_alpha=0.5)
    with pytest.raises(ConjureError, match="hidden states"):
        generate(Whole(lambda ids_BT: torch.zeros(1, 1, 5)), Letters(), [PROMPT], decoding, seeds=[0])
    with pytest.raises(ConjureError, match="at most 23 tokens here, prompt and answer have 24"):
        generate(Table(), Letters(), [PROMPT], decoding, seeds=[0], context=23)
