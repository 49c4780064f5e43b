from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from conjure.train.batches import built, chunks


@pytest.mark.parametrize(("micro_batch", "size"), [(12, 1), (5, 1), (4, 3), (3, 2), (1, 12)])
def test_a_step_has_the_same_examples_however_divided(micro_batch: int, size: int) -> None:
    parts = [part for rank in range(size) for part in chunks(3, 12, micro_batch, rank, size)]
    assert [i for part in parts for i in part] == list(range(36, 48))
    assert max(map(len, parts)) <= micro_batch


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_order(threads: int) -> None:
    def build(indices: Sequence[int]) -> dict[str, Tensor]:
        return {"x": torch.tensor(list(indices))}

    wanted = [range(i, i + 2) for i in range(0, 40, 2)]
    found = list(built(build, wanted, threads))
    assert [indices for indices, _ in found] == wanted
    assert all(batch["x"].tolist() == list(indices) for indices, batch in found)


def test_closing_early_ends_the_threads() -> None:
    before = threading.active_count()
    batches = built(lambda indices: {}, (range(i, i + 1) for i in range(10**9)), 2)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_an_error_while_building_reaches_the_loop() -> None:
    def build(indices: Sequence[int]) -> dict[str, Tensor]:
        raise ValueError(f"example {indices[0]}")

    with pytest.raises(ValueError, match="example 4"):
        list(built(build, [range(4, 5)], 1))
