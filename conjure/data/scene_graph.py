"""What a composed scene is: things with colours, sizes and places on a canvas, as small frozen values, and the tables
of colours, places, relations and words that scenes and their captions are made from.

Lengths are fractions of the canvas side; x runs right, y runs down; a thing's place is its centre.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from conjure.core.seeds import derive
from conjure.data.phrases import COUNTS
from conjure.data.recolour import COLOURS

Size = Literal["small", "medium", "large"]
Split = Literal["train", "test"]
Kind = Literal["single", "pair", "row", "between", "count"]

# name -> RGB; pale, so that every pictogram stands out on it
BACKGROUNDS = {
    "white": (255, 255, 255), "blue": (190, 220, 255), "green": (200, 240, 200), "yellow": (255, 244, 170),
    "pink": (255, 214, 228), "grey": (220, 220, 220), "orange": (255, 220, 180), "purple": (226, 208, 250),
    "black": (24, 24, 24),
}
GRID = 16  # corners of things lie on a grid of so many lines, that of a codec with 8 pixels to a cell
SCALES = {"small": 5 / GRID, "medium": 7 / GRID, "large": 8 / GRID}  # beside other things
ALONE = {"small": 7 / GRID, "medium": 13 / GRID, "large": 15 / GRID}  # on a canvas of its own
PLACES = {
    "in the top left corner": (0.25, 0.25), "at the top": (0.5, 0.25), "in the top right corner": (0.75, 0.25),
    "on the left": (0.25, 0.5), "in the middle": (0.5, 0.5), "on the right": (0.75, 0.5),
    "in the bottom left corner": (0.25, 0.75), "at the bottom": (0.5, 0.75), "in the bottom right corner": (0.75, 0.75),
}
# relation of the first thing to the second -> centres of both
RELATIONS = {"left": ((0.26, 0.5), (0.74, 0.5)), "above": ((0.5, 0.26), (0.5, 0.74))}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
PHRASES = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
GRIDS = {  # how many things -> (centres, scale)
    2: (((0.27, 0.5), (0.73, 0.5)), 7 / GRID),
    3: (((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)), 5 / GRID),
    4: (((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)), 6 / GRID),
    5: (((0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75)), 5 / GRID),
    6: (((0.2, 0.3), (0.5, 0.3), (0.8, 0.3), (0.2, 0.7), (0.5, 0.7), (0.8, 0.7)), 5 / GRID),
}
JITTER = 0.04  # before corners are moved to the grid
TINTED = 0.65  # how often a thing that can take another colour does
OWN_COLOURS = ("People & Body", "Flags")  # groups of pictograms that keep their colours
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
MOVES = {"moves left": (-0.25, 0.0, 0.0), "moves right": (0.25, 0.0, 0.0), "moves up": (0.0, -0.25, 0.0),
         "moves down": (0.0, 0.25, 0.0), "grows": (0.0, 0.0, 0.8), "shrinks": (0.0, 0.0, -0.5)}
# every word a caption may hold beside the names of things
GRAMMAR = frozenset(w for text in (
    *PLACES, *COLOURS, *BACKGROUNDS, *COUNTS.values(), *SIZE_WORDS["small"], *SIZE_WORDS["large"],
    *(p for ways in PHRASES.values() for p in ways),
    "a an the and of with on in at next to beside between picture drawing pictogram icon background",
) for w in text.split())


@dataclass(frozen=True)
class Thing:
    """One pictogram: `concept` is its row in the source's list, `scale` the side of its square."""

    concept: int
    x: float
    y: float
    scale: float
    colour: str | None = None
    size: Size = "medium"


@dataclass(frozen=True)
class Scene:
    """`kind` says how the things were laid out, and so which captions are true of them."""

    kind: Kind
    things: tuple[Thing, ...]
    background: str = "white"
    relation: str = ""  # pair: of the first thing to the second; single: the name of its place
    seed: int = 0  # what its own caption and questions are drawn from


@dataclass(frozen=True)
class Question:
    """`answer` is decided by the scene: a colour, a number, "yes" or "no", a place."""

    text: str
    answer: str


def snapped(thing: Thing) -> Thing:
    """The thing with its left upper corner moved to the grid."""
    half = thing.scale / 2
    x, y = (round((at - half) * GRID) / GRID + half for at in (thing.x, thing.y))
    return replace(thing, x=x, y=y)


def held_out(a: int, b: int) -> bool:
    """Whether a pair of things is kept for tests: one pair in twenty, whichever comes first."""
    return derive(0, "pair", min(a, b), max(a, b)) % 20 == 0
