"""Edits of scenes: what an instruction names is where it says, and nothing but that changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from conjure.codecs.picture_words import PictureWords
from conjure.data.captions import COLOUR_NUMBERS, SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.scene_edits import KINDS, TOGETHER, WORDS, Edit, EditSource, Square, placed, square_of
from conjure.data.scene_graph import GRID, Split, Thing, held_out
from conjure.data.scenes import SceneSource
from tests.data.shapes import shapes

COUNT = 120


def source() -> EditSource:
    return EditSource(shapes())


def edits(split: Split = "train") -> list[Edit]:
    return [source().edit(0, k, split) for k in range(COUNT)]


def test_an_edit_is_a_function_of_seed_index_split_and_kind() -> None:
    assert source().edit(3, 5) == source().edit(3, 5)
    others = [source().edit(4, 5), source().edit(3, 6), source().edit(3, 5, "test")]
    assert all(each != source().edit(3, 5) for each in others)
    assert [source().edit(0, 1, "test", kind).kind for kind in KINDS] == list(KINDS)
    assert {edit.kind for edit in edits()} == set(KINDS)


@pytest.mark.parametrize("split", ["train", "test"])
def test_pixels_differ_in_touched_squares_only(split: Split) -> None:
    step = shapes().size // GRID
    for edit in edits(split):
        before, after = shapes().paint(edit.before), shapes().paint(edit.after)
        differs = (before != after).any(2)
        touched = edit.touched().repeat(step, 0).repeat(step, 1)
        assert differs.any() and not (differs & ~touched).any(), edit


def test_every_word_is_known_and_stands_for_its_part() -> None:
    words = PictureWords(WORDS, SceneCaptions(shapes()).names, spoken)
    for edit in edits():
        rows, pages = words.encode([edit.instruction], 20)
        assert not words.unknown(edit.instruction) and not words.cut(edit.instruction, 20)
        for part in edit.parts:
            if part.page >= 0:
                assert part.page in pages[0], edit
            else:
                assert words.vocabulary.index(part.word) in rows[0], edit


def test_pairs_that_meet_in_tests_never_meet_in_training() -> None:
    for split in ("train", "test"):
        for edit in edits(split):
            for scene in (edit.before, edit.after):
                if len(edit.before.things) == 3 and split == "test":
                    continue  # in scenes of three no pair is held out
                concepts = {thing.concept for thing in scene.things}
                held = [held_out(a, b) for a, b in combinations(concepts, 2)]
                assert not any(held) if split == "train" or len(concepts) != 2 else all(held), edit


def test_kinds_do_what_they_say() -> None:
    seen = {edit.kind: edit for edit in edits()}
    for edit in edits():
        before, after = edit.before.things, edit.after.things
        match edit.kind:
            case "remove":
                assert len(after) == len(before) - 1 and set(after) < set(before)
                assert [p.wanted for p in edit.parts] == [None]
            case "recolour":
                (old,), (new,) = set(before) - set(after), set(after) - set(before)
                assert new.colour and new == replace(old, colour=new.colour) and new.colour in edit.instruction
                assert edit.parts[0].colour == COLOUR_NUMBERS[new.colour] and edit.parts[0].found == square_of(old)
            case "add":
                assert len(after) == len(before) + 1 and edit.parts[0].wanted == square_of(after[-1])
                assert edit.parts[0].found is None and not edit.parts[1].touched
            case "swap":
                assert [t.concept for t in before] == [t.concept for t in after]
                assert all(p.moved and p.found != p.wanted for p in edit.parts)
                if edit.instruction == "swap them":
                    assert tuple(p.word for p in edit.parts) == TOGETHER
                    assert [p.found for p in edit.parts] == [square_of(t) for t in before]
            case "replace":
                assert len(after) == len(before) and edit.parts[0].found == edit.parts[1].wanted
            case "background":
                assert after == before and edit.ground == edit.after.background and edit.ground in edit.instruction
    assert len(seen) == len(KINDS)


def test_things_are_put_on_the_grid_within_the_canvas() -> None:
    thing = Thing(0, 0.5, 0.5, 7 / GRID)
    assert square_of(placed(thing, 0.5, 0.5)) == Square(5, 5, 7)  # 4.5 cells: the farther corner
    assert square_of(placed(thing, -1, 2)) == Square(0, 9, 7)
    assert np.zeros((GRID, GRID))[Square(2, 3, 4).within].shape == (4, 4)


def test_what_no_scene_allows_is_refused() -> None:
    plain = SceneSource(shapes().pictograms, shapes().pictures, size=64)
    plain.tints = frozenset()  # nothing takes a colour
    with pytest.raises(ValueError, match="recolour"):
        EditSource(plain).edit(0, 0, kind="recolour")
