"""Fillings against every filling there is."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import generator
from conjure.decoding.fill import fill

MASK = 6
TABLE = torch.randn(97, 10, 7, generator=generator(3)) * 1.5


def logits(ids_BT: Tensor) -> Tensor:
    """At each place a line of a random table, chosen by all ids of the row."""
    weights = torch.arange(1, ids_BT.shape[1] + 1)
    return TABLE[((ids_BT + 1) * weights).sum(-1) % 97, : ids_BT.shape[1]]


def test_one_gap_gets_the_likeliest_in_order() -> None:
    ids = [1, MASK, 3]
    log_p_V = logits(torch.tensor([ids]))[0, 1].log_softmax(-1)
    found = fill(logits, ids, mask=MASK, best=6)
    order = [i for i in log_p_V.argsort(descending=True).tolist() if i != MASK]
    assert [each.fillers for each in found] == [[i] for i in order]
    assert [each.ids for each in found] == [[1, i, 3] for i in order]
    assert [each.score for each in found] == [pytest.approx(float(log_p_V[i]), abs=1e-6) for i in order]


def test_left_to_right_with_room_for_all_finds_the_best_of_all() -> None:
    ids = [MASK, 2, MASK, MASK]
    gaps, scores = [0, 2, 3], {}
    for fillers in itertools.product(range(6), repeat=3):
        known, total = list(ids), 0.0
        for place, token in zip(gaps, fillers):
            total += float(logits(torch.tensor([known]))[0, place].log_softmax(-1)[token])
            known[place] = token
        scores[fillers] = total
    expected = sorted(scores, key=lambda fillers: -scores[fillers])[:4]
    found = fill(logits, ids, mask=MASK, best=216, order="left")
    assert [tuple(each.fillers) for each in found[:4]] == expected and len(found) == 216
    assert found[0].score == pytest.approx(scores[expected[0]], abs=1e-5)


def test_by_confidence_the_surest_gap_is_first() -> None:
    known, order = [MASK, 2, MASK, 4, MASK], []
    while MASK in known:
        log_p_TV = logits(torch.tensor([known]))[0].log_softmax(-1)
        log_p_TV[:, MASK] = -math.inf
        place = max((i for i, token in enumerate(known) if token == MASK), key=lambda i: float(log_p_TV[i].max()))
        known[place] = int(log_p_TV[place].argmax())
        order.append(place)
    (found,) = fill(logits, [MASK, 2, MASK, 4, MASK], mask=MASK, best=1)
    assert found.ids == known and order != sorted(order)
    assert fill(logits, [MASK, 2, MASK, 4, MASK], mask=MASK, best=1, order="left")[0].ids != known


def test_suppressed_ids_fill_nothing() -> None:
    found = fill(logits, [MASK, 1, MASK], mask=MASK, best=50, suppress=[0, 2])
    assert {token for each in found for token in each.fillers} == {1, 3, 4, 5} and len(found) == 16


def test_what_cannot_be_filled() -> None:
    with pytest.raises(ConjureError, match="no gap"):
        fill(logits, [1, 2], mask=MASK)
    with pytest.raises(ConjureError, match="no numbers"):
        fill(lambda ids_BT: logits(ids_BT) * math.nan, [MASK], mask=MASK)
    with pytest.raises(ConjureError, match="best"):
        fill(logits, [MASK], mask=MASK, best=0)
