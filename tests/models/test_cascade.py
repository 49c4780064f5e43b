from __future__ import annotations

import pytest
import torch

from conjure.core.seeds import normal
from conjure.models.cascade import CascadeConfig, CascadeNetwork, augmented, shrunk
from conjure.models.dit import DiTConfig
from conjure.models.picture_text import PictureTextConfig

TEXT = PictureTextConfig(vocab=9, length=5, dim=16, layers=1, heads=2)
FIRST = DiTConfig(channels=3, size=8, patch=4, dim=16, layers=1, heads=2, hidden=32)
SECOND = DiTConfig(channels=3, size=32, patch=8, dim=12, layers=2, heads=1, hidden=24)


def test_a_small_picture_is_the_mean_of_its_pixels() -> None:
    x = normal([1], (3, 32, 32))
    assert torch.allclose(shrunk(x, 8), x.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5)), atol=1e-6)


def test_augmentation_mixes_by_the_level_of_each_picture() -> None:
    small, noise = normal([1, 2, 3], (3, 8, 8)), normal([4, 5, 6], (3, 8, 8))
    mixed = augmented(small, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(mixed[0], small[0]) and torch.equal(mixed[2], noise[2])
    assert torch.allclose(mixed[1], 0.75 * small[1] + 0.25 * noise[1])


def test_patches_of_both_pictures_by_two_matrices_are_stacked_channels_by_one() -> None:
    network = CascadeNetwork(CascadeConfig(text=TEXT, first=FIRST, second=SECOND))
    second = network.second
    assert second is not None
    x, large = normal([1, 2], (3, 32, 32)), normal([3, 4], (3, 32, 32))
    dit = second.dit
    stacked = torch.nn.Conv2d(6, 12, 8, stride=8)
    with torch.no_grad():
        both = torch.cat([each.unflatten(1, (3, 8, 8)) for each in (dit.patches.weight, second.small.weight)], 1)
        stacked.weight.copy_(both)
        assert dit.patches.bias is not None and stacked.bias is not None
        stacked.bias.copy_(dit.patches.bias)
        out = stacked(torch.cat([x, large], 1)).flatten(2).mT
    seen: list[torch.Tensor] = []
    dit.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    context = network.read(torch.tensor([[1, 4, 0, 0, 0], [1, 5, 6, 7, 8]]))
    second(x, torch.ones(2), large, torch.zeros(2), *context)
    assert torch.allclose(seen[0] - dit.place_ND, out, atol=1e-5)


def test_operations_are_those_of_the_parts() -> None:
    network = CascadeNetwork(CascadeConfig(text=TEXT, first=FIRST, second=SECOND))
    alone = CascadeNetwork(CascadeConfig(text=TEXT, first=FIRST))
    assert network.second is not None and alone.second is None
    assert network.flops(3) == pytest.approx(alone.flops(3) + network.second.dit.flops(3, 5))
    words, small, half = torch.tensor([[1, 4, 0, 0, 0]]), normal([1], (3, 8, 8)), torch.tensor([0.5])
    first, second = network(words, small, half, (normal([2], (3, 32, 32)), half, small, half))
    assert first.shape == (1, 3, 8, 8) and second is not None and second.shape == (1, 3, 32, 32)
    assert alone(words, small, half)[1] is None
