"""Instruction edits of composed scenes: a picture, what to do with it, and the picture after it.

"remove the cat", "make the apple green", "put a hat above the dog", "swap them", "replace the cat with a bee", "make
the background blue". Both scenes are known, so it is also known what an instruction touches: for each word that stands
for a thing, the square where the thing is and the square where it is to be (`Part`).

Edit i is a pure function of (seed, i, split). Things that meet in a scene of the split "test", before or after, never
meet in training; only scenes of three things and things that are alone have no such pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from conjure.core.seeds import derive, rng
from conjure.data.captions import COLOUR_NUMBERS
from conjure.data.phrases import article, spoken
from conjure.data.recolour import COLOURS
from conjure.data.scene_graph import (
    BACKGROUNDS,
    GRAMMAR,
    GRID,
    OPPOSITE,
    PHRASES,
    SCALES,
    SIZE_WORDS,
    TINTED,
    Kind,
    Scene,
    Size,
    Split,
    Thing,
    held_out,
)
from conjure.data.scenes import KINDS as SCENE_KINDS
from conjure.data.scenes import SHARES as SCENE_SHARES
from conjure.data.scenes import SIZES, SceneSource

EditKind = Literal["remove", "recolour", "add", "swap", "replace", "background"]
KINDS: tuple[EditKind, ...] = ("remove", "recolour", "add", "swap", "replace", "background")
SHARES = (0.16, 0.22, 0.2, 0.16, 0.16, 0.1)  # of the kinds among training edits
AWAY = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
APART = 0.48  # canvas sides between the centres of a thing and of what is put beside it
IT = 0.3  # share of instructions that say "it" or "them" where that is plain

WAYS: dict[EditKind, tuple[str, ...]] = {
    "remove": ("remove {a}", "delete {a}", "erase {a}", "take {a} away", "take away {a}"),
    "recolour": ("make {a} {colour}", "turn {a} {colour}", "paint {a} {colour}", "colour {a} {colour}"),
    "add": ("put {b} {where} {a}", "add {b} {where} {a}", "draw {b} {where} {a}", "place {b} {where} {a}"),
    "swap": ("swap {a} and {b}", "exchange {a} and {b}"),
    "replace": ("replace {a} with {b}", "change {a} to {b}", "change {a} into {b}", "turn {a} into {b}"),
    "background": ("make the background {colour}", "change the background to {colour}", "turn the background {colour}"),
}
TOGETHER = ("swap", "them")  # the words that stand for the first and the second thing of "swap them"
WORDS = GRAMMAR | {word for ways in WAYS.values() for way in ways for word in way.split() if "{" not in word}
WORDS |= {*TOGETHER, "it", "from", "please", "color"}
"""Every word that an instruction may hold beside the names of things."""


@dataclass(frozen=True)
class Square:
    """Cells of a grid of `GRID` x `GRID`: the left upper corner and the side."""

    left: int
    top: int
    side: int

    @property
    def within(self) -> tuple[slice, slice]:
        """What cuts it out of an array `[GRID, GRID, ...]`."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


@dataclass(frozen=True)
class Part:
    """A thing that an instruction speaks of.

    `page` is the pictogram and -1 where the word names none; `word` says then which word stands for it. `found` is
    where it was, None if it is new; `wanted` where it has to be drawn, None if it is not. `touched`: it does not stay
    what it was. `moved`: it is to look as before elsewhere. `colour` is the number of a colour it is to have, 0 for its
    own.
    """

    page: int
    word: str
    found: Square | None
    wanted: Square | None
    touched: bool = True
    moved: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Edit:
    kind: EditKind
    instruction: str
    before: Scene
    after: Scene
    parts: tuple[Part, ...]

    @property
    def ground(self) -> str:
        """The new background, "" where it stays."""
        return self.after.background if self.kind == "background" else ""

    def touched(self) -> np.ndarray:
        """Cells in the squares of touched things, before or after: bool `[GRID, GRID]`; all for a new ground."""
        cells = np.full((GRID, GRID), self.kind == "background")
        for part in self.parts:
            for square in (part.found if part.touched else None, part.wanted):
                if square is not None:
                    cells[square.within] = True
        return cells


class EditSource:
    """Edits of the scenes of `scenes`."""

    def __init__(self, scenes: SceneSource) -> None:
        self.scenes = scenes
        self.synonyms = [tuple(w for w in words if w not in WORDS) for words in scenes.synonyms]

    def edit(self, seed: int, index: int, split: Split = "train", kind: EditKind | None = None) -> Edit:
        """Edit `index`, of one kind if asked for: a pure function of the arguments."""
        own = derive(seed, "edit", split, index, kind or "")
        draw = rng(own)
        kind = kind or KINDS[int(draw.choice(len(KINDS), p=SHARES))]
        make = {"remove": self._remove, "recolour": self._recolour, "add": self._add, "swap": self._swap,
                "replace": self._replace, "background": self._background}[kind]
        for attempt in range(1000):  # a scene in which it can be done comes long before
            edit = make(draw, derive(own, attempt), split)
            if edit is not None:
                return edit
        raise ValueError(f"no scene of these pictograms can be changed by '{kind}'")

    # ---------------------------------------------------------------- the kinds
    def _remove(self, draw: np.random.Generator, seed: int, split: Split) -> Edit | None:
        scene = self._scene(draw, seed, split, {"pair": 0.7, "row": 0.1, "between": 0.1, "single": 0.1})
        which = int(draw.integers(len(scene.things)))
        kept = scene.things[:which] + scene.things[which + 1:]
        say, page, word = self._said(draw, scene, which)
        part = Part(page, word, square_of(scene.things[which]), None)
        after = replace(scene, kind="single", things=kept, relation="")
        return Edit("remove", _way(draw, "remove").format(a=say), scene, after, (part,))

    def _recolour(self, draw: np.random.Generator, seed: int, split: Split) -> Edit | None:
        scene = self._scene(draw, seed, split, {"pair": 0.6, "row": 0.07, "between": 0.08, "single": 0.25})
        able = [i for i, thing in enumerate(scene.things) if thing.concept in self.scenes.tints]
        if not able:
            return None
        which = int(draw.choice(able))
        thing = scene.things[which]
        colour = str(draw.choice([c for c in COLOURS if c != thing.colour]))
        say, page, word = self._said(draw, scene, which)
        place = square_of(thing)
        part = Part(page, word, place, place, colour=COLOUR_NUMBERS[colour])
        after = _with(scene, which, replace(thing, colour=colour))
        return Edit("recolour", _way(draw, "recolour").format(a=say, colour=colour), scene, after, (part,))

    def _add(self, draw: np.random.Generator, seed: int, split: Split) -> Edit | None:
        scene = self._scene(draw, seed, split, {"pair": 0.65, "single": 0.35})
        which = int(draw.integers(len(scene.things)))
        anchor = scene.things[which]
        if scene.kind == "pair":
            where = scene.relation if which == 1 else OPPOSITE[scene.relation]
            new = scene.things[1 - which]
        else:
            where = str(draw.choice(list(AWAY)))
            concept = self._partner(draw, [anchor.concept], split)
            if concept is None:
                return None
            new = self._thing(draw, concept)
        dx, dy = AWAY[where]
        x, y = anchor.x + dx * APART, anchor.y + dy * APART
        if not all(at - new.scale / 2 >= -0.05 and at + new.scale / 2 <= 1.05 for at in (x, y)):
            return None
        new = placed(new, x, y)
        before = replace(scene, kind="single", things=(anchor,), relation="")
        say, page, word = self._said(draw, before, 0)
        parts = (Part(new.concept, "", None, square_of(new), False, colour=COLOUR_NUMBERS[new.colour]),
                 Part(page, word, square_of(anchor), None, False))
        text = _way(draw, "add").format(a=say, b=self._new(draw, new), where=str(draw.choice(PHRASES[where])))
        return Edit("add", text, before, replace(before, things=(anchor, new)), parts)

    def _swap(self, draw: np.random.Generator, seed: int, split: Split) -> Edit | None:
        scene = self._scene(draw, seed, split, {"pair": 1.0})
        a, b = scene.things
        after = replace(scene, things=(placed(a, b.x, b.y), placed(b, a.x, a.y)))
        squares = [(square_of(old), square_of(new)) for old, new in zip(scene.things, after.things, strict=True)]
        if draw.random() < IT:  # relations put the left or upper thing first
            parts = [Part(-1, word, *two, moved=True) for word, two in zip(TOGETHER, squares, strict=True)]
            return Edit("swap", " ".join(TOGETHER), scene, after, tuple(parts))
        says = [self._named(draw, thing) for thing in scene.things]
        parts = [Part(thing.concept, "", *two, moved=True) for thing, two in zip(scene.things, squares, strict=True)]
        if draw.random() < 0.5:
            says.reverse()
            parts.reverse()
        return Edit("swap", _way(draw, "swap").format(a=says[0], b=says[1]), scene, after, tuple(parts))

    def _replace(self, draw: np.random.Generator, seed: int, split: Split) -> Edit | None:
        scene = self._scene(draw, seed, split, {"pair": 0.7, "row": 0.05, "between": 0.05, "single": 0.2})
        which = int(draw.integers(len(scene.things)))
        old = scene.things[which]
        rest = [thing.concept for i, thing in enumerate(scene.things) if i != which]
        concept = self._partner(draw, rest, split, apart=[old.concept])
        if concept is None:
            return None
        new = replace(self._thing(draw, concept), x=old.x, y=old.y, scale=old.scale, size="medium")
        say, page, word = self._said(draw, scene, which)
        place = square_of(old)
        parts = (Part(page, word, place, None),
                 Part(concept, "", None, place, False, colour=COLOUR_NUMBERS[new.colour]))
        text = _way(draw, "replace").format(a=say, b=self._new(draw, new))
        return Edit("replace", text, scene, _with(scene, which, new), parts)

    def _background(self, draw: np.random.Generator, seed: int, split: Split) -> Edit | None:
        scene = self._scene(draw, seed, split, dict(zip(SCENE_KINDS, SCENE_SHARES, strict=True)))
        colour = str(draw.choice([name for name in BACKGROUNDS if name != scene.background]))
        after = replace(scene, background=colour)
        return Edit("background", _way(draw, "background").format(colour=colour), scene, after, ())

    # ---------------------------------------------------------------- what they are made of
    def _scene(self, draw: np.random.Generator, seed: int, split: Split, shares: dict[Kind, float]) -> Scene:
        kind = list(shares)[int(draw.choice(len(shares), p=list(shares.values())))]
        return self.scenes.sample(seed, kind=kind, split=split)

    def _partner(self, draw: np.random.Generator, others: Sequence[int], split: Split,
                 apart: Sequence[int] = ()) -> int | None:  # fmt: skip
        """A thing that may stand beside `others` in this split and is none of `apart`; None where there is none."""
        wanted = split == "test" and len(others) == 1
        choice = self.scenes.tintable if draw.random() < 0.5 else range(len(self.scenes.pictograms))
        for concept in draw.permutation(np.asarray(choice)):
            new = int(concept)
            if new not in others and new not in apart and all(held_out(new, other) == wanted for other in others):
                return new
        return None

    def _thing(self, draw: np.random.Generator, concept: int) -> Thing:
        tinted = concept in self.scenes.tints and draw.random() < TINTED
        size: Size = SIZES[int(draw.choice(len(SIZES), p=(0.16, 0.68, 0.16)))]
        return Thing(concept, 0.5, 0.5, SCALES[size], str(draw.choice(list(COLOURS))) if tinted else None, size)

    def _said(self, draw: np.random.Generator, scene: Scene, which: int) -> tuple[str, int, str]:
        """How a thing is called, its page, and the word that stands for it where that is no name."""
        if len(scene.things) == 1 and draw.random() < IT:
            return "it", -1, "it"
        return self._named(draw, scene.things[which]), scene.things[which].concept, ""

    def _named(self, draw: np.random.Generator, thing: Thing) -> str:
        """'the cat', now and then 'the green cat'."""
        colour = f"{thing.colour} " if thing.colour and draw.random() < 0.3 else ""
        return f"the {colour}{self._noun(draw, thing.concept)}"

    def _new(self, draw: np.random.Generator, thing: Thing) -> str:
        """'a small green hat'."""
        words = [] if thing.size == "medium" else [str(draw.choice(SIZE_WORDS[thing.size]))]
        phrase = " ".join([*words, *([thing.colour] if thing.colour else []), self._noun(draw, thing.concept)])
        return f"{article(phrase)} {phrase}"

    def _noun(self, draw: np.random.Generator, concept: int) -> str:
        others = self.synonyms[concept]
        if others and draw.random() < 0.25:
            return str(draw.choice(others))
        return spoken(self.scenes.pictograms[concept].name)


def square_of(thing: Thing) -> Square:
    """The cells of a thing whose corners lie on the grid."""
    corner = [round((at - thing.scale / 2) * GRID) for at in (thing.x, thing.y)]
    return Square(corner[0], corner[1], round(thing.scale * GRID))


def placed(thing: Thing, x: float, y: float) -> Thing:
    """The thing with its centre as near to (x, y) as the grid and the canvas allow."""
    side = round(thing.scale * GRID)
    left, top = (min(max(0, math.floor(at * GRID - side / 2 + 0.5)), GRID - side) for at in (x, y))
    return replace(thing, x=(left + side / 2) / GRID, y=(top + side / 2) / GRID)


def _with(scene: Scene, which: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:which], thing, *scene.things[which + 1:]))


def _way(draw: np.random.Generator, kind: EditKind) -> str:
    """The first way of saying it half of the time."""
    ways = WAYS[kind]
    return ways[0] if draw.random() < 0.5 else str(draw.choice(ways))
