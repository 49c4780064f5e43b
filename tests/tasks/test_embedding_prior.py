"""The prior and its decoder as tiny networks over pictograms made here: trained, saved, loaded, drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Progress, Result
from conjure.core.seeds import normal
from conjure.data.few_scenes import FewScenes, FewScenesData
from conjure.media.text import Text
from conjure.models.dit import DiTConfig
from conjure.models.picture_embedding import PictureEmbeddingConfig
from conjure.tasks import embedding_prior, scene_drawing
from conjure.tasks.drawing_options import SamplingOptions
from conjure.tasks.embedding_prior import PriorDrawing
from conjure.tasks.picture_evaluation import relation_scene
from conjure.train.audit import audit
from conjure.train.settings import Training
from tests.data.shapes import SIDE
from tests.tasks.few_shapes import DATA, instead

QUICK = SamplingOptions(steps=2)


@pytest.fixture(autouse=True)
def scenes(monkeypatch: pytest.MonkeyPatch) -> FewScenes:
    return instead(monkeypatch)


def config(scenes: FewScenes) -> PictureEmbeddingConfig:
    return PictureEmbeddingConfig(
        vocab=len(scenes.words.vocabulary), length=12, text_layers=1, image_layers=1, patch=16, embedding=16,
        prior_layers=1, tokens=2, wrong=3,
        decoder=DiTConfig(channels=3, size=SIDE, patch=16, dim=16, layers=1, heads=2, hidden=32),
    )  # fmt: skip


def create(scenes: FewScenes, folder: Path) -> PriorDrawing:
    """With random weights (a new one would draw the same whatever it is told), loaded from a folder."""
    task = PriorDrawing.create(config(scenes), DATA)
    with torch.no_grad():
        for k, parameter in enumerate(task.network.parameters()):
            parameter.copy_(0.3 * normal([k], parameter.shape)[0])
    task.save(folder)
    return PriorDrawing.load(folder)


def drawn(task: PriorDrawing, prompt: str, seeds: list[int], options: SamplingOptions = QUICK) -> np.ndarray:
    (result,) = (e for e in task.generate([Text(prompt)], options, seeds) if isinstance(e, Result))
    return np.stack([each.pixels for each in result.media])  # type: ignore[attr-defined]


def test_the_loop_finds_no_fault(scenes: FewScenes) -> None:
    found = audit(PriorDrawing.create(config(scenes), DATA), Training(steps=10, batch=4, optimizer="muon", lr=5e-3))
    assert [str(each) for each in found if each.passed is False] == []


def test_a_saved_model_draws_the_same_alone_and_among_others(scenes: FewScenes, tmp_path: Path) -> None:
    task = create(scenes, tmp_path)
    three, one = drawn(task, "a rocket", [1, 2, 3]), drawn(task, "a rocket", [2])
    assert three.shape == (3, SIDE, SIDE, 3)
    assert np.abs(three[1].astype(int) - one[0]).max() <= 1 and not np.array_equal(three[0], three[1])
    assert np.abs(one[0] - drawn(task, "a kite", [2])[0].astype(int)).max() > 1, "the text is read"
    assert drawn(task, "a kite", [2], replace(QUICK, size=100)).shape[1:3] == (100, 100)
    made = conjure.make("a rocket", model=str(tmp_path), output=tmp_path / "rocket.png", seed=2, steps=2)
    assert np.array_equal(made.pixels, one[0])


def test_the_text_reaches_the_picture_through_the_embedding_alone(
    scenes: FewScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = create(scenes, tmp_path)
    told = [task.imagine([text], QUICK, [1]) for text in ("a rocket", "a kite")]
    assert told[0].shape == (1, 16) and not torch.allclose(told[0], told[1], atol=1e-3)
    monkeypatch.setattr(task, "imagine", lambda prompts, options, seeds: told[0])
    assert np.array_equal(drawn(task, "a rocket", [1]), drawn(task, "a kite", [1]))


def test_guidance_and_steps_are_told(scenes: FewScenes, tmp_path: Path) -> None:
    task = create(scenes, tmp_path)
    events = list(task.generate([Text("a rocket")], replace(QUICK, guidance=3.0), [1]))
    assert [(e.step, e.total) for e in events if isinstance(e, Progress)] == [(2, 4), (3, 4), (4, 4)]
    assert sum(isinstance(e, Preview) for e in events) == 1
    assert isinstance(events[-1], Result) and events[-1].facts == {"evaluations": 6}
    strong, plain = (task.imagine(["a rocket"], replace(QUICK, guidance=g), [1]) for g in (3.0, 1.0))
    assert not torch.allclose(strong, plain, atol=1e-3)


def test_the_right_caption_comes_first_and_losses_are_told_apart(scenes: FewScenes, tmp_path: Path) -> None:
    task = PriorDrawing.create(config(scenes), DATA)
    batch = task.batch(range(6))
    assert batch["words"].shape == (6, 4, 12) and batch["x"].shape == (6, 3, SIDE, SIDE)
    own = torch.from_numpy(scenes.words.encode([scenes.example(0, k).caption for k in range(6)], 12)[0])
    assert torch.equal(batch["words"][:, 0], own)
    assert all((batch["words"][:, k] != own).any(1).all() for k in (1, 2, 3))
    assert 0.5 < task.batch(range(60))["told"].float().mean() < 1
    found = task.evaluate(6)
    assert found["loss"] == pytest.approx(found["contrast"] + found["prior"] + found["decoder"])
    assert 0 <= found["right"] <= 1


def test_the_figure_of_the_decoder_starts_from_true_pictures(
    scenes: FewScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((scene_drawing, "COMPOSED", 5), (embedding_prior, "COMPOSED", 5)):
        monkeypatch.setattr(module, name, value)
    task = create(scenes, tmp_path)
    given: list[np.ndarray] = []

    def kept(pictures: list[np.ndarray], seeds: list[int]) -> list[object]:
        given.extend(pictures)
        return [conjure.media.image.Image(each) for each in pictures]  # type: ignore[attr-defined]

    monkeypatch.setattr(task, "decoded", kept)
    found = task.evaluate_published(["decoded"])
    assert set(found) == {"decoded"} and found["decoded"]["n"] == 5
    true = [scenes.source.paint(relation_scene(scenes.source, k)) for k in range(5)]
    assert all(np.array_equal(a, b) for a, b in zip(given, true, strict=True))
    assert found["decoded"]["value"] >= 0.8, "true pictures are as asked"
    with pytest.raises(ConjureError, match="no measure"):
        task.evaluate_published(["nonsense"])


def test_what_does_not_fit_is_refused(scenes: FewScenes) -> None:
    with pytest.raises(ConjureError, match=r"data\.size is 32"):
        PriorDrawing.create(config(scenes), FewScenesData(things=18, size=32))
    with pytest.raises(ConjureError, match="captions have"):
        PriorDrawing.create(replace(config(scenes), vocab=3), DATA)
