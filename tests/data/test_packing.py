"""Packing: every token is predicted once, from its own document, and rows waste little."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conjure.data.packing import IGNORED, Packed, cut, pack
from conjure.nn import cross_entropy

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=12)


def stream(lengths: list[int]) -> tuple[np.ndarray, list[int]]:
    """Document d has the ids 1000 d, 1000 d + 1, ..."""
    ids = np.concatenate([1000 * d + np.arange(n) for d, n in enumerate(lengths)])
    return ids, [0, *np.cumsum(lengths).tolist()]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 16))
def test_every_token_but_the_first_of_each_document_is_a_target_once(lengths: list[int], length: int) -> None:
    packed = Packed(*stream(lengths), length)
    batch = packed.batch(packed.rows)
    targets = batch["targets"]
    counted = targets != IGNORED
    wanted = Counter(1000 * d + i for d, n in enumerate(lengths) for i in range(1, n))
    assert Counter(targets[counted].tolist()) == wanted
    assert torch.equal(batch["ids"][counted] + 1, targets[counted])  # each is predicted from the token before it


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 16))
def test_pieces_of_a_row_are_told_apart(lengths: list[int], length: int) -> None:
    packed = Packed(*stream(lengths), length)
    batch = packed.batch(packed.rows)
    documents = batch.get("documents", torch.zeros_like(batch["ids"]))
    for row, ids, targets, own in zip(packed.rows, batch["ids"], batch["targets"], documents, strict=True):
        assert sum(piece.inputs for piece in row) <= length
        for number in own.unique().tolist():
            inside = own == number
            if number == len(row):  # padding
                assert (targets[inside] == IGNORED).all()
            else:
                assert len({i // 1000 for i in ids[inside].tolist()}) == 1
                assert (ids[inside].diff() == 1).all() and inside.nonzero().diff(dim=0).le(1).all()


def test_best_fit() -> None:
    pieces = cut([0, 8, 14, 17, 19], 10)  # 7, 5, 2 and 1 inputs
    assert [[p.inputs for p in row] for row in pack(pieces, 10)] == [[7, 2, 1], [5]]
    assert [[p.inputs for p in row] for row in pack(cut([0, 26], 10), 10)] == [[10], [10], [5]]


def test_a_row_is_a_function_of_seed_and_index() -> None:
    ids, borders = stream([301])
    packed, again = Packed(ids, borders, 10, seed=3), Packed(ids, borders, 10, seed=3)
    rows = [packed.row(i) for i in range(90)]
    assert [again.row(i) for i in reversed(range(90))] == rows[::-1]
    for epoch in range(3):  # each epoch is a permutation of all rows, and no two are alike
        assert sorted(rows[30 * epoch : 30 * epoch + 30], key=lambda r: r[0].start) == [*packed.rows]
    assert len({tuple(rows[at : at + 30]) for at in (0, 30, 60)}) == 3
    assert [Packed(ids, borders, 10, seed=4).row(i) for i in range(90)] != rows


def test_full_rows_of_one_document_need_no_document_numbers() -> None:
    packed = Packed(*stream([21]), 10)
    assert set(packed.batch(packed.rows)) == {"ids", "targets"}
    packed = Packed(*stream([20]), 10)
    assert packed.batch(packed.rows)["documents"].tolist() == [[0] * 10, [0] * 9 + [1]]


def test_the_ignored_target_is_the_losses() -> None:
    assert IGNORED == cross_entropy.IGNORED


def test_a_document_of_one_token_predicts_nothing() -> None:
    assert cut([0, 1, 3], 4) == cut([1, 3], 4)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_ids_of_any_integer_type(dtype: type) -> None:
    packed = Packed(np.arange(9).astype(dtype), [0, 9], 4)
    assert packed.batch(packed.rows)["ids"].dtype == torch.int64
