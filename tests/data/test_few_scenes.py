from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data import pictograms
from conjure.data.few_scenes import GROUPS, FewScenes, FewScenesData
from conjure.data.pictograms import Pictogram
from conjure.data.scene_graph import Kind, held_out
from conjure.data.scenes import SceneSource
from tests.data.shapes import SIDE, shapes
from tests.tasks.few_shapes import few_shapes


def test_a_scene_depends_on_its_index_alone_and_pairs_stay_apart() -> None:
    scenes = few_shapes()
    train, test = ([scenes.scene(3, k, split) for k in range(200)] for split in ("train", "test"))
    assert train[7] == scenes.scene(3, 7) and train != test
    for made, kept in ((train, False), (test, True)):
        pairs = [tuple(t.concept for t in scene.things) for scene in made if scene.kind == "pair"]
        assert 60 < len(pairs) < 140 and {held_out(a, b) for a, b in pairs} == {kept}
        assert {scene.background for scene in made} == {"white"} and {s.kind for s in made} == {"single", "pair"}


def test_captions_hold_only_words_that_were_learnt_and_no_synonyms() -> None:
    scenes = few_shapes()
    captions = [scenes.example(0, k).caption for k in range(200)]
    assert not any(scenes.words.unknown(caption) for caption in captions)
    assert any("teapot" in each for each in captions) and not any("tea " in f"{each} " for each in captions)
    assert any(shapes().synonyms), "a source that others use keeps its synonyms"


@pytest.mark.parametrize("kinds", [("single", "pair"), ("count", "row", "between")])
def test_wrong_captions_are_wrong(kinds: tuple[Kind, ...]) -> None:
    source = shapes()
    scenes = FewScenes(SceneSource(source.pictograms, source.pictures), FewScenesData(kinds=kinds, grounds=True))
    for index in range(20):
        scene = scenes.scene(0, index)
        said = scenes.mistakes(scene, index, 4)
        assert said == scenes.mistakes(scene, index, 4) and len(said) == 4
        # every wording of the scene itself, as far as a hundred draws show them
        right = {scenes.source.caption(scene, k) for k in range(100)}
        assert not right & set(said)
        assert not any(scenes.words.unknown(each) for each in said)


def test_changed_scenes_differ_as_they_should() -> None:
    scenes = few_shapes()
    for index in range(60):
        scene = scenes.scene(0, index)
        tinted, replaced = scenes._tinted(scene, index), scenes._replaced(scene, index)
        assert sum(a != b for a, b in zip(scene.things, tinted.things, strict=True)) == 1
        before, after = [t.concept for t in scene.things], [t.concept for t in replaced.things]
        assert before != after and len(set(after)) == len(after)


def test_things_are_chosen_by_group_and_one_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = [Pictogram(name, (), group, "", "", f"{k:x}", False, twin) for k, (name, group, twin) in enumerate((
        ("ox", GROUPS[0], None), ("red apple", GROUPS[1], None), ("rose", GROUPS[0], None), ("ram", GROUPS[0], "0"),
        ("flag: Oz", "Flags", None), ("fire", GROUPS[2], None), ("train", GROUPS[2], None), ("kite", GROUPS[3], None),
        ("radio", GROUPS[4], None), ("razor", GROUPS[4], None)))]  # fmt: skip
    pictures = np.random.default_rng(0).integers(0, 256, (len(known), SIDE, SIDE, 4), np.uint8)
    monkeypatch.setattr(pictograms, "load", lambda: (known, pictures))
    few = FewScenes.load(FewScenesData(things=6, size=32))
    names = [each.name for each in few.source.pictograms]
    assert len(names) == 6 and set(names) < {"ox", "rose", "fire", "train", "kite", "radio", "razor"}
    assert few.source.pictures.shape == (6, 32, 32, 4) and few.example(0, 0).pixels.shape == (32, 32, 3)
    assert len(FewScenes.load(FewScenesData(things=0, size=32)).source.pictograms) == 9
    with pytest.raises(ConjureError, match="at most 7"):
        FewScenes.load(FewScenesData(things=8, size=32))
    with pytest.raises(ConjureError, match="6 things or more"):
        FewScenesData(things=3)
