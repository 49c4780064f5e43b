"""Plans become outlines, outlines drafts: what goes is taken out, what moves is carried, what comes has its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.codecs.picture_words import PictureWords
from conjure.core.errors import ConjureError
from conjure.data.captions import SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.scene_edits import KINDS, WORDS, Edit, Part, Square
from conjure.data.scene_graph import GRID, Scene, Thing
from conjure.models.editor import Plan, squares
from conjure.tasks.edit_drafts import (
    MOST_PARTS,
    Outline,
    Sketcher,
    changed_cells,
    decided,
    ground_pixels,
    same,
    true_outline,
    wanted_plans,
)
from tests.tasks.edit_models import edits, painter, scenes
from tests.tasks.painters import digits

SIDES = (5, 7, 8, 13, 15)
COUNT = len(squares(SIDES, GRID))


@pytest.fixture(scope="module")
def sketcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sketcher]:
    yield Sketcher.load(Path(painter(tmp_path_factory.mktemp("painter"))))


def asked(kind: str, number: int = 0) -> tuple[Edit, np.ndarray, Outline]:
    """An edit of a kind, the picture before, and its true outline."""
    edit = edits().edit(1, number, "test", kind)  # type: ignore[arg-type]
    before, after = scenes().paint(edit.before), scenes().paint(edit.after)
    return edit, before, true_outline(edit, changed_cells(before, after))


def test_a_sure_plan_becomes_the_true_outline() -> None:
    words = PictureWords(WORDS, SceneCaptions(scenes()).names, spoken)
    number = {word: row for row, word in enumerate(words.vocabulary)}
    for kind in KINDS:
        for k in range(4):
            edit, _, true = asked(kind, k)
            rows, pages = words.encode([edit.instruction], 16)
            cells = true.ground_cells if true.ground_cells is not None else np.zeros((GRID, GRID), bool)
            want = wanted_plans([edit], rows, pages, [cells], number, SIDES)
            flags, colours = -torch.ones(1, 16, 3), torch.zeros(1, 16, 9)
            found, wish = (torch.rand(1, 16, COUNT) for _ in range(2))
            for j, t in enumerate(want.token_BK[0].tolist()):
                if t >= 0:
                    flags[0, t] = 2 * want.flags_BK3[0, j] - 1
                    colours[0, t, want.colour_BK[0, j]] = 1
                    for logits, square in ((found, want.found_BK[0, j]), (wish, want.wanted_BK[0, j])):
                        logits[0, t, square] += 2 * (square >= 0)
            ground = torch.nn.functional.one_hot(want.ground_B, 10).float()
            plan = Plan(flags, colours, found, wish, ground, 2.0 * want.cells_Bhw - 1)
            (made,) = decided(plan, rows, pages, SIDES)
            assert same(made, true), (edit, made)
            assert np.array_equal(made.mask(), true.mask())
            if kind != "background":
                assert np.array_equal(made.mask(), edit.touched())
                assert not same(made, replace(true, parts=true.parts[1:]))


def test_words_that_name_nothing_draw_nothing() -> None:
    plan = Plan(torch.ones(1, 4, 3), torch.zeros(1, 4, 9), torch.rand(1, 4, COUNT), torch.rand(1, 4, COUNT),
                torch.tensor([[1.0] + [0.0] * 9]), torch.ones(1, 16, 16))  # fmt: skip
    rows, pages = np.array([[1, 9, 2, 0]]), np.full((1, 4), -1)  # start, a word, an unknown word, padding
    (outline,) = decided(plan, rows, pages, SIDES)
    assert len(outline.parts) == 2 and all(part.moved for part in outline.parts)
    plan.flags_BT3[..., 0] = -1  # drawn, but not found and of no page
    assert decided(plan, rows, pages, SIDES)[0].parts == ()
    crowd = plan._replace(flags_BT3=torch.ones(1, 9, 3), colours_BTQ=torch.zeros(1, 9, 9),
                          found_BTS=torch.rand(1, 9, COUNT), wanted_BTS=torch.rand(1, 9, COUNT))  # fmt: skip
    assert len(decided(crowd, np.full((1, 9), 5), np.full((1, 9), -1), SIDES)[0].parts) == MOST_PARTS


def test_drafts_show_what_stays_and_what_moves(sketcher: Sketcher) -> None:
    for kind in KINDS:
        _, before, outline = asked(kind)
        source = sketcher.encode(before[None])
        *_, draft, mask = sketcher.drawing(source, [outline])
        assert np.array_equal(mask[0].bool().numpy(), outline.mask())
        stays = ~torch.from_numpy(outline.mask())
        assert torch.equal(draft[0][:, stays], source[0][:, stays])
        inside = draft[0][:, ~stays]
        match kind:
            case "remove" | "add" | "replace":
                assert not inside.any()
            case "recolour" | "background":
                assert torch.equal(draft, source)
            case "swap":
                for part in outline.parts:
                    assert part.found and part.wanted
                    moved = draft[0][(slice(None), *part.wanted.within)]
                    assert torch.equal(moved, source[0][(slice(None), *part.found.within)])


def test_the_caption_says_what_is_drawn_and_the_book_shows_it(sketcher: Sketcher) -> None:
    here, there = Square(1, 1, 6), Square(9, 9, 5)
    parts = (Part(3, "", None, here, False, colour=4), Part(5, "", None, there, False))
    source = sketcher.encode(np.full((1, 128, 128, 3), 255, np.uint8))
    states, mask, _, guide, _, _ = sketcher.drawing(source, [Outline(parts)])
    rows, pages = sketcher.words.encode([f"a green {spoken(scenes().pictograms[3].name)} and a box"], 24)
    told = sketcher.network.read(torch.from_numpy(rows), torch.from_numpy(pages))
    assert torch.equal(states, told[0]) and torch.equal(mask, told[1])
    side = sketcher.config.dit.size // sketcher.config.dit.patch
    patches = guide[0].reshape(side, side, -1).abs().amax(-1) > 0
    assert patches[0, 0] and patches[3, 3] and not patches[0, 3] and not patches[3, 0]
    ground = Outline((), "blue", np.ones((GRID, GRID), bool))
    rows, pages = sketcher.words.encode(["on a blue background"], 24)
    told = sketcher.network.read(torch.from_numpy(rows), torch.from_numpy(pages))
    assert torch.equal(sketcher.drawing(source, [ground])[0], told[0])


def test_named_things_are_looked_up_in_the_book(sketcher: Sketcher) -> None:
    pages = torch.tensor([[-1, 3, -1, 5, 7], [-1, -1, -1, 2, -1]])
    looks, spots = sketcher.looks(pages, 2)
    assert spots.tolist() == [[1, 3], [3, -1]] and not looks[1, 1].any()
    page = sketcher.encode(scenes().paint(Scene("single", (Thing(5, 0.5, 0.5, 1.0),)))[None])[0]
    torch.testing.assert_close(looks[0, 1], page, atol=1 / 24, rtol=0)


def test_a_plain_ground_is_told_from_what_stands_on_it() -> None:
    pixels = np.full((40, 40, 3), (190, 220, 255), np.uint8)
    pixels[10:30, 10:30] = (200, 30, 30)
    mask = np.ones((40, 40), bool)
    mask[:5] = False
    inner = np.zeros((40, 40), bool)
    inner[12:28, 12:28] = True  # two pixels of the edge go with the ground
    assert np.array_equal(ground_pixels(pixels, mask, 2), mask & ~inner)
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    assert np.array_equal(ground_pixels(noise, mask, 2), mask)


def test_what_is_no_painter_with_a_book_is_refused(tmp_path: Path, sketcher: Sketcher) -> None:
    with pytest.raises(ConjureError, match="book"):
        Sketcher.load(digits(tmp_path))
