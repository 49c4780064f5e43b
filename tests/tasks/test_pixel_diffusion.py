from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import conjure
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.paths import recipes_dir
from conjure.data.pictures_small import SHAPES, any_labels
from conjure.diffusion.names import SAMPLER_NAMES
from conjure.media.text import Text
from conjure.models.pixel_denoiser import PixelDenoiser, PixelDiffusionConfig
from conjure.tasks.pixel_diffusion import PixelData, PixelOptions, SamplePixels, fits
from conjure.train.audit import audit
from conjure.train.recipe import load_recipe
from conjure.train.settings import Training
from tests.data.handwriting import write_mnist

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"unet": {"channels": 4, "channels_out": 4, "widths": [8, 16], "residuals": 1, "depth": [0, 1],
                      "heads": [2, 2], "context": 0, "classes": 11, "groups": 4}, "patch": 2},
    "dit": {"dit": {"channels": 1, "out_channels": 1, "size": 28, "patch": 7, "dim": 16, "layers": 1, "heads": 2,
                    "hidden": 32, "classes": 10}},
}  # fmt: skip
PROCESSES: dict[str, dict[str, Any]] = {
    "ddpm": {"ddpm": {}}, "edm": {"edm": {"sigma_data": 0.6}}, "flow": {"flow": {"predict": "sample"}},
}  # fmt: skip


def config(network: str, process: str, **more: Any) -> PixelDiffusionConfig:
    return from_dict(PixelDiffusionConfig, NETWORKS[network] | PROCESSES[process] | more, where="model")


@pytest.fixture(autouse=True)
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist", 200)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))


def drawn(task: SamplePixels, prompt: str, options: PixelOptions, seeds: list[int]) -> tuple[np.ndarray, list[Event]]:
    events = list(task.generate([Text(prompt)], options, seeds))
    (result,) = (event for event in events if isinstance(event, Result))
    return np.stack([each.pixels for each in result.media]), events


class Known(nn.Module):
    """What a perfectly trained network says of a world in which each class is one picture, and no class their mean."""

    def __init__(self, config: PixelDiffusionConfig, pictures_KCHW: Tensor) -> None:
        super().__init__()
        self.config, self.none = config, len(pictures_KCHW)
        self.pictures = torch.cat([pictures_KCHW, pictures_KCHW.mean(0, keepdim=True)])

    def forward(self, x: Tensor, told_B: Tensor, labels_B: Tensor) -> Tensor:
        x0, told = self.pictures[labels_B].to(x), told_B.view(-1, 1, 1, 1)
        if self.config.flow:
            return x0
        if self.config.edm:
            sigma = (4 * told).exp()
            c_skip, c_out, c_in, _ = self.config.edm.scalings(sigma)
            return (x0 - c_skip * x / c_in) / c_out
        alpha_bar = self.config.process.alpha_bar_T[told.long()]  # type: ignore[union-attr]
        return ((x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()).to(x)


@pytest.mark.parametrize("process", PROCESSES)
def test_every_sampler_draws_what_a_perfect_network_knows(process: str) -> None:
    pictures = torch.rand(10, 1, 28, 28) * 1.2 - 0.6
    model = config("unet", process)
    task = SamplePixels(PixelDenoiser(model), PixelData())
    task.network = Known(model, pictures)  # type: ignore[assignment]
    wanted = ((pictures[7] + 1) * 127.5).permute(1, 2, 0).numpy()
    for sampler in SAMPLER_NAMES:
        got, events = drawn(task, "a seven", PixelOptions(steps=5, sampler=sampler), [1, 2])
        assert np.abs(got - wanted).max() <= 1, sampler
        assert sum(isinstance(event, Progress) for event in events) == 5
    # twice the way from the mean of all classes, and no further than black and white
    strong = pictures.mean(0) + 2 * (pictures[7] - pictures.mean(0))
    got, events = drawn(task, "7", PixelOptions(steps=4, guidance=2.0, sampler="euler"), [3])
    assert np.abs(got[0] - ((strong.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()).max() <= 1
    (facts,) = (event.facts for event in events if isinstance(event, Result))
    assert facts == {"evaluations": 8} and strong.abs().max() > 1


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("network", NETWORKS)
def test_all_train_save_load_and_draw_the_same_alone_and_among_others(
    network: str, process: str, tmp_path: Path
) -> None:
    task = SamplePixels.create(config(network, process), PixelData())
    task.network.train()
    batch, optimizer = task.batch(range(16)), torch.optim.Adam(task.network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        total, count = task.loss(batch)
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item() / count.item())
    assert losses[-1] < 0.9 * losses[0], losses
    task.network.eval()
    task.save(tmp_path / "m")
    loaded = SamplePixels.load(tmp_path / "m")
    assert loaded.config == task.config
    options = PixelOptions(steps=3, sampler="ddpm", guidance=1.5)
    three, events = drawn(loaded, "any", options, [1, 2, 3])
    one, _ = drawn(loaded, "", options, [2])
    assert np.array_equal(three[1], one[0]) and not np.array_equal(three[0], three[1])
    previews = [event.medium for event in events if isinstance(event, Preview)]
    assert len(previews) == 3 and previews[0].kind == "image"
    many = loaded.draw([1, 2, 3], any_labels(loaded.data.set, [1, 2, 3]), options)
    assert np.abs(many.astype(int) - three).max() <= 1, "in a batch, but for rounding"
    made = conjure.make("any", model=str(tmp_path / "m"), output=tmp_path / "one.png", seed=2, steps=3,
                        sampler="DDPM", guidance=1.5)  # fmt: skip
    assert np.array_equal(made.pixels, one[0])


def test_the_loop_finds_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conjure.train.audit.OVERFIT_STEPS", (12, 12))  # however slow the machine
    training = Training(steps=10, batch=4, optimizer="muon", lr=2e-2, adam_lr=1e-2)
    found = audit(SamplePixels.create(config("unet", "flow"), PixelData()), training)
    assert [str(each) for each in found if each.passed is False] == []


def test_examples_are_functions_of_their_index() -> None:
    task = SamplePixels.create(config("unet", "flow", drop=0.25), PixelData(mirror=True))
    whole, alone = task.batch(range(200)), task.batch([150])
    assert all(torch.equal(whole[name][150], alone[name][0]) for name in whole)
    assert whole["pixels"].dtype == torch.uint8 and whole["pixels"].shape == (200, 1, 28, 28)
    assert 30 <= int((whole["labels"] == 10).sum()) <= 70, "a quarter of the classes is not told"
    assert "(not told)" in task.describe(whole) and task.tokens(whole) == 200
    plain = SamplePixels.create(config("unet", "flow"), PixelData()).batch(range(200))["pixels"]
    same = (whole["pixels"] == plain).flatten(1).all(1)
    turned = (whole["pixels"] == plain.flip(3)).flatten(1).all(1)
    assert bool((same | turned).all()) and 70 <= int(same.sum()) <= 130
    parts = [{name: each[part] for name, each in whole.items()} for part in (slice(5), slice(5, 200))]
    task.network.eval().requires_grad_(False)
    assert sum(task.loss(part)[0].item() for part in parts) == pytest.approx(task.loss(whole)[0].item(), rel=1e-5)


def test_evaluation_measures_by_fixed_times_and_noise() -> None:
    task = SamplePixels.create(config("unet", "flow", flow={}), PixelData())
    # a new network says nothing: the error is that of the velocity itself, noise less data
    real = task.batch(range(200))["pixels"] / 127.5 - 1
    assert task.evaluate(150)["loss"] == pytest.approx(1 + float(real.square().mean()), rel=0.02)
    assert task.evaluate(150) == task.evaluate(150)
    assert task.preview(0)["samples"].pixels.shape == (8 * 28, 10 * 28, 3)


def test_what_does_not_fit() -> None:
    with pytest.raises(ConjureError, match="1 channels and 10 classes"):
        fits(replace(config("unet", "flow"), patch=1), PixelData())
    with pytest.raises(ConjureError, match="28 x 28"):
        fits(from_dict(PixelDiffusionConfig, {"dit": NETWORKS["dit"]["dit"] | {"size": 21}, "flow": {}}), PixelData())
    told_nothing = config("unet", "flow", unet=NETWORKS["unet"]["unet"] | {"classes": 0})
    free = SamplePixels(PixelDenoiser(told_nothing), PixelData())
    _, events = drawn(free, "a seven", PixelOptions(steps=1, guidance=3.0), [1])
    said = [event.text for event in events if isinstance(event, Warn)]
    assert len(said) == 2 and "it draws any, not only seven" in said[0] and "guidance has no effect" in said[1]
    with pytest.raises(ConjureError, match="brings its own noise levels"):
        PixelOptions(sampler="DPM++ 2M Karras")


RECIPES = [path.stem for path in sorted(recipes_dir().glob("*.yaml")) if "task: pixel_diffusion" in path.read_text()]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_fit_their_data(name: str) -> None:
    model, data = load_recipe(name).resolve(SamplePixels, name)
    fits(model, data)
    with torch.device("meta"):
        network = PixelDenoiser(model)
        height, width, channels = SHAPES[data.set]
        x_BCHW = torch.empty(2, channels, height, width)
        assert network(x_BCHW, torch.empty(2), torch.empty(2, dtype=torch.long)).shape == x_BCHW.shape
    if name == "cifar-ddpm-gpu":
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == 35_746_307, "the published network's"
