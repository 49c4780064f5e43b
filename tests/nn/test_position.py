"""Encodings of position: what the papers say of them, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.nn.position import Rope, alibi_slopes, rope_tables, rotate, sincos_2d, timestep_embedding


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_turns_each_pair_by_position_times_frequency(interleaved: bool) -> None:
    rope = Rope(dim=6, theta=100.0, interleaved=interleaved)
    x = normal([0], (2, 5, 8))
    got = rotate(x, *rope_tables(torch.arange(5), rope), interleaved)
    for t in range(5):
        for pair in range(3):
            a, b = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + 3)
            turned = torch.complex(x[..., t, a], x[..., t, b]) * torch.polar(
                torch.tensor(1.0), torch.tensor(t * 100.0 ** (-2 * pair / 6))
            )
            torch.testing.assert_close(got[..., t, a], turned.real)
            torch.testing.assert_close(got[..., t, b], turned.imag)
    assert torch.equal(got[..., 6:], x[..., 6:])


@pytest.mark.parametrize("positions", [torch.arange(3), torch.tensor([[0, 1, 2], [4, 5, 6]])])
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_trains_as_its_formula(positions: torch.Tensor, interleaved: bool) -> None:
    tables = rope_tables(positions, Rope(dim=4))
    x_BHTD = normal([0], (2, 3, 2, 6))[0].transpose(1, 2)  # as heads lie in memory
    leaf = x_BHTD.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, *tables, interleaved), (leaf,))
    with torch.no_grad():
        wanted = rotate(x_BHTD, *tables, interleaved)
    torch.testing.assert_close(rotate(x_BHTD.requires_grad_(), *tables, interleaved), wanted)
    half = x_BHTD.detach().bfloat16().requires_grad_()
    got = rotate(half, *tables, interleaved)
    got.sum().backward()
    assert got.dtype == torch.bfloat16 and half.grad is not None and half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), wanted, atol=0.03, rtol=0.03)


def test_scores_depend_on_distance_alone() -> None:
    rope = Rope(dim=8)
    q, k = normal([0], (1, 1, 8)), normal([1], (1, 1, 8))

    def score(i: int, j: int) -> float:
        at_i, at_j = (rope_tables(torch.tensor([n]), rope) for n in (i, j))
        return float((rotate(q, *at_i) * rotate(k, *at_j)).sum())

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 1e-3


def test_rows_may_stand_at_different_positions() -> None:
    rope = Rope(dim=4)
    x = normal([0, 1], (3, 2, 4))
    together = rotate(x, *rope_tables(torch.tensor([[0, 1], [5, 6]]), rope))
    for row, start in enumerate((0, 5)):
        alone = rotate(x[row : row + 1], *rope_tables(torch.arange(start, start + 2), rope))
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("dim", [0, 3, -2])
def test_an_odd_rotation_is_refused(dim: int) -> None:
    with pytest.raises(ConjureError, match="even number"):
        Rope(dim=dim)


def test_timestep_embedding() -> None:
    got = timestep_embedding(torch.tensor([0.0, 250.0]), 6, max_period=1000)
    for row, t in enumerate((0.0, 250.0)):
        angles = [t * 1000 ** (-i / 3) for i in range(3)]
        wanted = [*map(math.cos, angles), *map(math.sin, angles)]
        torch.testing.assert_close(got[row], torch.tensor(wanted), atol=2e-5, rtol=0)


def test_sincos_2d() -> None:
    table = sincos_2d(3, 4, 8)
    assert table.shape == (12, 8)
    for y in range(3):
        for x in range(4):
            wanted = []
            for n in (x, y):
                wanted += [math.sin(n), math.sin(n / 100), math.cos(n), math.cos(n / 100)]
            torch.testing.assert_close(table[4 * y + x], torch.tensor(wanted))


def test_alibi_slopes() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-k for k in range(1, 9)]  # as printed in the paper
    six = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    assert alibi_slopes(6).tolist() == six
