"""image + text -> image, from a recipe's values to a saved editor and its pictures, on pictograms made here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.seeds import normal
from conjure.data.scene_edits import KINDS, Part, Square
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.folder import read_config
from conjure.tasks import instruct
from conjure.tasks.edit_drafts import Outline
from conjure.tasks.edit_evaluation import SEED, edits_done
from conjure.tasks.instruct import EditData, Instruct, InstructOptions
from tests.tasks.edit_models import SIDE, WORDS, config, created, edits, painter, scenes

QUICK = InstructOptions(steps=2)
RECOLOUR = Outline((Part(3, "", Square(2, 3, 6), Square(2, 3, 6), colour=4),))


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of a tiny painter; scenes are those of `edit_models`."""
    made = painter(tmp_path_factory.mktemp("painter"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: scenes()))
        yield made


@pytest.fixture(scope="module")
def task(folder: str) -> Instruct:
    made = created(folder)
    with torch.no_grad():
        for k, parameter in enumerate(made.network.drawer.parameters()):
            parameter.add_(0.2 * normal([k], parameter.shape)[0])
    made.network.eval()
    return made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner says `RECOLOUR` of everything."""
    monkeypatch.setattr(instruct, "decided", lambda plan, rows, pages, sides: [RECOLOUR] * len(rows))


def picture(height: int = SIDE, width: int = SIDE, channels: int = 3) -> Image:
    noise = torch.rand(height, width, channels, generator=torch.Generator().manual_seed(height * width)).numpy()
    return Image((noise * 255).astype(np.uint8))


def run(task: Instruct, *inputs: Any, options: InstructOptions = QUICK, seeds: tuple[int, ...] = (1,)) -> list[Event]:
    return list(task.generate(inputs, options, list(seeds)))


def made(events: list[Event]) -> list[Image]:
    assert isinstance(events[-1], Result)
    return [medium for medium in events[-1].media if isinstance(medium, Image)]


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warn)]


def test_it_learns(folder: str) -> None:
    task = created(folder)
    batch = task.batch(range(8))
    losses, count = [], torch.tensor(0)
    for _ in range(6):
        task.network.zero_grad()
        total, count = task.loss(batch)
        (total / count).backward()
        losses.append(float((total / count).detach()))
        with torch.no_grad():
            for p in task.network.parameters():
                p -= 0.02 * (p.grad if p.grad is not None else 0)
    assert losses[-1] < 0.9 * losses[0] and int(count) == 8
    assert all(p.grad is not None for p in task.network.planner.matcher.parameters())
    assert task.network.drawer.draft.weight.grad is not None
    assert task.tokens(batch) == (8 + 4) * 16 and task.flops(batch) > 0
    assert "4 of them drawn" in task.describe(batch) and "changes" in task.describe(batch)


def test_examples_do_not_depend_on_their_batch(task: Instruct) -> None:
    whole, part = task.batch([4, 5, 6, 7]), task.batch([6, 7])
    for name in ("words", "pages", "looks", "spots", "source", "want_flags_BK3", "want_found_BK"):
        torch.testing.assert_close(part[name], whole[name][2:], atol=1e-5, rtol=1e-5)
    assert whole["drawn"].tolist() == [0, 2] and torch.equal(part["seeds"], whole["seeds"][1:])
    for name in ("x", *(f"draw_{n}" for n in range(6))):
        torch.testing.assert_close(part[name], whole[name][1:], atol=1e-5, rtol=1e-5)
    parts = [task.loss(task.batch([k, k + 1])) for k in (4, 6)]
    torch.testing.assert_close(sum(p[0] for p in parts), task.loss(whole)[0], atol=1e-4, rtol=1e-4)
    alone, count = task.loss(task.batch([5]))  # the drawer has nothing to learn from it
    assert torch.isfinite(alone) and int(count) == 1


def test_outside_what_changes_every_bit_stays(task: Instruct, told: None) -> None:
    for old in (picture(), picture(channels=4), picture(channels=1)):
        (new,) = made(run(task, old, Text("make the box green")))
        inside = np.zeros((SIDE, SIDE), bool)
        inside[24:72, 16:64] = True
        kept = old.pixels if old.pixels.shape[2] == new.pixels.shape[2] else old.rgb()
        assert np.array_equal(new.pixels[~inside], kept[~inside])
        assert (new.pixels[inside] != kept[inside]).any(1).mean() > 0.9


@pytest.mark.parametrize("size", [(64, 64), (200, 100), (96, 300), (1, 1)])
def test_pictures_of_other_sizes_come_back_at_theirs(task: Instruct, told: None, size: tuple[int, int]) -> None:
    old = picture(*size)
    events = run(task, old, Text("make the box green"))
    (new,) = made(events)
    assert new.pixels.shape == old.pixels.shape
    scale, (height, width) = max(size) / SIDE, size
    top, left = (SIDE - height / scale) / 2, (SIDE - width / scale) / 2
    y, x = np.mgrid[:height, :width] + 0.5
    far = (np.abs(y / scale + top - 48) > 24 + 8) | (np.abs(x / scale + left - 40) > 24 + 8)
    assert np.array_equal(new.pixels[far], old.pixels[far])
    assert np.array_equal(new.pixels, old.pixels) == (size == (1, 1))
    assert any("enlarged" in text for text in warnings(events)) == (max(size) > SIDE)


def test_a_new_ground_leaves_the_things_on_it(task: Instruct, monkeypatch: pytest.MonkeyPatch) -> None:
    every = Outline((), "blue", np.ones((16, 16), bool))
    monkeypatch.setattr(instruct, "decided", lambda plan, rows, pages, sides: [every] * len(rows))
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[40:80, 40:80] = (200, 30, 30)
    (new,) = made(run(task, Image(pixels), Text("make the background blue")))
    assert np.array_equal(new.pixels[42:78, 42:78], pixels[42:78, 42:78])
    assert (new.pixels[:38] != 255).any(2).mean() > 0.6


def test_the_seam_is_blended_inside(task: Instruct, told: None) -> None:
    old = picture()
    (hard,), (soft,) = (made(run(task, old, Text("make the box green"), options=InstructOptions(steps=2, feather=n)))
                        for n in (0, 6))  # fmt: skip
    assert np.array_equal(soft.pixels[:24], old.pixels[:24])
    away = [np.abs(each.pixels.astype(int) - old.pixels)[24, 16:64].mean() for each in (hard, soft)]
    assert 0 < away[1] < away[0] / 3
    assert np.array_equal(soft.pixels[40:50, 35:45], hard.pixels[40:50, 35:45])


def test_a_picture_is_the_same_alone_and_among_others(task: Instruct, told: None) -> None:
    old, text = picture(), Text("make the box green")
    among = made(run(task, old, text, seeds=(7, 8, 9)))
    alone = made(run(task, old, text, seeds=(8,)))
    assert np.abs(among[1].pixels.astype(int) - alone[0].pixels).max() <= 1
    assert not np.array_equal(among[0].pixels, among[1].pixels)
    many = task.apply([old, picture(64, 90)], [str(text)] * 2, [8, 9], QUICK)
    assert np.abs(many[0].pixels.astype(int) - alone[0].pixels).max() <= 1 and many[1].width == 90


def test_events_lead_to_a_result(task: Instruct, told: None) -> None:
    events = run(task, picture(), Text("make the box green"), options=InstructOptions(steps=3), seeds=(1, 2))
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3]
    previews = [event.medium for event in events if isinstance(event, Preview)]
    assert len(previews) == 2 and all(each.kind == "image" for each in previews)
    assert isinstance(events[-1], Result) and len(events[-1].media) == 2
    assert events[-1].facts == {"changed": round(36 / 256, 4), "evaluations": 3}


def test_words_that_were_not_learnt_are_said(task: Instruct, told: None) -> None:
    said = warnings(run(task, picture(), Text("make the teapott green")))
    assert "teapott" in said[0] and "teapot" in said[0]
    assert "does not read its end" in warnings(run(task, picture(), Text("make the box green " + "and red " * 20)))[0]
    assert warnings(run(task, picture(), Text("make the teapot green"))) == []


def test_a_plan_of_nothing_changes_nothing(task: Instruct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruct, "decided", lambda plan, rows, pages, sides: [Outline()] * len(rows))
    old = picture(40, 50, 4)
    events = run(task, old, Text("remove the box"), seeds=(1, 2))
    assert all(each is old for each in made(events)) and "stays as it is" in warnings(events)[0]
    assert np.array_equal(task.apply([old], ["remove the box"], [1], QUICK)[0].pixels, old.pixels)


def test_inputs_that_are_missing_are_said(task: Instruct) -> None:
    with pytest.raises(ConjureError, match="what to do"):
        run(task, picture())
    with pytest.raises(ConjureError, match="one picture"):
        run(task, Text("make it green"))


def test_a_saved_editor_edits_as_before(task: Instruct, told: None, tmp_path: Path, folder: str) -> None:
    task.save(tmp_path / "editor")
    assert read_config(tmp_path / "editor")["kind"] == "editor"
    assert {file.name for file in (tmp_path / "editor").iterdir()} == {"config.json", "model.safetensors", "words.json"}
    loaded = Instruct.load(tmp_path / "editor")
    assert loaded.source is None and loaded.config == task.config
    one, other = (made(run(each, picture(), Text("make the box green")))[0].pixels for each in (task, loaded))
    assert np.array_equal(one, other)
    saved = tmp_path / "editor" / "config.json"
    saved.write_text(json.dumps({**json.loads(saved.read_text()), "painter_digest": "sha256:0"}))
    with pytest.raises(ConjureError, match="another"):
        Instruct.load(tmp_path / "editor")


def test_figures_while_it_trains(task: Instruct) -> None:
    figures = task.evaluate(6)
    assert list(figures) == ["loss", "plan", "draw", "plans_right"]
    assert figures["loss"] == pytest.approx(figures["plan"] + figures["draw"]) and 0 <= figures["plans_right"] <= 1
    assert task.evaluate(6) == figures
    assert task.preview(3)["edits"].pixels.shape[1] >= 8 * SIDE


def test_the_protocol_runs_through_it(task: Instruct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruct, "edits_done", partial(edits_done, count=6))
    true = {source.instruction: scenes().paint(source.after) for source in
            (edits().edit(SEED, k, "test", KINDS[k]) for k in range(6))}  # fmt: skip
    monkeypatch.setattr(Instruct, "apply", lambda self, p, texts, seeds: [Image(true[text]) for text in texts])
    assert all(figure["value"] == 1 for figure in task.evaluate_published().values())
    monkeypatch.setattr(Instruct, "apply", lambda self, pictures, texts, seeds: list(pictures))
    assert task.evaluate_published()["edits_done"]["value"] == 0


def test_recipes_that_do_not_fit_are_refused(folder: str) -> None:
    right = config(folder)
    with pytest.raises(ConjureError, match=f"the data have {WORDS}"):
        Instruct.create(replace(right, planner=replace(right.planner, vocab=7)), EditData(size=SIDE))
    with pytest.raises(ConjureError, match="must be those"):
        Instruct.create(replace(right, dit=replace(right.dit, layers=2)), EditData(size=SIDE))
    few = SceneSource(scenes().pictograms[:9], scenes().pictures[:9], size=SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneSource, "load", classmethod(lambda cls, size=SIDE: few))
        with pytest.raises(ConjureError, match="pages"):
            Instruct.create(right, EditData(size=SIDE))
