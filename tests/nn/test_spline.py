from __future__ import annotations

import math

import pytest
import torch
from transformers.models.vits.modeling_vits import _unconstrained_rational_quadratic_spline as reference

from conjure.nn import spline


def told(*shape: int, bins: int = 7, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, 3 * bins - 1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bins", [2, 7, 10])
@pytest.mark.parametrize("bound", [1.0, 5.0])
def test_it_is_that_of_the_reference(bins: int, bound: float) -> None:
    given = told(2, 3, 50, bins=bins)
    y = torch.linspace(-1.3 * bound, 1.3 * bound, 50).expand(2, 3, 50)
    parts = given.split([bins, bins, bins - 1], dim=-1)
    wanted, _ = reference(y, *parts, reverse=True, tail_bound=bound)
    assert torch.allclose(spline.inverse(y, given, bound), wanted, atol=1e-5 * bound)


def test_it_undoes_the_spline() -> None:
    x = torch.linspace(-4.99, 4.99, 200, dtype=torch.float64)
    given = told(200).double()
    y, _ = reference(x[None, None], *(part[None, None] for part in given.split([7, 7, 6], dim=-1)), tail_bound=5.0)
    assert torch.allclose(spline.inverse(y[0, 0], given, 5.0), x, atol=1e-9)


def test_outside_and_with_nothing_told_it_changes_nothing() -> None:
    y = torch.tensor([-9.0, -5.001, -5.0, 5.0, 5.001, 70.0])
    assert torch.allclose(spline.inverse(y, told(6), 5.0), y, atol=1e-5)
    flat = torch.zeros(99, 20)
    flat[:, 14:] = math.log(math.exp(1 - 1e-3) - 1)
    y = torch.linspace(-6, 6, 99)
    assert torch.allclose(spline.inverse(y, flat, 5.0), y, atol=1e-5)


def test_it_only_rises() -> None:
    y = torch.linspace(-5, 5, 5000)
    assert (spline.inverse(y, told(1).expand(5000, -1), 5.0).diff() > 0).float().mean() > 0.999
