"""Pictures, captions, answers, edits and films of a scene all agree with its graph."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from conjure.codecs.picture_words import NAMES
from conjure.data.phrases import COUNTS
from conjure.data.recolour import COLOURS
from conjure.data.scene_graph import (
    BACKGROUNDS,
    GRAMMAR,
    GRID,
    MOVES,
    PLACES,
    SIZE_WORDS,
    Scene,
    Split,
    Thing,
    held_out,
    snapped,
)
from conjure.data.scenes import SceneSource
from tests.data.shapes import DISC, GLASS, SIDE, shapes, vocabulary

MANY = 200
SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}


def scenes(kind: str | None = None, split: Split = "train") -> Iterator[Scene]:
    return (scene for scene in _drawn(split) if kind in (None, scene.kind))


@cache
def _drawn(split: Split) -> list[Scene]:
    return [shapes().scene(5, index, split) for index in range(MANY)]


def read(caption: str) -> tuple[str, list[int]]:
    """A caption with every name written `#`, and the pages that the names stand for."""
    words = vocabulary()
    rows, pages = (each[0] for each in words.encode([caption], 40))
    said = ["#" if page >= 0 else words.vocabulary[row] for row, page in zip(rows, pages, strict=True) if row > 1]
    return " ".join(said), [int(page) for page in pages if page >= 0]


def thing(scene: Scene, concept: int) -> Thing:
    return next(t for t in scene.things if t.concept == concept)


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    source, again = shapes(), SceneSource(shapes().pictograms, shapes().pictures, size=SIDE)
    backwards = {index: again.scene(5, index) for index in reversed(range(50))}
    assert all(source.scene(5, index) == backwards[index] for index in range(50))
    assert source.caption(backwards[7]) == again.caption(source.scene(5, 7))
    assert np.array_equal(source.paint(backwards[7]), again.paint(backwards[7]))
    others = source.scene(6, 7), source.scene(5, 8), source.scene(5, 7, "test")
    assert all(other != backwards[7] for other in others)


def test_all_kinds_backgrounds_sizes_and_colours_occur() -> None:
    seen = [*scenes(), *scenes(split="test")]
    assert {s.kind for s in seen} == {"single", "pair", "row", "between", "count"}
    assert {s.background for s in seen} == set(BACKGROUNDS)
    things = [t for s in seen for t in s.things]
    assert {t.size for t in things} == {"small", "medium", "large"}
    assert {t.colour for t in things} == {None, *COLOURS}
    assert {len(s.things) for s in seen if s.kind == "count"} == {2, 3, 4, 5, 6}


def test_pairs_that_are_held_out_never_meet_in_training_and_are_all_there_is_in_tests() -> None:
    pairs = list(itertools.combinations(range(200), 2))
    assert all(held_out(a, b) == held_out(b, a) for a, b in pairs[:50])
    assert np.mean([held_out(a, b) for a, b in pairs]) == pytest.approx(0.05, abs=0.005)
    for scene in scenes():
        for a, b in itertools.combinations({t.concept for t in scene.things}, 2):
            assert not held_out(a, b)
    tested = list(scenes("pair", "test"))
    assert len(tested) > 40 and all(held_out(*(t.concept for t in s.things)) for s in tested)


def test_only_things_with_a_main_colour_of_no_name_are_coloured() -> None:
    names = {shapes().pictograms[k].name for k in shapes().tints}
    assert names.isdisjoint({"red apple", "flag: Oz", "old woman", "hourglass", "church", "mouse"})
    assert {"teapot", "umbrella", "leaf", "marble"} <= names
    assert all(t.colour is None or t.concept in shapes().tints for s in scenes() for t in s.things)


def test_corners_lie_on_the_grid_and_things_on_the_canvas() -> None:
    for scene in scenes():
        for t in scene.things:
            corner = np.array([t.x - t.scale / 2, t.y - t.scale / 2]) * GRID
            assert np.allclose(corner, np.rint(corner)) and (corner >= 0).all()
            assert max(t.x, t.y) + t.scale / 2 <= 1
    moved = snapped(Thing(0, 0.51, 0.49, 0.5))
    assert (moved.x, moved.y) == (0.5, 0.5)


# -- captions --------------------------------------------------------------------------------------------------


def test_every_word_of_a_caption_is_grammar_or_a_name() -> None:
    for scene in scenes():
        for seed in (None, 1):
            caption = shapes().caption(scene, seed)
            assert vocabulary().unknown(caption) == {}, caption
            assert set(read(caption)[0].split()) <= GRAMMAR | {"#"}, caption


def test_captions_name_the_things_with_their_colours_and_sizes() -> None:
    for scene in scenes():
        text, pages = read(shapes().caption(scene))
        assert sorted(pages) == sorted({t.concept for t in scene.things})
        for said, page in zip(re.findall(r"((?:\w+ )*?)#", text), pages, strict=True):
            own = thing(scene, page)
            before = [] if not said else re.split(r"\b(?:a|an|and|of|between|the)\b", said)[-1].split()
            assert [w for w in before if w in COLOURS] == ([own.colour] if own.colour else [])
            assert [SIZES[w] for w in before if w in SIZES] == ([] if own.size == "medium" else [own.size])
        background = re.search(r"(?:on|with) a (\w+) background$", text)
        assert (background[1] if background else "white") == scene.background


def test_relations_agree_with_coordinates() -> None:
    found = set()
    for scene, more in itertools.product(scenes("pair"), range(4)):
        text, pages = read(shapes().caption(scene, scene.seed + more))
        a, b = (thing(scene, page) for page in pages)
        between = re.search(r"# (.*?)#", text)[1]  # type: ignore[index]
        for words, true in (
            ("left of|on the left and|and|next to|beside", a.x < b.x - 0.3 and abs(a.y - b.y) < 0.2),
            ("right of", a.x > b.x + 0.3 and abs(a.y - b.y) < 0.2),
            ("above|over|on top of|at the top and", a.y < b.y - 0.3 and abs(a.x - b.x) < 0.2),
            ("below|under|beneath", a.y > b.y + 0.3 and abs(a.x - b.x) < 0.2),
        ):
            if match := re.match(rf"(to the |on the )?({words})\b", between):
                found.add(match[2])
                assert true, text
                break
        else:
            raise AssertionError(f"no relation in {text!r}")
    assert len(found) == 13


def test_places_counts_rows_and_betweens_agree_with_coordinates() -> None:
    for scene in scenes():
        text, pages = read(shapes().caption(scene))
        if scene.kind == "single":
            at = [place for place in PLACES if re.search(rf"# {place}( |$)", text)]
            own = scene.things[0]
            centres = {place: np.hypot(own.x - x, own.y - y) for place, (x, y) in PLACES.items()}
            assert at == ([scene.relation] if scene.relation else [])
            assert min(centres, key=centres.__getitem__) == (scene.relation or "in the middle")
        elif scene.kind == "count":
            assert text.split()[0] == COUNTS[len(scene.things)]
            assert NAMES in vocabulary().encode([shapes().caption(scene)], 40)[0]
            assert len({(t.x, t.y) for t in scene.things}) == len(scene.things)
        elif scene.kind == "row":
            assert text.split("#")[2].split()[0] == "and"
            assert [thing(scene, page).x for page in pages] == sorted(t.x for t in scene.things)
        elif scene.kind == "between":
            middle, *ends = (thing(scene, page).x for page in pages)
            assert min(ends) < middle < max(ends)


def test_other_seeds_say_it_otherwise_and_synonyms_belong_to_one_thing() -> None:
    scene = next(scenes("pair"))
    assert len({shapes().caption(scene, seed) for seed in range(40)}) > 10
    fruit = [names for names in shapes().synonyms if "fruit" in names]
    assert fruit == [shapes().synonyms[12]], "fruit means the berry, which has fewer keywords than the apple"


# -- questions, edits, motion ----------------------------------------------------------------------------------


def test_answers_agree_with_the_graph() -> None:
    for scene in scenes():
        present = {t.concept for t in scene.things}
        for question in shapes().questions(scene):
            pages = read(question.text)[1]
            match question:
                case _ if question.text.startswith("How many"):
                    assert question.answer == COUNTS[len(scene.things)]
                case _ if "background" in question.text:
                    assert question.answer == scene.background
                case _ if question.text.startswith("Is there"):
                    assert question.answer == ("yes" if pages[0] in present else "no")
                case _ if question.text.startswith("What colour"):
                    assert question.answer == thing(scene, pages[0]).colour
                case _:
                    assert question.text.startswith("Where is")
                    (first,), (other,) = pages, read(question.answer)[1]
                    axis = "x" if "left" in question.answer else "y"
                    assert getattr(thing(scene, first), axis) < getattr(thing(scene, other), axis)
        answers = [q.answer for q in shapes().questions(scene) if q.text.startswith("Is there")]
        assert answers == ["yes", "no"]


def test_an_edit_changes_exactly_what_it_says() -> None:
    seen = set()
    for number, scene in enumerate(scenes()):
        said, after = shapes().edit(scene, number)
        assert said == shapes().edit(scene, number)[0] and after != scene
        told, pages = read(said)
        rest = [t for t in scene.things if t.concept not in pages]
        verb = "background" if told.endswith(tuple(f"background {b}" for b in BACKGROUNDS)) else said.split()[0]
        seen.add(verb)
        if verb == "background":
            assert after == replace(scene, background=said.split()[-1])
        elif verb == "make":
            new = said.split()[-1]
            expected = [replace(t, colour=new) if t.concept == pages[0] else t for t in scene.things]
            assert after == replace(scene, things=tuple(expected)) and new in COLOURS
        elif verb == "replace":
            old, new = pages
            expected = [replace(t, concept=new, colour=None) if t.concept == old else t for t in scene.things]
            assert after == replace(scene, things=tuple(expected)) and new not in {t.concept for t in scene.things}
        elif verb == "swap":
            a, b = scene.things
            assert sorted(pages) == sorted((a.concept, b.concept))
            assert after.things == (replace(b, x=a.x, y=a.y), replace(a, x=b.x, y=b.y))
            assert replace(after, things=scene.things) == scene
        else:
            assert verb == "remove" and list(after.things) == rest and after.background == scene.background
        assert vocabulary().unknown(shapes().caption(after)) == {}
    assert seen == {"background", "make", "replace", "swap", "remove"}


def test_things_move_the_way_the_caption_says() -> None:
    seen = set()
    for number, scene in enumerate(itertools.islice(scenes(), 60)):
        said, film = shapes().motion(scene, number, frames=5)
        way = next(w for w in MOVES if said.endswith(w))
        seen.add(way)
        assert len(film) == 5 and film[0] == scene
        assert all(frame.things[1:] == scene.things[1:] and frame.background == scene.background for frame in film)
        path = np.array([(f.things[0].x, f.things[0].y, f.things[0].scale) for f in film])
        dx, dy, grow = MOVES[way]
        steps = np.diff(path, axis=0)
        assert np.allclose(steps, np.array([dx, dy, grow * scene.things[0].scale]) / 4)
        assert read(said)[1] == [scene.things[0].concept]
    assert seen == set(MOVES)


# -- painting --------------------------------------------------------------------------------------------------


def ink(pixels: np.ndarray) -> np.ndarray:
    return (255.0 - pixels.min(-1)) / 255


@pytest.mark.parametrize("x, y, scale", [(0.5, 0.5, 0.8), (0.25, 0.75, 0.4), (0.7, 0.3, 0.25)])
def test_ink_lies_where_the_graph_says(x: float, y: float, scale: float) -> None:
    weight = ink(shapes().paint(Scene("single", (Thing(DISC, x, y, scale),)), size=100))
    row, column = (np.arange(100) + 0.5) @ weight.sum(1), (np.arange(100) + 0.5) @ weight.sum(0)
    assert (column / weight.sum(), row / weight.sum()) == pytest.approx((100 * x, 100 * y), abs=0.6)
    assert weight.sum() / weight.max() == pytest.approx(np.pi * (30 / 64 * scale * 100) ** 2, rel=0.04)


def test_every_counted_thing_is_there() -> None:
    for scene in scenes("count"):
        discs = replace(scene, background="white", things=tuple(replace(t, concept=DISC) for t in scene.things))
        weight = ink(shapes().paint(discs))
        for t in discs.things:
            assert weight[int(t.y * SIDE), int(t.x * SIDE)] > 0.5
        alone = ink(shapes().paint(replace(discs, things=discs.things[:1]))).sum()
        assert weight.sum() == pytest.approx(alone * len(discs.things), rel=0.05)  # they may touch


def test_later_things_lie_over_earlier_ones_by_their_opacity() -> None:
    whole = Thing(GLASS, 0.5, 0.5, 1.0)
    over = Scene("single", (whole,), background="blue")
    alpha = 128 / 255
    expected = np.rint(np.array([255.0, 0, 0]) * alpha + np.array(BACKGROUNDS["blue"]) * (1 - alpha))
    assert (shapes().paint(over) == expected).all()
    both = Scene("pair", (replace(whole, concept=DISC), whole))
    below = shapes().paint(replace(both, things=both.things[:1])).astype(float)
    expected = np.rint(np.array([255.0, 0, 0]) * alpha + below * (1 - alpha))
    assert np.abs(shapes().paint(both) - expected).max() <= 1


def test_what_lies_outside_is_cut_off() -> None:
    source = shapes()
    blank = source.paint(Scene("single", (), background="pink"))
    assert (blank == BACKGROUNDS["pink"]).all()
    gone = source.paint(Scene("single", (Thing(DISC, 3.0, -2.0, 0.5),), background="pink"))
    assert np.array_equal(gone, blank)
    whole = source.paint(Scene("single", (Thing(DISC, 0.5, 0.5, 0.5),)))
    half = source.paint(Scene("single", (Thing(DISC, 0.0, 0.5, 0.5),)))
    assert np.array_equal(half[:, : SIDE // 4], whole[:, SIDE // 2 : SIDE * 3 // 4])


def test_colour_and_size_are_painted() -> None:
    green = shapes().paint(Scene("single", (Thing(DISC, 0.5, 0.5, 0.5, "green"),)))[SIDE // 2, SIDE // 2]
    assert green.argmax() == 1
    small, large = (ink(shapes().paint(Scene("single", (Thing(DISC, 0.5, 0.5, s),)))).sum() for s in (0.25, 0.5))
    assert large == pytest.approx(4 * small, rel=0.05)


def test_pictures_and_names_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="one picture per pictogram, got 18 and 17"):
        SceneSource(shapes().pictograms, shapes().pictures[:-1])
