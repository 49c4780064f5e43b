"""CycleGAN over pictograms made here: strangers, both directions, collapse and hiding seen, saved models, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Result, Warn
from conjure.data.outlines import OutlineSource, outline
from conjure.media.image import Image
from conjure.models.picture_translator import TranslatorConfig
from conjure.tasks.cycle_gan import CycleGAN, CycleGANData, CycleGANOptions, colours
from conjure.train.audit import audit
from conjure.train.settings import Training
from tests.data.painted_shapes import painted_shapes

SIDE = 16
MODEL = TranslatorConfig(side=SIDE, widths=(16, 16), blocks=1, critic_widths=(8, 8), weight=10.0)
DATA = CycleGANData(size=SIDE)


@pytest.fixture(scope="module", autouse=True)
def shapes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        source = classmethod(lambda cls, size=SIDE, seed=0: cls(*painted_shapes(size, 60), seed=seed))
        patch.setattr(OutlineSource, "load", source)
        yield


@pytest.fixture
def task() -> CycleGAN:
    return CycleGAN.create(MODEL, DATA)


def made(task: CycleGAN, image: Image, options: CycleGANOptions) -> tuple[np.ndarray, list[str]]:
    events = list(task.generate([image], options, [3, 4]))
    (result,) = (each for each in events if isinstance(each, Result))
    one, two = (each.pixels for each in result.media)
    assert np.array_equal(one, two)
    return one, [each.text for each in events if isinstance(each, Warn)]


def test_an_example_is_of_two_pictograms(task: CycleGAN) -> None:
    whole, alone = task.batch(range(6)), task.batch([5])
    assert all(torch.equal(whole[name][5], alone[name][0]) for name in whole)
    assert not set(whole["places"][:, 0].tolist()) & set(whole["places"][:, 1].tolist())
    assert task.describe(alone).count("shape") == 2 and task.tokens(whole) == 6


def test_the_loss_is_that_of_the_cycle_and_its_gradient_that_of_the_game(task: CycleGAN) -> None:
    batch = task.batch(range(2))
    total, count = task.loss(batch)
    total.backward()
    found = {name: p.grad.clone() for name, p in task.network.named_parameters() if p.grad is not None}
    task.network.zero_grad()
    critic_B, judged_B, cycle_B = task.network(batch["lines"], batch["pictures"])
    assert int(count) == 2 and total.item() == pytest.approx(float(cycle_B.detach().sum()), rel=1e-5)
    (critic_B + judged_B + 10 * cycle_B).sum().backward()
    for name, p in task.network.named_parameters():
        assert p.grad is not None
        assert torch.allclose(found[name], p.grad, rtol=1e-4, atol=1e-7), name


def test_the_loop_finds_no_fault(task: CycleGAN) -> None:
    config = Training(steps=10, batch=2, optimizer="adamw", lr=3e-3, betas=(0.5, 0.999), clip=0.0)
    assert [str(each) for each in audit(task, config) if each.passed is False] == []


def test_a_saved_model_goes_both_ways(task: CycleGAN, tmp_path: Path) -> None:
    task.network.eval()
    task.save(tmp_path / "m")
    loaded = CycleGAN.load(tmp_path / "m")
    picture = Image(np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8))
    traced, _ = made(loaded, picture, CycleGANOptions(direction="picture->outline"))
    painted, _ = made(loaded, Image(outline(picture.rgb())), CycleGANOptions())
    assert traced.shape == (SIDE, SIDE, 1) and painted.shape == (SIDE, SIDE, 3)
    assert made(loaded, picture, CycleGANOptions(direction="picture->outline", size=40))[0].shape == (40, 40, 3)
    assert "mostly dark" in made(loaded, Image(np.zeros((9, 9, 1), np.uint8)), CycleGANOptions())[1][0]
    picture.save(tmp_path / "in.png")
    again = conjure.make(
        tmp_path / "in.png", model=str(tmp_path / "m"), output=tmp_path / "o.png", direction="picture->outline"
    )
    assert np.array_equal(again.pixels, traced)
    with pytest.raises(ConjureError, match="--direction: expected one of"):
        conjure.make(tmp_path / "in.png", model=str(tmp_path / "m"), output=tmp_path / "o.png", direction="up")


class Grey(nn.Module):
    """Every picture becomes one and the same, whatever is given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.zeros(len(x_BCHW), self.channels, *x_BCHW.shape[2:])


class Carry(nn.Module):
    """Hides the first colour in grey levels between 128 and 255, or takes it out again."""

    def __init__(self, hide: bool) -> None:
        super().__init__()
        self.hide = hide

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW[:, :1] + 1) / 2 if self.hide else (x_BCHW * 2 - 1).expand(-1, 3, -1, -1)


def test_a_collapsed_model_is_called_one(task: CycleGAN) -> None:
    task.network.there = Grey(3)  # type: ignore[assignment]
    found = task.evaluate_published()
    for name in ("variety", "colour_variety"):
        assert found[name]["value"] == 0 and "COLLAPSED" in found[name]["protocol"]
    assert task.evaluate()["variety"] == 0
    lines, pictures = (each ^ 1 for each in task.source.held_out())  # all but the truth
    task._through = lambda way, given, tell=None: pictures if given.shape[3] == 1 else lines  # type: ignore[method-assign]
    found = task.evaluate_published()
    for name in ("variety", "colour_variety"):
        assert found[name]["value"] == pytest.approx(1, abs=0.02) and "COLLAPSED" not in found[name]["protocol"]
        assert found[name]["low"] < 1 < found[name]["high"]
    for name in ("outline_cycle_l1", "picture_cycle_l1"):
        assert found[name]["value"] == pytest.approx(1 / 255)


def test_what_is_hidden_in_the_outline_is_seen(task: CycleGAN) -> None:
    grey = np.repeat(task.source.pictures_NHW3[..., :1], 3, axis=3)
    task.source.pictures_NHW3 = grey
    task.network.there, task.network.back = Carry(False), Carry(True)  # type: ignore[assignment]
    found = task.evaluate_published()
    assert found["picture_cycle_l1"]["value"] < 0.01 < 0.05 < found["picture_cycle_l1_black_and_white"]["value"]
    assert found["blank_outline_psnr_db"]["value"] > 0 and found["plain_picture_psnr_db"]["value"] > 10


def test_colours_within_the_lines() -> None:
    pictures = np.full((2, 12, 12, 3), 255, np.uint8)
    pictures[0, 2:10, 2:10], pictures[1, 2:10, 2:10] = (9, 9, 9), (90, 60, 30)
    lines = np.full((2, 12, 12, 1), 255, np.uint8)
    lines[:, 2:10, [2, 9]] = lines[:, [2, 9], 2:10] = 0
    assert colours(pictures, lines).tolist() == [[9, 9, 9], [90, 60, 30]]


def test_previews_and_sets(task: CycleGAN) -> None:
    shown = min(12, len(task.source.test))
    assert task.preview(0)["outlines"].pixels.shape == (4 * SIDE, shown * SIDE, 3)
    sets = task.memorisation_sets()
    assert len(sets.made_NHWC) == len(sets.held_out_HHWC) == len(task.source.test)
    assert len(sets.train_MHWC) == len(task.source.painted)
    with pytest.raises(ConjureError, match="expected side 32"):
        CycleGAN.create(MODEL, CycleGANData(size=32))
