"""Composed scenes of a few pictograms, for models that learn to draw within minutes and without a book of pictures.

The things are so many of Noto's pictograms of animals, food, places and objects whose name is one word; scenes show one
or two of them. Captions call them by their names alone, and are read word by word: no name points to a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from conjure.codecs.picture_words import PictureWords
from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.captions import Example
from conjure.data.phrases import plural, spoken
from conjure.data.recolour import COLOURS
from conjure.data.scene_graph import GRAMMAR, RELATIONS, Kind, Scene, Split
from conjure.data.scenes import SceneSource

GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
FRESH = 10**9
"""Scenes from this index on are never trained on."""


@dataclass(frozen=True, kw_only=True)
class FewScenesData:
    """The `data:` section of a recipe."""

    things: int = 40
    """Pictograms; 0: all there are."""
    size: int = 64
    """Side of the pictures in pixels."""
    kinds: tuple[Kind, ...] = ("single", "pair")
    """Drawn equally often."""
    grounds: bool = False
    """Whether grounds may have another colour than white."""

    def __post_init__(self) -> None:
        if self.things < 0 or 0 < self.things < 6 or self.size < 16 or not self.kinds:
            raise ConjureError(f"data: expected 6 things or more (0: all), a size from 16 and a kind of scene, got "
                               f"{self.things}, {self.size} and {list(self.kinds)}")


class FewScenes:
    """Examples over a part of a source's pictograms, and the words of their captions."""

    def __init__(self, source: SceneSource, data: FewScenesData) -> None:
        self.source, self.data = source, data
        source.synonyms = [()] * len(source.pictograms)
        names = [spoken(each.name) for each in source.pictograms]
        names += [plural(name) for name in names] if "count" in data.kinds else []
        self.words = PictureWords(GRAMMAR | {word for name in names for word in name.split()}, (), spoken)

    @classmethod
    def load(cls, data: FewScenesData) -> FewScenes:
        """Over Noto's pictograms."""
        from conjure.data.pictograms import load, resized

        everything, pictures = load()
        own = [k for k, each in enumerate(everything) if each.duplicate_of is None]
        if data.things:
            own = [k for k in own if everything[k].group in GROUPS and len(spoken(everything[k].name).split()) == 1]
        if data.things > len(own):
            raise ConjureError(f"data.things: expected at most {len(own)}, or 0 for all, got {data.things}")
        own = sorted(own[int(k)] for k in rng(0).permutation(len(own))[: data.things or None])
        part = SceneSource([everything[k] for k in own], resized(pictures[own], data.size), size=data.size)
        return cls(part, data)

    def scene(self, seed: int, index: int, split: Split = "train") -> Scene:
        """Scene `index`: a pure function of (seed, index, split)."""
        own = derive(seed, "few", split, index)
        kind = self.data.kinds[int(rng(derive(own, "kind")).integers(len(self.data.kinds)))]
        scene = self.source.sample(own, kind=kind, split=split)
        return scene if self.data.grounds else replace(scene, background="white")

    def example(self, seed: int, index: int, split: Split = "train") -> Example:
        """The scene, painted and said."""
        scene = self.scene(seed, index, split)
        return Example(self.source.paint(scene), self.source.caption(scene))

    def mistakes(self, scene: Scene, seed: int, number: int) -> list[str]:
        """Captions that are wrong of a scene: in turns, its things in other places, in another colour, another thing
        among them, and a whole other scene."""
        ways = (self._moved, self._tinted, self._replaced, self._another)
        wrong = (ways[k % len(ways)](scene, derive(seed, "wrong", k)) for k in range(number))
        return [self.source.caption(each, derive(seed, "said", k)) for k, each in enumerate(wrong)]

    def _moved(self, scene: Scene, seed: int) -> Scene:
        if scene.kind != "pair":
            return self._another(scene, seed)
        if rng(seed).random() < 0.5:
            return replace(scene, things=scene.things[::-1])
        return replace(scene, relation=next(each for each in RELATIONS if each != scene.relation))

    def _tinted(self, scene: Scene, seed: int) -> Scene:
        draw = rng(seed)
        can = [k for k, thing in enumerate(scene.things) if thing.concept in self.source.tints]
        if not can:
            return self._replaced(scene, seed)
        which = can[int(draw.integers(len(can)))]
        others = [each for each in (None, *COLOURS) if each != scene.things[which].colour]
        return self._with(scene, which, colour=others[int(draw.integers(len(others)))])

    def _replaced(self, scene: Scene, seed: int) -> Scene:
        draw, shown = rng(seed), {thing.concept for thing in scene.things}
        others = [k for k in range(len(self.source.pictograms)) if k not in shown]
        which = int(draw.integers(len(scene.things)))
        return self._with(scene, which, concept=others[int(draw.integers(len(others)))], colour=None)

    def _another(self, scene: Scene, seed: int) -> Scene:
        return next(other for k in count() if (other := self.scene(seed, k)).things != scene.things)

    @staticmethod
    def _with(scene: Scene, which: int, **change: Any) -> Scene:
        """One of its things is another; of several of a kind, all are."""
        changed = [k == which or scene.kind == "count" for k in range(len(scene.things))]
        things = (replace(each, **change) if new else each for each, new in zip(scene.things, changed, strict=True))
        return replace(scene, things=tuple(things))
