"""The distance of pictures as a fixed network sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.features import KIND, FeatureConfig, new_network
from conjure.models.folder import save_weights, write_config
from conjure.models.perceptual import distance, judge, maps


def saved(folder: Path, channels: int) -> Path:
    config = FeatureConfig(channels=channels, size=16, widths=(8, 16), features=6, classes=5)
    network = new_network(config)
    write_config(folder, kind=KIND, task="features", network=network, sections={"model": to_dict(config)})
    save_weights(folder, "model", network)
    return folder


def test_the_distance_written_out(tmp_path: Path) -> None:
    network = judge(saved(tmp_path, 3))
    a, b = normal([1, 2], (3, 16, 12)), normal([3, 4], (3, 16, 12))
    total = np.zeros(2)
    for layer_a, layer_b in zip(maps(network, a), maps(network, b), strict=True):
        assert torch.allclose(layer_a.norm(dim=1), torch.ones(()), atol=1e-3)
        total += (layer_a - layer_b).square().sum(1).mean((1, 2)).numpy() / 2
    assert distance(network, a, b).numpy() == pytest.approx(total, rel=1e-5)
    first, _ = maps(network, a)
    raw = network.stages[0](a)
    assert torch.allclose(first, F.normalize(raw, dim=1), atol=1e-4)


def test_equal_pictures_are_at_0_and_a_picture_is_judged_alone() -> None:
    network, a, b = judge(), normal([1, 2], (3, 32, 32)), normal([3, 4], (3, 32, 32))
    assert distance(network, a, a).abs().max() == 0
    together, alone = distance(network, a, b), distance(network, a[1:], b[1:])
    assert together[1].item() == pytest.approx(alone.item(), rel=1e-5) and together.min() > 0.05
    assert torch.equal(distance(judge(), a, b), together), "the untrained network is always the same"


def test_gradients_reach_the_made_picture_alone() -> None:
    made, true = (normal([k], (3, 32, 32)).requires_grad_() for k in (1, 2))
    distance(judge(), made, true).sum().backward()
    assert made.grad is not None and made.grad.abs().max() > 0 and true.grad is None


def test_a_blur_is_farther_than_a_little_less_contrast() -> None:
    stripes = torch.ones(1, 3, 32, 32)
    stripes[..., ::4] = stripes[..., 1::4] = -1
    blurred = F.avg_pool2d(F.pad(stripes, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    network = judge()
    assert distance(network, stripes * 0.98, stripes) < 0.1 * distance(network, blurred, stripes)


def test_a_network_for_grey_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="reads colour"):
        judge(saved(tmp_path, 1))
