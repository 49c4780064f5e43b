"""Patches of one picture in the place of another's."""

from __future__ import annotations

import numpy as np
import torch

from conjure.core.seeds import normal
from conjure.tasks.patch_style import matched, nearest, outlines, patched, recoloured, sampled

STYLE = normal([1], (3, 32, 32)).mul(0.3).clamp(-1, 1)


def test_a_picture_is_made_of_itself() -> None:
    """Each patch finds itself, so nothing changes, whatever its size and wherever the borders fall."""
    for side in (5, 8):
        assert torch.allclose(matched(STYLE, STYLE, side, 1), STYLE, atol=1e-4)


def test_the_nearest_is_that_of_all_pairs() -> None:
    style, few = sampled(STYLE, 2, 3), normal([4], (40, 12))[0]
    wanted = style[torch.cdist(few, style).argmin(1)]
    assert torch.allclose(nearest(few, style), wanted), "12 values, no component is left out"


def test_patches_are_those_of_the_style_and_its_mirror_image() -> None:
    found = {tuple(each.tolist()) for each in sampled(STYLE, 31, 1)}
    crops = [each[0, :, y : y + 31, x : x + 31].flatten() for each in (STYLE, STYLE.flip(3)) for y in (0, 1)
             for x in (0, 1)]  # fmt: skip
    assert found == {tuple(each.tolist()) for each in crops}


def test_colours_get_the_mean_and_covariance_of_the_style() -> None:
    x = normal([2], (3, 20, 24)) * torch.tensor([0.5, 0.1, 0.3]).view(1, 3, 1, 1) + 0.2
    made, style = (each[0].flatten(1) for each in (recoloured(x, STYLE), STYLE))
    assert torch.allclose(made.mean(1), style.mean(1), atol=1e-5)
    assert torch.allclose(torch.cov(made), torch.cov(style), atol=1e-4)
    assert torch.allclose(recoloured(x, x), x, atol=1e-5), "nothing moves that need not"


def test_outlines() -> None:
    x = torch.zeros(1, 3, 12, 12)
    x[..., 6:] = 1
    found = outlines(x)[0, 0]
    assert (found[:, 4:8] == 1).all() and np.allclose(found[:, :3], found.min()) and found.min() < 0.2


def test_rounds_go_from_coarse_to_fine() -> None:
    pictures = [torch.nn.functional.avg_pool2d(STYLE, by) if by > 1 else STYLE for by in (4, 2, 1)]
    made = list(patched(pictures, pictures, 0.5, 5, 1))
    assert [each.shape[2] for each in made] == [8, 16, 16, 32, 32]
    assert next(patched(pictures, pictures, 0.5, 1, 1)).shape[2] == 32
    again = list(patched(pictures, pictures, 0.5, 5, 1))
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    assert all(each.abs().max() <= 1 for each in made)
