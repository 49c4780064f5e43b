"""pix2pix over pictograms made here: examples, the loop's audit, saved models, measures, errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Result, Warn
from conjure.data.outlines import OutlineSource, outline, plainly
from conjure.media.image import Image
from conjure.models.picture_translator import TranslatorConfig
from conjure.tasks.pix2pix import Pix2Pix, Pix2PixData, Pix2PixOptions, apart
from conjure.train.audit import audit
from conjure.train.settings import Training
from tests.data.painted_shapes import painted_shapes

SIDE = 16
MODEL = TranslatorConfig(side=SIDE, widths=(16, 16), blocks=1, critic_widths=(8, 8))
DATA = Pix2PixData(size=SIDE)
TRAINING = Training(steps=10, batch=4, optimizer="adamw", lr=3e-3, betas=(0.5, 0.999), clip=0.0)


@pytest.fixture(scope="module", autouse=True)
def shapes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        source = classmethod(lambda cls, size=SIDE, seed=0: cls(*painted_shapes(size, 60), seed=seed))
        patch.setattr(OutlineSource, "load", source)
        yield


@pytest.fixture
def task() -> Pix2Pix:
    return Pix2Pix.create(MODEL, DATA)


def drawing(warm: bool = False) -> Image:
    picture = np.full((40, 30, 3), 255, np.uint8)
    picture[10:30, 8:22] = 0
    return Image(picture if warm else outline(picture))


def drawn(task: Pix2Pix, image: Image, seeds: list[int], **options: int) -> tuple[list[np.ndarray], list[str]]:
    events = list(task.generate([image], Pix2PixOptions(**options), seeds))
    (result,) = (each for each in events if isinstance(each, Result))
    return [each.pixels for each in result.media], [each.text for each in events if isinstance(each, Warn)]


def test_an_example_is_an_outline_with_its_picture(task: Pix2Pix) -> None:
    whole, alone = task.batch(range(5)), task.batch([4])
    assert all(torch.equal(whole[name][4], alone[name][0]) for name in whole)
    assert whole["lines"].shape == (5, 1, SIDE, SIDE) and whole["pictures"].shape == (5, 3, SIDE, SIDE)
    picture = ((whole["pictures"][2].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert np.allclose(outline(picture)[..., 0], ((whole["lines"][2, 0] + 1) * 127.5).numpy(), atol=1e-3)
    assert task.describe(alone).startswith("1 outlines") and task.tokens(whole) == 5


def test_the_loss_is_the_distance_and_its_gradient_that_of_the_game(task: Pix2Pix) -> None:
    batch = task.batch(range(3))
    total, count = task.loss(batch)
    total.backward()
    found = {name: p.grad.clone() for name, p in task.network.named_parameters() if p.grad is not None}
    task.network.zero_grad()
    critic_B, judged_B, apart_B = task.network(batch["lines"], batch["pictures"])
    assert int(count) == 3 and total.item() == pytest.approx(float(apart_B.detach().sum()), rel=1e-5)
    (critic_B + judged_B + 100 * apart_B).sum().backward()
    for name, p in task.network.named_parameters():
        assert p.grad is not None
        assert torch.allclose(found[name], p.grad, rtol=1e-4, atol=1e-7), name


def test_the_loop_finds_no_fault(task: Pix2Pix) -> None:
    assert [str(each) for each in audit(task, TRAINING) if each.passed is False] == []


def test_a_saved_model_makes_the_same_picture_for_every_seed(task: Pix2Pix, tmp_path: Path) -> None:
    task.network.eval()
    task.save(tmp_path / "m")
    loaded = Pix2Pix.load(tmp_path / "m")
    (one, two), warned = drawn(loaded, drawing(), [1, 2])
    assert one.shape == (SIDE, SIDE, 3) and np.array_equal(one, two) and not warned
    assert np.array_equal(one, drawn(task, drawing(), [9])[0][0])
    larger = drawn(loaded, drawing(), [1], size=50)[0][0]
    assert larger.shape == (50, 50, 3)
    drawing().save(tmp_path / "in.png")
    made = conjure.make(tmp_path / "in.png", model=str(tmp_path / "m"), output=tmp_path / "out.png")
    assert np.array_equal(made.pixels, one)
    made = conjure.make(tmp_path / "in.png", model=str(tmp_path / "m"), output=tmp_path / "out.png", size=50)
    assert np.array_equal(made.pixels, larger)  # a size asks for a larger canvas only where the model could fill one


def test_transparency_is_white_and_a_dark_drawing_is_warned_of(task: Pix2Pix) -> None:
    line = drawing().pixels
    clear = np.concatenate([np.zeros((40, 30, 3), np.uint8), 255 - line], 2)
    assert np.array_equal(drawn(task, Image(clear), [1])[0][0], drawn(task, Image(line), [1])[0][0])
    assert "mostly dark" in drawn(task, Image(255 - line), [1])[1][0]
    assert drawn(task, Image(np.zeros((1, 1, 3), np.uint8)), [1])[0][0].shape == (SIDE, SIDE, 3)


def test_measures_stand_beside_what_has_learnt_nothing(task: Pix2Pix) -> None:
    found, figures = task.evaluate_published(), task.evaluate()
    lines, pictures = task.source.held_out()
    assert found["l1"]["value"] == pytest.approx(figures["l1"]) and found["l1"]["n"] == len(lines)
    assert found["psnr_db"]["low"] <= figures["psnr_db"] <= found["psnr_db"]["high"]
    assert found["plain_l1"]["value"] == pytest.approx(apart(plainly(lines, task.source.ink), pictures).mean())
    assert found["identity_l1"]["value"] > found["plain_l1"]["value"]
    assert apart(pictures, pictures).max() == 0 and apart(0 * pictures[:1], 0 * pictures[:1] + 51)[0] == 0.2
    sheet = task.preview(0)["outlines"].pixels
    shown = min(12, len(lines))
    assert sheet.shape == (3 * SIDE, shown * SIDE, 3)
    assert np.array_equal(sheet[2 * SIDE :, :SIDE], task.source.held_out(12)[1][0])


def test_sets_for_the_check_of_memorisation(task: Pix2Pix) -> None:
    sets = task.memorisation_sets()
    assert sets.made_NHWC.shape == sets.held_out_HHWC.shape == (len(task.source.test), SIDE, SIDE, 3)
    assert len(sets.train_MHWC) == len(task.source.train)


def test_another_size_is_refused() -> None:
    with pytest.raises(ConjureError, match="expected side 32"):
        Pix2Pix.create(MODEL, Pix2PixData(size=32))
    with pytest.raises(ConjureError, match="after 3"):
        Pix2Pix.create(replace(MODEL, after=1), DATA)
