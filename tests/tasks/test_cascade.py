"""A cascade of tiny networks over pictograms made here: trained, saved, loaded, drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Progress, Result, Warn
from conjure.core.seeds import normal
from conjure.data.few_scenes import FewScenes, FewScenesData
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.cascade import CascadeConfig
from conjure.models.dit import DiTConfig
from conjure.models.picture_text import PictureTextConfig
from conjure.tasks import scene_drawing
from conjure.tasks.cascade import Cascade, CascadeOptions
from conjure.train.audit import audit
from conjure.train.settings import Training
from tests.data.shapes import SIDE
from tests.tasks.few_shapes import DATA, instead

SMALL = DiTConfig(channels=3, size=16, patch=4, dim=16, layers=1, heads=2, hidden=32)
QUICK = CascadeOptions(steps=2)


@pytest.fixture(autouse=True)
def scenes(monkeypatch: pytest.MonkeyPatch) -> FewScenes:
    return instead(monkeypatch)


def config(scenes: FewScenes) -> CascadeConfig:
    text = PictureTextConfig(vocab=len(scenes.words.vocabulary), length=12, dim=16, layers=1, heads=2)
    return CascadeConfig(text=text, first=SMALL, second=replace(SMALL, size=SIDE, patch=8, dim=12, heads=1))


def create(model: CascadeConfig, folder: Path | None = None) -> Cascade:
    """With random weights (a new one would draw the same whatever it is told), loaded from a folder if one is given."""
    task = Cascade.create(model, replace(DATA, size=model.size))
    with torch.no_grad():
        for k, parameter in enumerate(task.network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0])
    if folder is None:
        return task
    task.save(folder)
    return Cascade.load(folder)


def drawn(task: Cascade, prompt: str, seeds: list[int], options: CascadeOptions = QUICK) -> np.ndarray:
    (result,) = (e for e in task.generate([Text(prompt)], options, seeds) if isinstance(e, Result))
    return np.stack([each.pixels for each in result.media])  # type: ignore[attr-defined]


def test_the_loop_finds_no_fault(scenes: FewScenes) -> None:
    found = audit(Cascade.create(config(scenes), DATA), Training(steps=10, batch=4, optimizer="muon", lr=2e-3))
    assert [str(each) for each in found if each.passed is False] == []


def test_a_saved_model_draws_the_same_alone_and_among_others(scenes: FewScenes, tmp_path: Path) -> None:
    task = create(config(scenes), tmp_path)
    three, one = drawn(task, "a rocket", [1, 2, 3]), drawn(task, "a rocket", [2])
    assert three.shape == (3, SIDE, SIDE, 3)
    assert np.abs(three[1].astype(int) - one[0]).max() <= 1 and not np.array_equal(three[0], three[1])
    assert np.abs(one[0] - drawn(task, "a kite", [2])[0].astype(int)).max() > 1, "the text is read"
    assert drawn(task, "a kite", [2], replace(QUICK, size=100)).shape[1:3] == (100, 100)


def test_steps_are_told_and_what_cannot_be_read(scenes: FewScenes, tmp_path: Path) -> None:
    task = create(config(scenes), tmp_path)
    events = list(task.generate([Text("a rockt " + "above " * 12)], replace(QUICK, guidance=2.0), [1]))
    assert [e.step for e in events if isinstance(e, Progress)] == [1, 2, 3, 4]
    assert [e.medium.pixels.shape[0] for e in events if isinstance(e, Preview)] == [SIDE] * 3  # type: ignore[attr-defined]
    assert isinstance(events[-1], Result) and events[-1].facts == {"evaluations": 2 * 2 + 2}
    said = [e.text for e in events if isinstance(e, Warn)]
    assert "nearest known: rocket" in said[0] and "too long" in said[1]
    with pytest.raises(ConjureError, match="empty text"):
        list(task.generate([Text(" ")], QUICK, [1]))


def test_the_second_network_is_told_the_level_and_sees_the_small_picture(scenes: FewScenes) -> None:
    second = create(config(scenes)).network.second
    assert second is not None
    x, small = normal([1, 2], (3, SIDE, SIDE)), normal([3, 4], (3, 16, 16))
    context = normal([1, 2], (5, 16)), torch.ones(2, 5, dtype=torch.bool), normal([5, 6], (16,))
    half = torch.full((2,), 0.5)

    def out(small: torch.Tensor, level: float) -> torch.Tensor:
        return second(x, half, small, torch.full((2,), level), *context)

    assert (out(small, 0.0) - out(small, 0.3)).abs().max() > 1e-3
    assert (out(small, 0.3) - out(-small, 0.3)).abs().max() > 1e-3


def test_the_option_changes_only_the_second_network_and_training_spans_its_levels(
    scenes: FewScenes, tmp_path: Path
) -> None:
    task = create(config(scenes), tmp_path)
    levels: list[torch.Tensor] = []
    assert task.network.second is not None
    task.network.second.register_forward_pre_hook(lambda module, given: levels.append(given[3]))
    plain, grainy = (drawn(task, "a kite", [2], replace(QUICK, augment=level)) for level in (0.0, 0.6))
    assert not np.array_equal(plain, grainy)
    assert torch.cat(levels).tolist() == pytest.approx([0, 0, 0.6, 0.6])
    levels.clear()
    task.loss(task.batch(range(24)))
    assert 0 < float(levels[0].min()) < 0.1 and 0.4 < float(levels[0].max()) < task.config.noise


def test_without_a_second_network_it_is_a_direct_model(scenes: FewScenes, tmp_path: Path) -> None:
    task = create(replace(config(scenes), first=replace(SMALL, size=SIDE, patch=16), second=None), tmp_path)
    assert drawn(task, "a rocket", [1]).shape == (1, SIDE, SIDE, 3) and set(task.evaluate(4)) == {"loss"}
    both = create(config(scenes)).evaluate(4)
    assert both["loss"] == pytest.approx(both["first"] + both["second"])


def test_figures_and_copies_are_made_of_its_pictures(
    scenes: FewScenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("KNOWN", 2), ("COMPOSED", 3), ("COPIES", 4), ("SHOWN", 5), ("BATCH", 2)):
        monkeypatch.setattr(scene_drawing, name, value)
    task = create(config(scenes), tmp_path)
    monkeypatch.setattr(task, "_plainly", lambda prompts, seeds: [painted(each) for each in prompts])
    found = task.evaluate_published()
    assert (found["known_things"]["n"], found["composition"]["n"]) == (6, 3)
    assert set(task.evaluate_published(["composition"])) == {"composition"}
    with pytest.raises(ConjureError, match="no measure 'composed'"):
        task.evaluate_published(["composed"])
    sets = task.memorisation_sets()
    assert sets.made_NHWC.shape == (4, SIDE, SIDE, 3)
    assert sets.train_MHWC.shape == sets.held_out_HHWC.shape == (5, SIDE, SIDE, 3)
    assert not np.array_equal(sets.train_MHWC, sets.held_out_HHWC)


def painted(_: str) -> Image:
    return Image(np.full((SIDE, SIDE, 3), 255, np.uint8))


def test_what_does_not_fit_is_refused(scenes: FewScenes, tmp_path: Path) -> None:
    model = config(scenes)
    with pytest.raises(ConjureError, match=r"data\.size is 32"):
        Cascade.create(model, FewScenesData(things=18, size=32))
    with pytest.raises(ConjureError, match="captions have") as caught:
        Cascade.create(replace(model, text=replace(model.text, vocab=3)), DATA)
    assert caught.value.hint == f"model.text.vocab={len(scenes.words.vocabulary)}"
    for change in ({"noise": 1.0}, {"drop": 1.0}, {"first": replace(SMALL, channels=4)},
                   {"first": replace(SMALL, size=24)}, {"text": replace(model.text, dim=8)}):
        with pytest.raises(ConjureError):
            replace(model, **change)
