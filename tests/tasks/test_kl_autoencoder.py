"""The variational autoencoder of scenes: trained, measured, saved, and used on pictures of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.codecs.image_autoencoder import from_pixels, reconstruction_loss
from conjure.core.events import Progress, Result
from conjure.core.seeds import rng
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.models.autoencoder_kl import AutoencoderKLConfig
from conjure.models.folder import read_config
from conjure.models.kl_codec import KLCodecConfig, divergence
from conjure.models.perceptual import distance, judge
from conjure.tasks import kl_autoencoder
from conjure.tasks.kl_autoencoder import KLCodecData, KLReconstruct, KLReconstructOptions
from tests.data.shapes import SIDE, shapes

NETWORK = AutoencoderKLConfig(channels=48, latent=4, widths=(8, 16), residuals=1, groups=4, attends=False)
MODEL = KLCodecConfig(autoencoder=NETWORK, patch=4)


@pytest.fixture(scope="module", autouse=True)
def scenes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
        patch.setattr(kl_autoencoder, "MEASURED", 20)
        yield


def made(**changes: object) -> KLReconstruct:
    return KLReconstruct.create(replace(MODEL, **changes), KLCodecData(size=SIDE), seed=3)  # type: ignore[arg-type]


def test_examples_are_pure_functions_of_their_index() -> None:
    task = made()
    together, alone = task.batch([4, 9]), task.batch([9])
    assert all(torch.equal(together[key][1:], alone[key]) for key in together)
    assert np.array_equal(alone["pixels"][0].numpy(), shapes().paint(shapes().scene(3, 9)))
    assert task.tokens(together) == 2 * 8 * 8 and task.flops(together) == 6 * task.network.flops(SIDE, SIDE)
    assert task.describe(together) == "2 pictures of 64 x 64 pixels; every pixel carries loss"


def test_the_loss_is_the_sum_of_its_three_parts() -> None:
    task = made(kl=0.5, perceptual=2.0)
    batch = task.batch(range(3))
    x = from_pixels(batch["pixels"])

    class Known(torch.nn.Module):
        def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
            assert noise.shape == (3, 4, 8, 8)
            return 0.5 * x, noise, noise / 2

    noises: list[torch.Tensor] = []
    known = Known()
    known.register_forward_pre_hook(lambda module, given: noises.append(given[1]))
    total, count = task.loss(batch, known)
    wanted = reconstruction_loss(0.5 * x, x) + 2.0 * distance(judge(), 0.5 * x, x)
    wanted = wanted + 0.5 * divergence(noises[0], noises[0] / 2) / x[0].numel()
    assert total.item() == pytest.approx(wanted.sum().item(), rel=1e-5) and int(count) == 3
    assert made(kl=0.0, perceptual=0.0).loss(batch, known)[0].item() == pytest.approx(
        reconstruction_loss(0.5 * x, x).sum().item(), rel=1e-5)


def test_it_learns_one_batch() -> None:
    task = made()
    optimizer, batch, losses = torch.optim.Adam(task.network.parameters(), lr=3e-3), task.batch(range(6)), []
    for _ in range(15):
        total, count = task.loss(batch)
        losses.append(total.item() / int(count))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert losses[-1] < 0.85 * losses[0]
    assert task.loss(batch)[0].item() == task.loss(batch)[0].item(), "noise comes from the batch's seeds"


def test_what_is_saved_is_measured_and_comes_back(tmp_path: Path) -> None:
    task = made()
    weights = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    weights["autoencoder.decoder.out.bias"] += 1
    task.save(tmp_path, weights=weights)
    config = read_config(tmp_path)
    assert (config["kind"], config["task"], config["data"]) == ("kl_autoencoder", "kl_autoencoder", {"size": SIDE})
    again = KLReconstruct.load(tmp_path)
    x = from_pixels(again._scenes(range(2), "test"))
    assert torch.equal(again.network.encode(x), task.network.encode(x))
    bias = again.network.autoencoder.decoder.out.bias
    assert bias is not None and torch.equal(bias, weights["autoencoder.decoder.out.bias"])
    assert not any(parameter.requires_grad for parameter in again.network.parameters())
    task.seed = again.seed
    assert again.evaluate_published() == task.evaluate_published()


@pytest.mark.parametrize("shape", [(21, 13, 3), (8, 16, 4), (1, 1, 1)])
def test_any_size_and_kind_of_picture_keeps_its_size(shape: tuple[int, int, int]) -> None:
    picture = Image(rng(0).integers(0, 256, shape).astype(np.uint8))
    *events, result = made().generate([picture], KLReconstructOptions(), [1, 2])
    assert events == [Progress(1, 1, "picture")] and isinstance(result, Result)
    one, other = result.media
    assert isinstance(one, Image) and one.pixels.shape == (*shape[:2], 3)
    assert one.digest() == other.digest() and result.facts["psnr_db"] > 3


def test_figures() -> None:
    task = made()
    assert task.evaluate(6) == task.evaluate(6) != task.evaluate(5)
    found = task.evaluate_published()
    assert set(found) == {"psnr_db", "kl_bits", "perceptual"}
    assert all(each["low"] < each["value"] < each["high"] and each["n"] == 20 for each in found.values())
    own = task.evaluate(20)
    assert own["psnr_db"] == pytest.approx(found["psnr_db"]["value"], abs=1e-4)
    assert own["kl_bits"] == pytest.approx(found["kl_bits"]["value"], rel=1e-4)
    assert own["perceptual_share"] == pytest.approx(0.3 * found["perceptual"]["value"] / own["loss"], rel=1e-4)
    assert "perceptual" not in made(perceptual=0.0).evaluate_published()
    assert task.preview(1)["reconstructions"].pixels.shape == (2 * SIDE, 8 * SIDE, 3)
