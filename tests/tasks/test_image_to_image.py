"""The codec: trained on scenes, saved, loaded, and used on pictures of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.codecs.image_autoencoder import ImageAutoencoderConfig, from_pixels
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result
from conjure.core.seeds import rng
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.models.folder import read_config
from conjure.tasks import image_to_image
from conjure.tasks.image_to_image import CodecData, Reconstruct, ReconstructOptions
from tests.data.shapes import SIDE, shapes

MODEL = ImageAutoencoderConfig(latent_channels=6, width=8, fine_width=4)


@pytest.fixture(scope="module", autouse=True)
def scenes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
        patch.setattr(image_to_image, "MEASURED", 24)
        yield


@pytest.fixture
def task() -> Reconstruct:
    return Reconstruct.create(MODEL, CodecData(size=SIDE), seed=3)


def test_examples_are_pure_functions_of_their_index(task: Reconstruct) -> None:
    together, alone = task.batch([4, 9]), task.batch([9])
    assert together["pixels"].shape == (2, SIDE, SIDE, 3) and together["pixels"].dtype == torch.uint8
    assert all(torch.equal(together[key][1:], alone[key]) for key in together)
    assert np.array_equal(alone["pixels"][0].numpy(), shapes().paint(shapes().scene(3, 9)))
    assert task.tokens(together) == 2 * 64 and task.flops(together) == 3 * task.network.flops(128)
    assert task.describe(together) == "2 pictures of 64 x 64 pixels; every pixel carries loss"


def test_training_goes_on_from_the_linear_optimum(task: Reconstruct) -> None:
    start = task.evaluate(8)
    assert start["psnr_db"] > 12, "principal components already show something"
    optimizer, batch = torch.optim.Adam(task.network.parameters(), lr=3e-3), task.batch(range(8))
    losses = []
    for _ in range(12):
        total, count = task.loss(batch)
        losses.append(total.item() / int(count))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert losses[-1] < 0.98 * losses[0]
    assert task.loss(batch)[0].item() == task.loss(batch)[0].item(), "noise comes from the batch's seeds"


def test_the_network_that_is_given_is_the_one_that_is_called(task: Reconstruct) -> None:
    class Blank(torch.nn.Module):
        def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            return x

    assert task.loss(task.batch([0]), Blank())[0].item() == 0


def test_what_is_saved_is_normalised_and_comes_back(task: Reconstruct, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    weights["to_latent.weight"] *= 2
    task.save(tmp_path, weights=weights)
    config = read_config(tmp_path)
    assert (config["kind"], config["task"]) == ("image_autoencoder", "reconstruct")
    again = Reconstruct.load(tmp_path)
    pixels = torch.from_numpy(np.stack([shapes().paint(shapes().scene(3, i, "test")) for i in range(24)]))
    z_BZhw = again.network.encode(from_pixels(pixels))
    assert torch.allclose(z_BZhw.mean((0, 2, 3)), torch.zeros(6), atol=1e-4)
    assert torch.allclose(z_BZhw.std((0, 2, 3)), torch.ones(6), atol=1e-4)
    assert torch.equal(again.network.to_latent.weight, weights["to_latent.weight"])
    assert not any(parameter.requires_grad for parameter in again.network.parameters())


@pytest.mark.parametrize("shape", [(21, 13, 3), (8, 16, 4), (1, 1, 1)])
def test_any_size_and_kind_of_picture_keeps_its_size(task: Reconstruct, shape: tuple[int, int, int]) -> None:
    picture = Image(rng(0).integers(0, 256, shape).astype(np.uint8))
    *events, result = task.generate([picture], ReconstructOptions(), [1, 2])
    assert events == [Progress(1, 1, "picture")] and isinstance(result, Result)
    one, other = result.media
    assert isinstance(one, Image) and one.pixels.shape == (*shape[:2], 3)
    assert one.digest() == other.digest()
    assert result.facts["psnr_db"] > 3


def test_a_scene_is_kept_well(task: Reconstruct) -> None:
    picture = Image(shapes().paint(shapes().scene(0, 5)))
    result = list(task.generate([picture], ReconstructOptions(), [0]))[-1]
    assert isinstance(result, Result) and result.facts["psnr_db"] > 10


def test_figures(task: Reconstruct) -> None:
    assert task.evaluate(6) == task.evaluate(6) != task.evaluate(5)
    found = task.evaluate_published()["psnr_db"]
    assert found["low"] < found["value"] < found["high"] and found["n"] == 24
    assert found["value"] == pytest.approx(task.evaluate(24)["psnr_db"], abs=1e-4)
    preview = task.preview(1)["reconstructions"]
    assert preview.pixels.shape == (2 * SIDE, 8 * SIDE, 3)


def test_a_side_that_eight_does_not_divide(task: Reconstruct) -> None:
    with pytest.raises(ConjureError, match="multiples of 8, got 20 x 20"):
        task.network.encode(torch.zeros(1, 3, 20, 20))
