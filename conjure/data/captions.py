"""Pairs of a picture and a caption, for models that draw: composed scenes, and handwritten digits.

A `CaptionSource` also says what its captions are made of: the words of its grammar, the names that stand for pictures,
and those pictures (`pages`), which together are the illustrated vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from conjure.codecs.picture_words import Name
from conjure.data.digits import NAMES, DigitSource
from conjure.data.phrases import plural, spoken
from conjure.data.recolour import COLOURS
from conjure.data.scene_graph import GRAMMAR, Scene, Split, Thing
from conjure.data.scenes import SceneSource

COLOUR_NUMBERS: dict[str | None, int] = {name: k for k, name in enumerate((None, *COLOURS))}


@dataclass(frozen=True)
class Example:
    """`places` are those of its things: (page, x, y, scale, number of its colour), canvas sides as unit."""

    pixels: np.ndarray  # uint8 [H, W, C]
    caption: str
    places: tuple[tuple[int, float, float, float, int], ...] = ()


class CaptionSource(Protocol):
    """Where a model that draws gets its examples from, and what its vocabulary is made of."""

    @property
    def grammar(self) -> Sequence[str]:
        """Words that stand for themselves."""
        ...

    @property
    def names(self) -> Sequence[Name]:
        """Phrases that stand for pages."""
        ...

    @property
    def pages(self) -> Sequence[np.ndarray]:
        """Pictures uint8 [H, W, C]."""
        ...

    @property
    def prompts(self) -> Sequence[str]:
        """What previews show, an even number."""
        ...

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        """A pure function of the arguments."""
        ...


class SceneCaptions:
    """Composed scenes; a page shows its pictogram filling the canvas."""

    prompts = ("a red apple", "a fire engine", "a green car to the left of a purple heart", "a cat above a dog",
               "four elephants", "a small house, on a blue background", "a bee next to a sunflower",
               "a pizza between a rocket and a guitar")

    def __init__(self, scenes: SceneSource) -> None:
        self.scenes, self.grammar = scenes, sorted(GRAMMAR)

    @property
    def names(self) -> list[Name]:
        """Every spoken name, its plural, and the synonyms that mean one pictogram alone."""
        own = [Name(spoken(p.name), i) for i, p in enumerate(self.scenes.pictograms)]
        other = [Name(w, i) for i, words in enumerate(self.scenes.synonyms) for w in words]
        return own + _plurals(own) + other + _plurals(other)

    @property
    def pages(self) -> Sequence[np.ndarray]:
        return self._pages

    @cached_property
    def _pages(self) -> list[np.ndarray]:
        whole = (Scene("single", (Thing(i, 0.5, 0.5, 1.0),)) for i in range(len(self.scenes.pictograms)))
        return [self.scenes.paint(scene) for scene in whole]

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        scene = self.scenes.scene(seed, index, split)
        places = tuple((t.concept, t.x, t.y, t.scale, COLOUR_NUMBERS[t.colour]) for t in scene.things)
        return Example(self.scenes.paint(scene), self.scenes.caption(scene), places)


def _plurals(names: list[Name]) -> list[Name]:
    return [Name(plural(n.phrase), n.page, plural=True) for n in names]


class DigitCaptions:
    """Handwritten digits, grey, called by their names: 'zero' to 'nine'."""

    grammar = prompts = NAMES
    names: Sequence[Name] = ()
    pages: Sequence[np.ndarray] = ()

    def __init__(self) -> None:
        self.digits = lru_cache(maxsize=2)(DigitSource)  # by split and seed

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        pixels, digit = self.digits(split, seed).example(index)
        return Example(pixels[..., None], NAMES[digit])
