"""A student, from its teacher's folder to a folder of its own and its pictures, on pictograms made here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.codecs.image_autoencoder import ImageAutoencoderConfig
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.core.seeds import normal
from conjure.data.scenes import SceneSource
from conjure.diffusion.flow import RectifiedFlow
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.dit import DiTConfig
from conjure.models.folder import read_config
from conjure.models.painter import PainterConfig
from conjure.models.picture_book import PictureBookConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.tasks import few_steps, image_to_image, scene_drawing
from conjure.tasks.few_steps import FewSteps, FewStepsConfig, FewStepsOptions
from conjure.tasks.image_to_image import CodecData, Reconstruct
from conjure.tasks.text_to_image import CaptionData, TextToImage, TextToImageOptions
from conjure.train.loop import train
from conjure.train.settings import Training
from tests.data.shapes import SIDE, shapes, vocabulary

DATA = CaptionData(size=SIDE)
PAINTER = PainterConfig(
    text=PictureTextConfig(vocab=len(vocabulary().vocabulary), length=14, dim=16, layers=1, heads=2),
    book=PictureBookConfig(pages=len(shapes().pictograms), channels=4, side=8, points=2),
    dit=DiTConfig(channels=4, size=8, patch=2, dim=16, layers=1, heads=2, hidden=32),
    flow=RectifiedFlow(predict="sample", floor=0.2),
    drop=0.25,
)
LEARNING = Training(steps=4, batch=2, lr=3e-3, ema=0.5, device="cpu", checkpoint_every=2, evaluate_limit=2)


@pytest.fixture(scope="module", autouse=True)
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of a painter with random weights; scenes are those of `shapes`."""
    codec, folder = tmp_path_factory.mktemp("codec"), tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: shapes()))
        patch.setattr(image_to_image, "MEASURED", 16)
        config = ImageAutoencoderConfig(latent_channels=4, width=8, fine_width=4)
        Reconstruct.create(config, CodecData(size=SIDE)).save(codec)
        task = TextToImage.create(replace(PAINTER, codec=str(codec)), DATA, 0)
        with torch.no_grad():
            for k, parameter in enumerate(task.network.parameters()):
                parameter.copy_(0.2 * normal([k], parameter.shape)[0])
        task.save(folder)
        yield str(folder)


def create(teacher: str, seed: int = 0) -> FewSteps:
    return FewSteps.create(FewStepsConfig(teacher=teacher), DATA, seed)


def picture(task: FewSteps | TextToImage, prompt: str, options: TextToImageOptions, seed: int = 1) -> np.ndarray:
    last = list(task.generate([Text(prompt)], options, [seed]))[-1]  # type: ignore[arg-type]
    assert isinstance(last, Result) and isinstance(last.media[0], Image)
    return last.media[0].pixels.astype(int)


def test_a_new_student_draws_like_its_teacher(teacher: str) -> None:
    task, options = create(teacher), FewStepsOptions(steps=3)
    assert np.array_equal(picture(task, "two kites", options), picture(TextToImage.load(Path(teacher)), "two kites",
                                                                       TextToImageOptions(steps=3)))
    batch = task.batch(range(4))
    told, noise, end = task._lesson(batch)
    assert noise.shape == end.shape == (4, 4, 8, 8) and not end.requires_grad and len(told) == 4
    figures = task.evaluate(5)
    assert next(iter(figures)) == "loss" and figures == task.evaluate(5) != task.evaluate(4)
    assert all(figures[f"student_{k}"] == pytest.approx(figures[f"teacher_{k}"]) for k in (1, 2, 4))
    assert len({figures[f"teacher_{k}"] for k in (1, 2, 4)}) == 3


def test_examples_are_pure_functions_of_their_index(teacher: str) -> None:
    together, alone = create(teacher).batch([3, 8, 21]), create(teacher).batch([8])
    assert all(torch.equal(tensor[1:2], alone[key]) for key, tensor in together.items())
    assert not torch.equal(create(teacher, seed=1).batch([8])["seeds"], alone["seeds"])
    untold = (create(teacher).batch(range(40))["words"] > 1).sum(1) == 0
    assert 3 <= int(untold.sum()) <= 20, "a quarter of the captions is dropped"


def test_only_the_students_transformer_learns(teacher: str) -> None:
    task = create(teacher)
    assert task.teacher is not None
    loss, count = task.loss(task.batch(range(3)))
    (loss / count).backward()
    assert int(count) == 3 and all(p.grad is not None for p in task.network.parameters())
    assert all(p.grad is None and not p.requires_grad for p in task.teacher.network.parameters())
    rest = [p for name, p in task.student.network.named_parameters() if not name.startswith("dit.")]
    assert rest and not any(p.requires_grad for p in rest)


def test_the_student_comes_closer_to_its_teacher_and_the_teacher_stays(teacher: str) -> None:
    task = create(teacher)
    assert task.teacher is not None
    before = {name: tensor.clone() for name, tensor in task.teacher.network.state_dict().items()}
    batch = task.batch(range(6))
    optimizer, losses = torch.optim.Adam(task.network.parameters(), lr=3e-3), []
    for _ in range(15):
        total, count = task.loss(batch)
        losses.append(total.item() / int(count))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in task.teacher.network.state_dict().items())
    parts = [{key: tensor[part] for key, tensor in batch.items()} for part in (slice(2), slice(2, 6))]
    assert sum(task.loss(part)[0].item() for part in parts) == pytest.approx(task.loss(batch)[0].item(), rel=1e-4)


def test_a_run_that_is_resumed_gives_the_same_bits(teacher: str, tmp_path: Path) -> None:
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    for folder in (straight, parted):
        train(create(teacher), LEARNING, folder)  # type: ignore[arg-type]
    (parted / "model.safetensors").unlink()
    shutil.rmtree(parted / "checkpoints/step-00000004")
    train(create(teacher), LEARNING, parted, resume=True)  # type: ignore[arg-type]
    written = [(folder / "model.safetensors").read_bytes() for folder in (straight, parted)]
    assert written[0] == written[1] != (Path(teacher) / "model.safetensors").read_bytes()


def test_the_folder_opens_as_a_student_and_as_a_painter(teacher: str, tmp_path: Path) -> None:
    task = create(teacher)
    weights = {name: tensor + 0.1 for name, tensor in task.network.state_dict().items()}
    task.save(tmp_path, weights=weights)
    saved = read_config(tmp_path)
    assert (saved["kind"], saved["task"]) == ("painter", "few_steps")
    assert set(saved["student"]) == {"teacher", "steps", "solver"}
    again, plain, options = FewSteps.load(tmp_path), TextToImage.load(tmp_path), FewStepsOptions(steps=4)
    assert again.config == task.config and again.teacher is None
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.network.state_dict().items())
    kept = task.student.network.text.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in plain.network.text.state_dict().items())
    assert np.array_equal(picture(again, "a box", options), picture(plain, "a box", TextToImageOptions(steps=4)))
    assert not np.array_equal(picture(again, "a box", options), picture(task, "a box", options))
    assert FewStepsOptions().steps == 2 and FewSteps.forecast(tmp_path, FewStepsOptions(), 1)["evaluations"] == 2


def test_what_is_read_previewed_and_counted(teacher: str) -> None:
    task = create(teacher)
    batch = task.batch(range(6))
    assert task.tokens(batch) == 6 * 16 * 5 and task.flops(batch) == (3 * 5 + 6) * task.network.flops(6, 14)
    said = task.describe(batch).splitlines()
    assert said[0] == "6 captions, each drawn in 1, 2, 4 steps:" and len(said) == 7
    task.student.source.prompts = ("a teapot", "two leaves above a box")  # type: ignore[union-attr]
    assert task.preview(0)["pictures"].pixels.shape == (3 * SIDE, 2 * SIDE, 3)


def test_published_figures(teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("THINGS", 3), ("SCENES", 4), ("COMPARED", 5)):
        monkeypatch.setattr(few_steps, name, small)
    for name, small in (("COPIES", 4), ("SHOWN", 6)):
        monkeypatch.setattr(scene_drawing, name, small)
    create(teacher).save(tmp_path)
    task, told = FewSteps.load(tmp_path), list[Event]()
    found = task.evaluate_published(on_progress=told.append)
    assert list(found) == [f"{what}_{k}" for k in (1, 2, 4) for what in ("known_things", "composition", "likeness")]
    assert [found[f"{what}_1"]["n"] for what in ("known_things", "composition", "likeness")] == [9, 4, 5]
    like = [found[f"likeness_{k}"]["value"] for k in (1, 2, 4)]
    assert all(5 < value < 60 for value in like) and len(set(like)) == 3 and isinstance(told[-1], Progress)
    monkeypatch.setattr(few_steps, "MANY", 4)
    assert task.evaluate_published(["likeness_4"])["likeness_4"]["value"] == 60
    with pytest.raises(ConjureError, match="no measure 'likeness'") as refused:
        task.evaluate_published(["likeness"])
    assert "likeness_" in refused.value.hint
    sets = task.memorisation_sets()
    assert sets.made_NHWC.shape == (4, SIDE, SIDE, 3) and sets.train_MHWC.shape == sets.held_out_HHWC.shape
    assert not np.array_equal(sets.train_MHWC, sets.held_out_HHWC)


def test_a_teacher_of_other_data_is_refused(teacher: str) -> None:
    with pytest.raises(ConjureError, match=f"knows .source: scenes, size: {SIDE}"):
        FewSteps.create(FewStepsConfig(teacher=teacher), CaptionData(size=128))
    with pytest.raises(ConjureError, match="no/such/teacher"):
        FewSteps.create(FewStepsConfig(teacher="no/such/teacher"), DATA)
