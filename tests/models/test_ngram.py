"""Hashed n-grams: what a row depends on, and how evenly rows are used."""

from __future__ import annotations

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.models.ngram import NGram, NGramEmbedding


def rows(layer: NGramEmbedding, ids: torch.Tensor) -> torch.Tensor:
    return layer.rows(layer.earlier(ids, None, None))


def test_a_row_depends_on_its_own_tokens_in_their_order() -> None:
    layer = NGramEmbedding(NGram(rows=10**6, dim=2, orders=(2, 3)), vocab=100, dim=4)
    ids = torch.from_numpy(rng(0).integers(0, 100, (1, 12)))
    before = rows(layer, ids)[0]
    assert before.shape == (12, 2)
    assert (before[:, 0] < 10**6).all() and (before[:, 1] >= 10**6).all() and (before[:, 1] < 2 * 10**6).all()
    for t in range(12):
        other = ids.clone()
        other[0, t] = (other[0, t] + 1) % 100
        changed = rows(layer, other)[0] != before
        assert changed[:, 0].nonzero().flatten().tolist() == [i for i in (t, t + 1) if i < 12]
        assert changed[:, 1].nonzero().flatten().tolist() == [i for i in (t, t + 1, t + 2) if i < 12]
    assert rows(layer, torch.tensor([[3, 7]]))[0, 1, 0] != rows(layer, torch.tensor([[7, 3]]))[0, 1, 0]


def test_pairs_spread_evenly_over_the_rows() -> None:
    """The number of empty rows is that of throwing balls at random: e^-1 of them for one ball a row."""
    count = 256
    layer = NGramEmbedding(NGram(rows=count * count, dim=1, orders=(2,)), vocab=count, dim=1)
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    pairs = torch.stack([first.flatten(), second.flatten()], dim=1)
    used = rows(layer, pairs)[:, 1, 0].unique().numel()
    assert abs(used / count**2 - (1 - 2.718281828**-1)) < 0.02


@pytest.mark.parametrize("orders", [(), (1,), (5,)])
def test_orders(orders: tuple[int, ...]) -> None:
    with pytest.raises(ConjureError, match="2, 3, 4"):
        NGram(rows=8, dim=2, orders=orders)
