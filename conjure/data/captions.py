"""Pairs of a picture and a caption, for models that draw: composed scenes, and handwritten digits.

A `CaptionSource` also says what its captions are made of: the words of its grammar, the names that stand for pictures,
and those pictures (`pages`), which together are the illustrated vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from conjure.codecs.picture_words import Name
from conjure.data.digits import DigitSource
from conjure.data.phrases import COUNTS, plural, spoken
from conjure.data.scenes import GRAMMAR, Scene, SceneSource, Split, Thing


@dataclass(frozen=True)
class Example:
    """`places` are the boxes of its things: (page, x, y, scale), canvas sides as unit."""

    pixels: np.ndarray  # uint8 [H, W, C]
    caption: str
    places: tuple[tuple[int, float, float, float], ...] = ()


class CaptionSource(Protocol):
    grammar: Sequence[str]
    names: list[Name]
    pages: Sequence[np.ndarray]  # uint8 [H, W, C] each
    prompts: Sequence[str]  # for previews

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        """A pure function of the arguments."""
        ...


class SceneCaptions:
    """Composed scenes; a page shows its pictogram filling the canvas."""

    prompts = ("a red apple", "a fire engine", "a green car to the left of a purple heart", "a cat above a dog",
               "three yellow stars", "a small house, on a blue background", "a bee next to a sunflower",
               "a pizza between a rocket and a guitar")

    def __init__(self, scenes: SceneSource) -> None:
        self.scenes, self.grammar = scenes, sorted(GRAMMAR)

    @cached_property
    def names(self) -> list[Name]:
        """Every spoken name, its plural, and the synonyms that mean one pictogram alone."""
        own = [Name(spoken(p.name), i) for i, p in enumerate(self.scenes.pictograms)]
        other = [Name(w, i) for i, words in enumerate(self.scenes.synonyms) for w in words]
        return own + _plurals(own) + other + _plurals(other)

    @cached_property
    def pages(self) -> list[np.ndarray]:
        whole = (Scene("single", (Thing(i, 0.5, 0.5, 1.0),)) for i in range(len(self.scenes.pictograms)))
        return [self.scenes.paint(scene) for scene in whole]

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        scene = self.scenes.scene(seed, index, split)
        places = tuple((t.concept, float(t.x), float(t.y), t.scale) for t in scene.things)
        return Example(self.scenes.paint(scene), self.scenes.caption(scene), places)


def _plurals(names: list[Name]) -> list[Name]:
    return [Name(plural(n.phrase), n.page, plural=True) for n in names]


class DigitCaptions:
    """Handwritten digits, called by their names: 'zero' to 'nine'."""

    words = ("zero", *(COUNTS[n] for n in range(1, 7)), "seven", "eight", "nine")
    grammar = words
    names: list[Name] = []
    pages: Sequence[np.ndarray] = ()
    prompts = words[:8]

    def __init__(self) -> None:
        self.splits = {"train": DigitSource("train"), "test": DigitSource("test")}

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        pixels, label = self.splits[split].example(seed, index)
        return Example(pixels[..., None], self.words[label])
