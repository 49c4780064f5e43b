"""Rounding to nearest: bounds, the stored form, and what cannot be rounded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conjure.core.errors import ConjureError
from conjure.nn.rounding import integers, nearest, pack, restored, rounded, stored, unpack


def matrix(outputs: int = 24, inputs: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("group", [32, 96, 0])
@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 1e4])
def test_int8_moves_no_value_by_more_than_half_its_scale(group: int, size: float) -> None:
    weight = matrix() * size
    q, scale = rounded(weight, "int8", group)
    assert q.dtype == torch.int8 and scale.shape == (24, 96 // (group or 96))
    bound = scale.float().repeat_interleave(group or 96, dim=1) / 2
    assert (weight - restored(q, scale)).abs().le(bound * (1 + 1e-5)).all()
    if size > 1e-5:  # below, float16 has no smaller scale
        assert (scale.float() <= weight.unflatten(1, (-1, group or 96)).abs().amax(-1) / 126).all()


def test_int4_moves_what_it_does_not_clip_by_at_most_half_its_scale() -> None:
    weight = matrix()
    q, scale = rounded(weight, "int4")
    assert q.dtype == torch.uint8 and q.shape == (24, 48)
    step = scale.float().repeat_interleave(32, dim=1)
    ends = (step * -8, step * 7)
    inside = (weight <= torch.maximum(*ends)) & (weight >= torch.minimum(*ends))
    assert inside.float().mean() > 0.9
    assert (weight - restored(q, scale)).abs()[inside].le(step.abs()[inside] / 2 * (1 + 1e-5)).all()


def test_the_best_clip_has_the_smallest_error_of_all_that_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = matrix()
    chosen = (restored(*rounded(weight, "int4")) - weight).square().unflatten(1, (-1, 32)).sum(-1)
    for clip in (8 / 7, 1.0, 0.9):
        monkeypatch.setattr("conjure.nn.rounding.CLIPS", (clip,))
        single = (restored(*rounded(weight, "int4")) - weight).square().unflatten(1, (-1, 32)).sum(-1)
        assert (chosen <= single + 1e-6).all() and (chosen < single).any()


def test_two_int4_values_to_a_byte_the_even_one_low() -> None:
    values = torch.tensor([[-8, 7, 0, 1]])
    assert stored(values, "int4").tolist() == [[0x00 | 0xF0, 0x08 | 0x90]]
    assert integers(stored(values, "int4")).tolist() == values.tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "int4"]))
def test_what_is_on_the_grid_stays_as_it_is(seed: int, weights: str) -> None:
    draw = torch.Generator().manual_seed(seed)
    limit = 127 if weights == "int8" else 8
    whole = torch.randint(-limit if limit > 8 else -7, min(limit, 7) + 1, (3, 64), generator=draw).float()
    whole[:, ::32] = -limit  # so that the scale can only be this one
    scale = 2.0 ** torch.randint(-6, 3, (3, 2), generator=draw).float().repeat_interleave(32, dim=1)
    kind = "int8" if weights == "int8" else "int4"
    assert torch.equal(restored(*rounded(whole * scale, kind)), whole * scale)


def test_scales_are_the_same_in_float16_and_bfloat16() -> None:
    for kind, size in (("int8", 1.0), ("int4", 1e-3), ("int4", 1e-6)):
        _, scale = rounded(matrix() * size, kind)  # type: ignore[arg-type]
        assert torch.equal(scale.bfloat16().half(), scale)


def test_zeros_stay_zeros() -> None:
    for kind in ("int8", "int4"):
        assert not restored(*rounded(torch.zeros(2, 32), kind)).any()
    assert not nearest(torch.ones(2), torch.zeros(2), "int8").any()


def test_parts_of_a_large_matrix_are_rounded_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rounded(matrix(), "int4")
    monkeypatch.setattr("conjure.nn.rounding._PART", 500)
    assert all(torch.equal(a, b) for a, b in zip(whole, rounded(matrix(), "int4"), strict=True))


@pytest.mark.parametrize(
    ("weight", "weights", "group", "said"),
    [
        (torch.zeros(4, 48), "int8", 32, "groups of 32, got 48"),
        (torch.zeros(4, 33), "int4", 11, "groups of 11, got 33"),
        (torch.zeros(4, 64), "int4", 0, "one scale for a row"),
        (torch.zeros(4, 64), "int5", 32, "expected int8 or int4, got 'int5'"),
        (torch.full((4, 64), torch.nan), "int8", 32, "no finite numbers"),
        (torch.full((4, 64), 1e9), "int4", 32, "too large"),
    ],
)
def test_what_cannot_be_rounded_is_said(weight: torch.Tensor, weights: str, group: int, said: str) -> None:
    with pytest.raises(ConjureError, match=said):
        rounded(weight, weights, group)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_come_back_within_half_a_scale(dtype: torch.dtype) -> None:
    k_BKTD = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(1))
    k_BKTD = (k_BKTD * torch.logspace(-3, 3, 5)[:, None]).to(dtype)
    q, scale = pack(k_BKTD)
    assert q.dtype == torch.int8 and q.shape == k_BKTD.shape and scale.shape == (2, 3, 5, 1)
    assert (unpack(q, scale) - k_BKTD.float()).abs().le(scale * (0.5 + 1e-4)).all()
    assert torch.allclose(scale, k_BKTD.float().abs().amax(-1, keepdim=True) / 127)
    assert unpack(q, scale, torch.bfloat16).dtype == torch.bfloat16


def test_a_token_of_the_cache_does_not_depend_on_others_and_zeros_stay() -> None:
    k_BKTD = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(2))
    k_BKTD[:, :, 3] = 0
    q, scale = pack(k_BKTD)
    assert not unpack(q, scale)[:, :, 3].any()
    alone = pack(k_BKTD[:, :, 1:2])
    assert torch.equal(alone[0], q[:, :, 1:2]) and torch.equal(alone[1], scale[:, :, 1:2])
