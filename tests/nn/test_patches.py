from __future__ import annotations

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.nn.patches import from_patches, grid, places, to_patches
from conjure.nn.position import sincos_2d


def test_patches_are_channel_row_column_and_come_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].reshape(3, 2, 2), x[1, :, 2:4, 2:4]), "the second row's second patch"
    assert torch.equal(from_patches(patches, 2, 3, 2), x)


def test_places_are_the_fixed_table() -> None:
    assert torch.equal(places(4, 4, 16, 4), sincos_2d(4, 4, 16))


def test_another_grid_is_the_same_field_finer_or_coarser() -> None:
    trained = sincos_2d(4, 4, 16).unflatten(0, (4, 4))
    finer = places(8, 12, 16, 4).unflatten(0, (8, 12))
    assert torch.equal(finer[::2, ::3], trained)
    assert torch.equal(places(2, 4, 16, 4).unflatten(0, (2, 4)), trained[::2])
    assert torch.equal(places(4, 4, 16, 4, scale=0.5).unflatten(0, (4, 4))[:2, :2], trained[::2, ::2])


def test_sides_that_the_patch_does_not_divide() -> None:
    assert grid(torch.zeros(1, 3, 4, 6), 2) == (2, 3)
    for height, width in ((3, 6), (4, 5), (0, 2)):
        with pytest.raises(ConjureError, match=f"divisible by 2, got {height} x {width}"):
            grid(torch.zeros(1, 3, height, width), 2)
