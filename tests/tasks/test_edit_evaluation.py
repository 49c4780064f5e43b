"""The protocol gives everything to true pictures, nothing to unchanged ones, and sees each fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from conjure.core.events import Event, Progress
from conjure.data.recolour import COLOURS
from conjure.data.scene_edits import KINDS, Edit, placed, square_of
from conjure.data.scene_graph import GRID
from conjure.media.image import Image
from conjure.tasks.edit_evaluation import SEED, Judge, edits_done
from tests.tasks.edit_models import edits, scenes

COUNT = 18
Make = Callable[[Edit], np.ndarray]


def shares(make: Make, tell: Callable[[Event], None] | None = None) -> dict[str, float]:
    asked = iter([edits().edit(SEED, k, "test", KINDS[k % len(KINDS)]) for k in range(COUNT)])

    def act(pictures: Sequence[Image], instructions: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        assert len(pictures) == len(set(seeds)) == len(instructions)
        wanted = [next(asked) for _ in pictures]
        assert [edit.instruction for edit in wanted] == list(instructions)
        assert all(np.array_equal(p.pixels, scenes().paint(e.before)) for p, e in zip(pictures, wanted, strict=True))
        return [Image(make(edit)) for edit in wanted]

    found = edits_done(act, edits(), count=COUNT, tell=tell)
    assert [figure["n"] for figure in found.values()] == [COUNT] * 3 + [COUNT // 6] * 6
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in found.values())
    return {name: figure["value"] for name, figure in found.items()}


def true(edit: Edit) -> np.ndarray:
    return scenes().paint(edit.after)


def test_true_pictures_count_and_unchanged_ones_do_not() -> None:
    events: list[Event] = []
    assert set(shares(true, events.append).values()) == {1.0}
    assert isinstance(events[-1], Progress) and events[-1].step == COUNT
    unchanged = shares(lambda edit: scenes().paint(edit.before))
    assert unchanged.pop("rest_unchanged") == 1 and set(unchanged.values()) == {0.0}


def test_one_pixel_outside_is_seen() -> None:
    def smudged(away: int) -> Make:
        def make(edit: Edit) -> np.ndarray:
            pixels = true(edit).astype(np.int16)
            step = len(pixels) // GRID
            changed = (scenes().paint(edit.before) != true(edit)).any(2).reshape(GRID, step, GRID, step).any((1, 3))
            free = ~(edit.touched() if edit.kind != "background" else changed)
            if edit.kind == "add" and edit.parts[0].wanted:
                y, x = edit.parts[0].wanted.top, edit.parts[0].wanted.left
                side = edit.parts[0].wanted.side
                free[max(0, y - 2) : y + side + 2, max(0, x - 2) : x + side + 2] = False
            y, x = np.argwhere(free)[0] * step
            pixels[y, x] += np.where(pixels[y, x] > 127, -away, away)
            return pixels.astype(np.uint8)

        return make

    assert shares(smudged(8))["rest_unchanged"] == 1
    worse = shares(smudged(9))
    assert worse["rest_unchanged"] == worse["edits_done"] == 0 and worse["target_done"] == 1


def changed(edit: Edit, how: str) -> Edit:
    """The edit with another scene after it, in which one thing that was to be drawn is not as it should be."""
    things = list(edit.after.things)
    wanted = {part.wanted for part in edit.parts if part.wanted}
    k = next(i for i, thing in enumerate(things) if square_of(thing) in wanted)
    thing = things[k]
    match how:
        case "another":
            taken = {t.concept for t in things}
            things[k] = replace(thing, concept=next(c for c in range(16) if c not in taken), colour=None)
        case "colour":
            things[k] = replace(thing, colour=next(c for c in COLOURS if c != thing.colour))
        case "away":
            away = 2 / GRID if thing.x < 0.5 else -2 / GRID
            things[k] = placed(thing, thing.x + away, thing.y)
        case _:
            del things[k]
    return replace(edit, after=replace(edit.after, things=tuple(things)))


@pytest.mark.parametrize("how", ["another", "away", "missing"])
@pytest.mark.parametrize("kind", ["add", "swap", "replace"])
def test_things_must_be_themselves_and_in_place(how: str, kind: str) -> None:
    judge = Judge(scenes())
    for k in range(3):
        edit = edits().edit(0, k, "test", kind)  # type: ignore[arg-type]
        assert judge.target_done(edit, true(edit))
        moved_within_bounds = kind == "add" and how == "away"
        assert judge.target_done(edit, true(changed(edit, how))) == moved_within_bounds, edit


def test_what_is_added_must_be_beside_the_other() -> None:
    judge = Judge(scenes())
    for k in range(4):
        edit = edits().edit(0, k, "test", "add")
        anchor, new = edit.after.things
        for dx, dy in ((-0.4, 0), (0.4, 0), (0, -0.4), (0, 0.4)):
            if dx * (new.x - anchor.x) <= 0.1 and dy * (new.y - anchor.y) <= 0.1:  # on another side
                things = anchor, placed(new, anchor.x + dx, anchor.y + dy)
                assert not judge.target_done(edit, true(replace(edit, after=replace(edit.after, things=things))))
        elsewhere = true(edit)
        elsewhere[:8, :8] = 255 - elsewhere[:8, :8]
        elsewhere[-8:, -8:] = 255 - elsewhere[-8:, -8:]
        assert judge.rest_unchanged(edit, scenes().paint(edit.before), true(edit))
        assert not judge.rest_unchanged(edit, scenes().paint(edit.before), elsewhere)


def test_another_colour_does_not_count() -> None:
    judge = Judge(scenes())
    for k in range(4):
        edit = edits().edit(0, k, "test", "recolour")
        assert judge.target_done(edit, true(edit)) and not judge.target_done(edit, true(changed(edit, "colour")))


def test_what_went_leaves_no_trace() -> None:
    judge = Judge(scenes())
    edit = edits().edit(0, 0, "test", "remove")
    assert edit.parts[0].found
    rows, columns = (slice(8 * s.start, 8 * s.stop) for s in edit.parts[0].found.within)
    dirty = true(edit)
    dirty[rows, columns][:8] = 128
    assert not judge.target_done(edit, dirty)
    assert judge.rest_unchanged(edit, scenes().paint(edit.before), dirty)
