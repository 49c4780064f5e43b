"""The cache by itself; that decoding with it changes nothing is tested with the transformer."""

from __future__ import annotations

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.nn.cache import Cache


def test_appends_behind_what_is_there() -> None:
    cache = Cache(layers=2, batch=3, kv_heads=2, head_dim=4, capacity=5)
    k, v = normal([0, 1, 2], (2, 5, 4)), normal([3, 4, 5], (2, 5, 4))
    for start, stop in ((0, 3), (3, 4), (4, 5)):
        for layer in range(2):
            keys, values = cache.append(layer, k[:, :, start:stop] + layer, v[:, :, start:stop])
            assert torch.equal(keys, k[:, :, :stop] + layer) and torch.equal(values, v[:, :, :stop])
        cache.advance(stop - start)
    assert cache.length == 5
    with pytest.raises(ConjureError, match="holds 5 tokens"):
        cache.append(0, k[:, :, :1], v[:, :, :1])


def test_positions_count_from_the_first_real_token() -> None:
    cache = Cache(layers=1, batch=2, kv_heads=1, head_dim=2, capacity=8, padding=[0, 2])
    assert cache.positions(3).tolist() == [[0, 1, 2], [-2, -1, 0]]
    cache.advance(3)
    assert cache.positions(1).tolist() == [[3], [1]]
    plain = Cache(layers=1, batch=2, kv_heads=1, head_dim=2, capacity=8)
    plain.advance(3)
    assert plain.positions(2).tolist() == [3, 4]


def test_keep_chooses_and_repeats_rows() -> None:
    cache = Cache(layers=1, batch=3, kv_heads=1, head_dim=2, capacity=4, padding=[0, 0, 1])
    k = normal([0, 1, 2], (1, 2, 2))
    cache.append(0, k, -k)
    cache.advance(2)
    cache.keep([1, 1, 0])
    assert not cache.padded
    assert torch.equal(cache.keys[0][:, :, :2], k[[1, 1, 0]]) and torch.equal(cache.values[0][:, :, :2], -k[[1, 1, 0]])
