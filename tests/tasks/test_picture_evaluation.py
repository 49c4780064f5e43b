"""The measures give everything to a painter that paints what was asked for, and nothing to one that does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from conjure.core.events import Event, Progress
from conjure.data.recolour import COLOURS
from conjure.data.scene_graph import OPPOSITE, PHRASES, Scene, Thing, held_out
from conjure.media.image import Image
from conjure.tasks.picture_evaluation import compositions, known_things, prompt, relation_scene
from tests.data.shapes import shapes, vocabulary

COUNT = 24


def white(scene: Scene) -> Scene:
    return replace(scene, things=())


def swapped(scene: Scene) -> Scene:
    a, b = scene.things
    return replace(scene, things=(replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)))


def halved(scene: Scene) -> Scene:
    return replace(scene, things=scene.things[:1])


def recoloured(scene: Scene) -> Scene:
    others = [next(c for c in COLOURS if c != t.colour) if t.colour else None for t in scene.things]
    return replace(scene, things=tuple(replace(t, colour=c) for t, c in zip(scene.things, others, strict=True)))


def exchanged(scene: Scene) -> Scene:
    new = next(c for c in range(len(shapes().pictograms)) if c not in {t.concept for t in scene.things})
    return replace(scene, things=(scene.things[0], replace(scene.things[1], concept=new)))


def turned(scene: Scene) -> Scene:
    return replace(scene, things=tuple(replace(t, x=t.y, y=t.x) for t in scene.things))


def moved(scene: Scene) -> Scene:
    return replace(scene, things=tuple(replace(t, x=t.x + 1 / 32, y=t.y - 1 / 32) for t in scene.things))


def share(change: Callable[[Scene], Scene], tell: Callable[[Event], None] | None = None) -> dict[str, object]:
    scenes = iter([relation_scene(shapes(), k) for k in range(COUNT)])

    def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        assert len(set(seeds)) == len(prompts)
        asked = [next(scenes) for _ in prompts]
        assert list(prompts) == [prompt(shapes(), scene) for scene in asked]
        return [Image(shapes().paint(change(scene))) for scene in asked]

    return compositions(draw, shapes(), count=COUNT, tell=tell)


@pytest.mark.parametrize("change", [lambda scene: scene, moved], ids=["as asked", "a little moved"])
def test_a_painter_that_does_as_asked_is_right(change: Callable[[Scene], Scene]) -> None:
    told: list[Event] = []
    found = share(change, told.append)
    assert (found["value"], found["high"], found["n"]) == (1.0, 1.0, COUNT)
    assert 0.8 < found["low"] < 0.9  # type: ignore[operator]
    assert told[-1] == Progress(COUNT, COUNT, "picture", "composition") and len(told) == 2


@pytest.mark.parametrize("change", [white, swapped, halved, recoloured, exchanged, turned])
def test_a_painter_that_does_otherwise_is_wrong(change: Callable[[Scene], Scene]) -> None:
    assert share(change)["value"] == 0.0


def test_what_is_asked_for_is_unseen_has_one_colour_and_says_how_things_lie() -> None:
    relations = set()
    for index in range(60):
        scene = relation_scene(shapes(), index)
        assert scene == relation_scene(shapes(), index) and scene.background == "white"
        a, b = scene.things
        assert held_out(a.concept, b.concept) and {a.size, b.size} == {"medium"}
        assert sum(t.colour is not None for t in scene.things) == 1
        text = prompt(shapes(), scene)
        assert vocabulary().unknown(text) == {}
        pages = [p for p in vocabulary().encode([text], 24)[1][0].tolist() if p >= 0]
        relation = scene.relation if pages == [a.concept, b.concept] else OPPOSITE[scene.relation]
        assert sorted(pages) == sorted((a.concept, b.concept))
        assert any(f" {phrase} " in text for phrase in PHRASES[relation])
        assert (a.colour or b.colour) in text
        relations.add(relation)
    assert relations == set(OPPOSITE)


def test_known_things() -> None:
    def oracle(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        pages = vocabulary().encode(prompts, 12)[1].max(1)
        scenes = [Scene("single", (Thing(int(page), 0.45, 0.55, 0.7),)) for page in pages]
        return [Image(shapes().paint(scene)) for scene in scenes]

    told: list[Event] = []
    found = known_things(oracle, shapes(), tell=told.append)
    asked = 3 * len(shapes().pictograms)
    assert (found["value"], found["n"]) == (1.0, asked)
    assert told[-1] == Progress(asked, asked, "picture", "known things")
    assert known_things(oracle, shapes(), limit=4)["n"] == 12


def test_known_things_of_a_painter_that_paints_one_thing_only() -> None:
    always = Image(shapes().paint(Scene("single", (Thing(3, 0.5, 0.5, 0.8),))))
    found = known_things(lambda prompts, seeds: [always for _ in prompts], shapes())
    assert found["value"] == pytest.approx(1 / len(shapes().pictograms))
    blank = Image(np.full((64, 64, 3), 255, np.uint8))
    found = known_things(lambda prompts, seeds: [blank for _ in prompts], shapes())
    assert found["value"] <= 1 / len(shapes().pictograms)  # type: ignore[operator]


def test_without_anything_to_colour_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes(), "tints", frozenset())
    with pytest.raises(ValueError, match="none of these pictograms can take a colour"):
        relation_scene(shapes(), 0)
