from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as PillowImage
from torch import nn

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.models import features
from conjure.models.features import FeatureConfig, in_batches, load_extractor, network_input, new_network, resized
from conjure.models.folder import save_weights, write_config

SMALL = FeatureConfig(channels=3, size=16, widths=(8, 16), features=6, classes=5)


def network(config: FeatureConfig = SMALL, seed: int = 0) -> features.FeatureNetwork:
    torch.manual_seed(seed)
    made = new_network(config).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
    return made


def pictures(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return rng(count).integers(0, 256, (count, height, width, channels)).astype(np.uint8)


def test_the_network_written_out() -> None:
    made = network()
    state = made.state_dict()
    x = torch.from_numpy(rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32))
    h = F.conv2d(x, state["stages.0.convolution.weight"], padding=1)
    h = F.silu(F.group_norm(h, 1, state["stages.0.norm.weight"], state["stages.0.norm.bias"]))
    h = F.conv2d(F.max_pool2d(h, 2), state["stages.1.convolution.weight"], padding=1)
    h = F.silu(F.group_norm(h, 2, state["stages.1.norm.weight"], state["stages.1.norm.bias"]))
    h = F.silu(torch.einsum("bchw,fc->bfhw", h, state["last.weight"][:, :, 0, 0]) + state["last.bias"][:, None, None])
    expected_BF = h.mean((2, 3))
    assert (made.features(x) - expected_BF).abs().max() <= 1e-5 * expected_BF.abs().max()
    expected_BK = expected_BF @ state["head.weight"].T + state["head.bias"]
    assert (made(x) - expected_BK).abs().max() <= 1e-5 * expected_BK.abs().max()


def test_patches_and_work() -> None:
    config = FeatureConfig(channels=3, size=16, patch=2, widths=(8, 16), features=6, classes=5)
    made = network(config)
    assert made.features(torch.zeros(1, 3, 16, 16)).shape == (1, 6)
    assert made.flops(3) == 2 * 3 * (9 * 12 * 8 * 64 + 9 * 8 * 16 * 16 + 16 * 6 * 16 + 30)
    assert sum(p.numel() for p in made.parameters()) == 9 * 12 * 8 + 16 + 9 * 8 * 16 + 32 + 16 * 6 + 6 + 30 + 5


def test_a_picture_has_the_same_features_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made, some = network(), pictures(5, 16, 16)
    together = in_batches(made, some)
    assert together.shape == (5, 6) and together.dtype == np.float32
    np.testing.assert_allclose(in_batches(made, some[3:4])[0], together[3], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(features, "BATCH", 2)
    np.testing.assert_allclose(in_batches(made, some), together, rtol=1e-5, atol=1e-6)


def test_resizing_is_antialiased_and_does_not_round() -> None:
    """A chessboard of single pixels becomes grey; a ramp stays the ramp; one's own size stays bit for bit."""
    board = np.indices((32, 32)).sum(0) % 2 * 255
    small = resized(board.astype(np.uint8)[None, ..., None], 8)
    assert small.shape == (1, 8, 8, 1) and small.dtype == np.float32
    assert np.abs(small[0, 2:-2, 2:-2] - 127.5).max() < 2, "nearest neighbours would give 0 or 255"
    some = pictures(2, 20, 30)
    for n in range(2):
        for c in range(3):
            channel = PillowImage.fromarray(some[n, ..., c].astype(np.float32), mode=None)
            expected = np.asarray(channel.resize((8, 8), PillowImage.Resampling.BICUBIC)).clip(0, 255)
            np.testing.assert_array_equal(resized(some, 8)[n, ..., c], expected)
    assert (resized(some, 8) % 1 != 0).any()
    assert np.array_equal(resized(some[:, :, :20], 20), some[:, :, :20].astype(np.float32))


def test_grey_and_colour() -> None:
    grey = FeatureConfig(channels=1, size=8, widths=(8,), features=4, classes=2)
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(network_input(red, grey).numpy(), 200 * 0.299 / 127.5 - 1, rtol=1e-5)
    one = pictures(1, 16, 16, 1)
    np.testing.assert_array_equal(network_input(one, SMALL)[:, 0], network_input(one, SMALL)[:, 2])
    assert network_input(one, SMALL).abs().max() <= 1


def test_a_folder_becomes_an_extractor_with_its_protocol(tmp_path: Path) -> None:
    made, folder = network(), tmp_path / "features-toy"
    write_config(folder, kind=features.KIND, task="features", network=made, sections={
        "model": {"channels": 3, "size": 16, "widths": [8, 16], "features": 6, "classes": 5}})  # fmt: skip
    save_weights(folder, "model", made)
    extract, some = load_extractor(folder), pictures(3, 20, 18)
    np.testing.assert_allclose(extract(some), in_batches(made, some), rtol=1e-6)
    assert extract.count == 6
    assert extract.protocol.startswith("conjure-features-v1 features-toy (")
    assert "6 features of 16x16 colour" in extract.protocol and "bicubic with antialiasing" in extract.protocol
    save_weights(folder, "model", network(seed=1))
    assert load_extractor(folder).protocol != extract.protocol, "other weights, other protocol"
    write_config(folder, kind="painter", task="draw", network=made, sections={})
    with pytest.raises(ConjureError, match="a model of kind 'painter'"):
        load_extractor(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 4}, "1 .grey. or 3"),
        ({"widths": (8, 12)}, "multiples of group = 8"),
        ({"widths": ()}, "multiples of group"),
        ({"size": 15, "patch": 2}, "cannot be halved 3 times"),
        ({"size": 4}, "cannot be halved 3 times"),
    ],
)
def test_configs_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConjureError, match=message):
        FeatureConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "images", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8),
               np.zeros((1, 4, 4, 4), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture(images: np.ndarray) -> None:
    with pytest.raises(ConjureError, match="expected pictures uint8"):
        in_batches(network(), images)
