"""PyTorch's kernels for small integers beside the restored matrix, their packed forms, and the choice among them."""

from __future__ import annotations

import math

import pytest
import torch

from conjure.nn import packed
from conjure.nn.packed import (
    KEYS,
    available,
    choice,
    multiply_int8,
    multiply_w8a8,
    multiply_w8a8_row,
    pack_int4,
    pack_w8a8,
)  # fmt: skip
from conjure.nn.rounding import restored, rounded

DRAW = torch.Generator().manual_seed(0)
BF16 = 2.0**-8
"""Relative rounding of a bfloat16 product's inputs and output."""


def matrix(outputs: int, inputs: int) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=DRAW)


@pytest.mark.parametrize("outputs", [16, 50, 64, 200])
def test_int4_is_packed_multiplied_read_and_unpacked(outputs: int) -> None:
    if not available("int4"):
        return  # then nothing ever packs for it
    q, scale = rounded(matrix(outputs, 96), "int4")
    held = pack_int4(q, scale)
    x_MI, whole = matrix(5, 96), restored(q, scale)
    exact = x_MI @ whole.T
    assert (held.product(x_MI).float() - exact).abs().max() <= 2 * BF16 * exact.abs().max()
    assert (held.product_of_many(x_MI) - exact).abs().max() <= 1e-5 * exact.abs().max()
    index = torch.randint(outputs, (7,), generator=DRAW)
    assert torch.equal(held.rows(index), whole[index])
    back = packed.unpack_int4(held)
    assert torch.equal(back[0], q) and torch.equal(back[1], scale)


def test_w8a8_differs_by_what_rounding_the_activations_may_cost() -> None:
    if not available("w8a8"):
        return
    q, scale = rounded(matrix(40, 64), "int8", 0)
    held, whole = pack_w8a8(q, scale), restored(q, scale)
    x_MI = matrix(6, 64) * torch.logspace(-4, 2, 6)[:, None]
    got = multiply_w8a8(x_MI, held)
    step_M1 = x_MI.abs().amax(-1, keepdim=True) / packed._levels()
    assert ((got - x_MI @ whole.T).abs() <= step_M1 / 2 * whole.abs().sum(1) * (1 + 1e-4)).all()
    alone = torch.cat([multiply_w8a8(row, held) for row in x_MI.split(1)])
    assert torch.equal(alone, got)
    assert not multiply_w8a8(torch.zeros(1, 64), held).any()
    rows = torch.cat([multiply_w8a8_row(row, held) for row in x_MI.split(1)])
    assert ((rows - x_MI @ whole.T).abs() <= step_M1 / 2 * whole.abs().sum(1) * (1 + 1e-4)).all()
    assert not multiply_w8a8_row(torch.zeros(1, 64), held).any()
    assert multiply_w8a8_row(torch.full((1, 64), torch.nan), held).shape == (1, 40)
    back = packed.unpack_w8a8(held)
    assert torch.equal(back[0], q) and torch.equal(back[1], scale)


def test_w8a8_is_exact_where_activations_are_whole_steps() -> None:
    if not available("w8a8"):
        return
    q, scale = rounded(matrix(8, 32), "int8", 0)
    levels = packed._levels()
    x_MI = torch.randint(-levels, levels + 1, (3, 32), generator=DRAW).float()
    x_MI[:, 0] = levels
    exact = x_MI @ restored(q, scale).T
    assert (multiply_w8a8(x_MI, pack_w8a8(q, scale)) - exact).abs().max() <= 1e-5 * exact.abs().max()


def test_int8_reads_the_stored_matrix() -> None:
    if not available("int8"):
        return
    q, scale = rounded(matrix(37, 48), "int8", 0)
    x_MI = matrix(3, 48)
    exact = x_MI @ restored(q, scale).T
    assert (multiply_int8(x_MI, q, scale[:, 0]).float() - exact).abs().max() <= 2 * BF16 * exact.abs().max()


def test_the_choice_follows_the_speeds() -> None:
    speeds = dict.fromkeys(KEYS, math.inf) | {"fp32_rows": 640.0}
    nothing = choice(speeds)
    assert (nothing.int8, nothing.int4) == ("restore", "restore")
    speeds |= {"int8_row": 10.0, "int8_rows": 1000.0}
    assert choice(speeds).int8 == "int8"
    speeds |= {"w8a8_row": 12.0, "w8a8_rows": 100.0}
    assert choice(speeds).int8 == "w8a8"
    assert choice(speeds).little == 0
    # A call costs 4 of these 12, and the kernel that costs nothing to call takes twice as long for what is left.
    assert choice(speeds | {"w8a8_call": 4.0, "int8_row": 16.0}).little == 4096 * 1024 // 2
    speeds |= {"w8a8_row": 200.0}
    assert choice(speeds).int8 == "int8"
    # 20 us a row in the kernel, 10 in float after 400 us of restoring: even at 40 rows.
    speeds |= {"int4_row": 30.0, "int4_rows": 30.0 + 63 * 20, "int4_restored_rows": 640.0 + 400}
    assert choice(speeds).int4 == "int4" and choice(speeds).many == 40
    assert choice(speeds | {"int4_rows": 40.0}).many == 4096


def test_a_kernel_that_multiplies_wrongly_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    available.cache_clear()
    monkeypatch.setattr(packed, "multiply_int8", lambda x, q, scale: x @ q.float().T * 1.1)
    assert not available("int8")

    def missing(*args: object) -> object:
        raise NotImplementedError("no such kernel in this build")

    monkeypatch.setattr(packed, "multiply_int8", missing)
    available.cache_clear()
    assert not available("int8") and available("restore")
    available.cache_clear()


def test_a_matrix_at_an_odd_address_never_reaches_the_int8_kernel() -> None:
    odd = torch.zeros(16 * 64 + 8, dtype=torch.int8)[8:].view(16, 64)
    assert not packed.readable(odd) and packed.readable(odd.clone())
    assert not packed.readable(torch.zeros(16, 40, dtype=torch.int8))
    with pytest.raises(AssertionError, match="end the process"):
        multiply_int8(torch.zeros(1, 64), odd, torch.ones(16))
    whole, offset = odd.clone(), torch.ones(3 * 64 + 1).bfloat16()[1:].view(3, 64)
    if available("int8"):
        assert not multiply_int8(offset, whole, torch.ones(16)).any()
