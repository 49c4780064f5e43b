"""Composed scenes: one to six pictograms with colours, sizes, counts, places and relations, painted from a scene graph.

A `Scene` (`scene_graph.py`) is a small frozen value; everything else is a pure function of it: `paint` draws it,
`caption` says it, `questions` asks about it, `edit` changes one thing and says how, `motion` lets it move. So pictures,
captions, answers, edits and films can never disagree. Scene k is a function of (seed, k) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image as PillowImage

from conjure.core.seeds import derive, rng
from conjure.data.phrases import COUNTS, article, plural, spoken, synonyms
from conjure.data.recolour import COLOURS, dominant_hue, recolour
from conjure.data.scene_graph import (
    ALONE,
    BACKGROUNDS,
    GRAMMAR,
    GRIDS,
    JITTER,
    MOVES,
    OPPOSITE,
    OWN_COLOURS,
    PHRASES,
    PLACES,
    RELATIONS,
    SCALES,
    SIZE_WORDS,
    TINTED,
    Kind,
    Question,
    Scene,
    Size,
    Split,
    Thing,
    held_out,
    snapped,
)

if TYPE_CHECKING:
    from conjure.data.pictograms import Pictogram

T = TypeVar("T")
KINDS: tuple[Kind, ...] = ("single", "pair", "count", "row", "between")
SHARES = (0.36, 0.42, 0.1, 0.06, 0.06)  # of the kinds among all scenes
SIZES: tuple[Size, ...] = ("small", "medium", "large")


class SceneSource:
    """Scenes over a list of pictograms.

    `pictures`: uint8 [N, S, S, 4], straight alpha. `split` separates pairs of things that training never shows together
    ("test") from the rest ("train"): a twentieth of all pairs, chosen by a hash of both.
    """

    def __init__(self, pictograms: Sequence[Pictogram], pictures: np.ndarray, *, size: int = 128) -> None:
        if len(pictograms) != len(pictures):
            raise ValueError(f"expected one picture per pictogram, got {len(pictograms)} and {len(pictures)}")
        self.pictograms, self.pictures, self.size = list(pictograms), pictures, size
        self.hues = [dominant_hue(p[::4, ::4]) for p in pictures]  # None: has no one colour that could be changed
        named = [set(spoken(p.name).split()) & set(COLOURS) for p in self.pictograms]
        self.tintable = [i for i, p in enumerate(self.pictograms)
                         if self.hues[i] is not None and not named[i] and p.group not in OWN_COLOURS]
        self.tints = frozenset(self.tintable)
        self.synonyms = synonyms([p.name for p in self.pictograms], [p.keywords for p in self.pictograms], GRAMMAR)
        self.stamp = lru_cache(maxsize=4096)(self._make_stamp)

    @classmethod
    def load(cls, size: int = 128) -> SceneSource:
        """Over Noto's pictograms, without the variants in skin tone and without pictures that occur twice."""
        from conjure.data.pictograms import load

        pictograms, pictures = load(size)
        kept = [i for i, p in enumerate(pictograms) if p.duplicate_of is None]
        return cls([pictograms[i] for i in kept], pictures[kept], size=size)

    # ---------------------------------------------------------------- sampling
    def scene(self, seed: int, index: int, split: Split = "train") -> Scene:
        """Scene `index`: a pure function of (seed, index, split)."""
        return self.sample(derive(seed, "scene", split, index), split=split)

    def sample(self, seed: int, *, kind: Kind | None = None, split: Split = "train") -> Scene:
        """A scene drawn from `seed`, of one kind if asked for."""
        draw = rng(seed)
        scene = self._arranged(draw, seed, kind, split)
        return replace(scene, things=tuple(snapped(t) for t in scene.things))

    def _arranged(self, draw: np.random.Generator, seed: int, kind: Kind | None, split: Split) -> Scene:
        kind = kind or _pick(draw, KINDS, p=SHARES)
        background = "white" if draw.random() < 0.7 else _pick(draw, list(BACKGROUNDS)[1:])
        if kind == "single":
            return self._single(draw, background, seed)
        concepts = self._concepts(draw, {"pair": 2, "count": 1, "row": 3, "between": 3}[kind], split)
        if kind == "count":
            centres, scale = GRIDS[int(draw.integers(2, 7))]
            first = self._thing(draw, concepts[0], (0, 0), "medium")
            things = tuple(replace(first, x=x, y=y, scale=scale) for x, y in centres)
            return Scene("count", things, background, seed=seed)
        if kind == "pair":
            relation = _pick(draw, list(RELATIONS))
            sizes: list[Size] = [_pick(draw, SIZES, p=(0.16, 0.68, 0.16)) for _ in concepts]
            placed = zip(concepts, RELATIONS[relation], sizes, strict=True)
            things = tuple(self._thing(draw, concept, centre, size) for concept, centre, size in placed)
            return Scene("pair", things, background, relation, seed)
        centres, scale = GRIDS[3]
        things = tuple(replace(self._thing(draw, concept, centre, "medium"), scale=scale)
                       for concept, centre in zip(concepts, centres, strict=True))
        return Scene(kind, things, background, seed=seed)

    def _single(self, draw: np.random.Generator, background: str, seed: int) -> Scene:
        concept = int(draw.integers(len(self.pictograms)))
        if draw.random() < 0.25 and self.tintable:
            concept = self.tintable[int(draw.integers(len(self.tintable)))]
        if draw.random() < 0.25:
            place = _pick(draw, list(PLACES))
            thing = replace(self._thing(draw, concept, PLACES[place], "small"), scale=ALONE["small"], size="medium")
            return Scene("single", (thing,), background, place, seed)
        size = _pick(draw, SIZES, p=(0.1, 0.8, 0.1))
        thing = self._thing(draw, concept, (0.5, 0.5), size)
        return Scene("single", (replace(thing, scale=ALONE[size]),), background, "", seed)

    def _thing(self, draw: np.random.Generator, concept: int, centre: tuple[float, float], size: Size) -> Thing:
        colour = None
        if concept in self.tints and draw.random() < TINTED:
            colour = _pick(draw, list(COLOURS))
        dx, dy = draw.uniform(-JITTER, JITTER, 2)
        return Thing(concept, centre[0] + dx, centre[1] + dy, SCALES[size], colour, size)

    def _concepts(self, draw: np.random.Generator, number: int, split: Split) -> list[int]:
        """Different things; half of the time one of them can take another colour. Held-out pairs stay apart."""
        while True:
            chosen = [int(c) for c in draw.choice(len(self.pictograms), number, replace=False)]
            if draw.random() < TINTED and self.tintable:
                chosen[int(draw.integers(number))] = self.tintable[int(draw.integers(len(self.tintable)))]
            pairs = [(a, b) for i, a in enumerate(chosen) for b in chosen[i + 1:]]
            if len(set(chosen)) < number:
                continue
            held = [held_out(a, b) for a, b in pairs]
            if not pairs or (all(held) if split == "test" and number == 2 else not any(held)):
                return chosen

    # ---------------------------------------------------------------- painting
    def paint(self, scene: Scene, size: int | None = None) -> np.ndarray:
        """The picture, uint8 [size, size, 3]."""
        size = size or self.size
        canvas = np.empty((size, size, 3), np.float32)
        canvas[:] = BACKGROUNDS[scene.background]
        for thing in scene.things:
            side = max(1, round(thing.scale * size))
            stamp = self.stamp(thing.concept, thing.colour, side)
            _lay(canvas, stamp, round(thing.x * size - side / 2), round(thing.y * size - side / 2))
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)

    def _make_stamp(self, concept: int, colour: str | None, side: int) -> np.ndarray:
        """One pictogram at its final size: float32 [side, side, 4], colour already multiplied by alpha."""
        picture = PillowImage.fromarray(self.pictures[concept], "RGBA").convert("RGBa")  # colour times alpha
        picture = picture.resize((side, side), PillowImage.Resampling.LANCZOS).convert("RGBA")
        pixels = np.asarray(picture)
        if colour is not None:
            pixels = recolour(pixels, self.hues[concept], colour)
        stamp = pixels.astype(np.float32)
        stamp[..., :3] *= stamp[..., 3:] / 255
        return stamp

    # ---------------------------------------------------------------- words
    def name(self, thing: Thing, draw: np.random.Generator, *, number: int = 1, determiner: str = "a") -> str:
        """'a small red car', 'three cats'; now and then a synonym that means this pictogram alone."""
        noun = spoken(self.pictograms[thing.concept].name)
        others = self.synonyms[thing.concept]
        if others and draw.random() < 0.25:
            noun = _pick(draw, others)
        words = [] if thing.size == "medium" else [_pick(draw, SIZE_WORDS[thing.size])]
        words += [thing.colour] if thing.colour else []
        if number > 1:
            return " ".join([*words, plural(noun)])
        phrase = " ".join([*words, noun])
        return {"a": f"{article(phrase)} {phrase}", "the": f"the {phrase}", "": phrase}[determiner]

    def caption(self, scene: Scene, seed: int | None = None) -> str:
        """One true sentence; other seeds phrase it otherwise."""
        draw = rng(derive(scene.seed if seed is None else seed, "caption"))
        say = [self.name(t, draw) for t in scene.things]
        if scene.kind == "single":
            text = f"{say[0]} {scene.relation}" if scene.relation else self._plain(draw, say[0])
        elif scene.kind == "count":
            many = self.name(scene.things[0], draw, number=len(scene.things))
            text = f"{COUNTS[len(scene.things)]} {many}"
        elif scene.kind == "row":
            text = f"{say[0]}, {say[1]} and {say[2]}"
        elif scene.kind == "between":
            text = f"{say[1]} between {say[0]} and {say[2]}"
        else:
            text = self._pair(draw, scene.relation, *say)
        if scene.background != "white":
            way = _pick(draw, (", on a {} background", " on a {} background", " with a {} background"))
            text += way.format(scene.background)
        return text

    @staticmethod
    def _plain(draw: np.random.Generator, say: str) -> str:
        bare = say.split(" ", 1)[1]
        ways = say, bare, f"a picture of {say}", f"a drawing of {say}", f"a pictogram of {say}", f"{bare} icon"
        return _pick(draw, ways, p=(0.4, 0.25, 0.12, 0.08, 0.08, 0.07))

    @staticmethod
    def _pair(draw: np.random.Generator, relation: str, first: str, second: str) -> str:
        way = draw.random()
        if relation == "left" and way < 0.2:
            return _pick(draw, (f"{first} and {second}", f"{first} next to {second}", f"{first} beside {second}"))
        if relation == "left" and way < 0.3:
            return f"{first} on the left and {second} on the right"
        if relation == "above" and way < 0.15:
            return f"{first} at the top and {second} at the bottom"
        if way < 0.65:
            return f"{first} {_pick(draw, PHRASES[relation])} {second}"
        return f"{second} {_pick(draw, PHRASES[OPPOSITE[relation]])} {first}"

    def questions(self, scene: Scene, seed: int | None = None) -> list[Question]:
        """Questions with short answers, all decided by the scene graph."""
        draw = rng(derive(scene.seed if seed is None else seed, "questions"))
        first = scene.things[0]
        kinds = {t.concept for t in scene.things}
        asked = [Question("How many things are there?", COUNTS[len(scene.things)]),
                 Question("What colour is the background?", scene.background)]
        noun = self.name(replace(first, colour=None, size="medium"), draw, determiner="")
        asked.append(Question(f"Is there {article(noun)} {noun}?", "yes"))
        absent = next(c for c in draw.permutation(len(self.pictograms)) if int(c) not in kinds)
        other = spoken(self.pictograms[int(absent)].name)
        asked.append(Question(f"Is there {article(other)} {other}?", "no"))
        asked += [Question(f"What colour is the {noun}?", first.colour)] if first.colour else []
        if len(kinds) == 2:
            second = self.name(replace(scene.things[1], colour=None, size="medium"), draw, determiner="")
            asked.append(Question(f"Where is the {noun}?", f"{PHRASES[scene.relation][0]} the {second}"))
        return asked

    def edit(self, scene: Scene, seed: int) -> tuple[str, Scene]:
        """An instruction and the scene after it: exactly one thing about the scene changes."""
        draw = rng(derive(seed, "edit"))
        which = int(draw.integers(len(scene.things)))
        thing = scene.things[which]
        same = [i for i, t in enumerate(scene.things) if t.concept == thing.concept]
        noun = self.name(replace(thing, colour=None, size="medium"), draw, determiner="the")
        if len(same) > 1:
            noun = "the " + plural(noun.removeprefix("the "))
        options = ["background", "replace"] + (["colour"] if thing.concept in self.tints else [])
        options += ["swap", "remove"] if scene.kind == "pair" else []
        match _pick(draw, options):
            case "background":
                new = _pick(draw, [b for b in BACKGROUNDS if b != scene.background])
                return f"make the background {new}", replace(scene, background=new)
            case "colour":
                new = _pick(draw, [c for c in COLOURS if c != thing.colour])
                return f"make {noun} {new}", _changed(scene, same, colour=new)
            case "swap":
                a, b = scene.things
                moved = (replace(b, x=a.x, y=a.y), replace(a, x=b.x, y=b.y))
                return f"swap {noun} and {self._other(scene, which, draw)}", replace(scene, things=moved)
            case "remove":
                kept = scene.things[1 - which]
                return f"remove {noun}", replace(scene, kind="single", things=(kept,), relation="")
            case _:
                taken = {t.concept for t in scene.things}
                new = next(int(c) for c in draw.permutation(len(self.pictograms)) if int(c) not in taken)
                word = spoken(self.pictograms[new].name)
                into = f"{article(word)} {word}" if len(same) == 1 else plural(word)
                return f"replace {noun} with {into}", _changed(scene, same, concept=new, colour=None)

    def _other(self, scene: Scene, which: int, draw: np.random.Generator) -> str:
        return self.name(replace(scene.things[1 - which], colour=None, size="medium"), draw, determiner="the")

    def motion(self, scene: Scene, seed: int, frames: int = 16) -> tuple[str, list[Scene]]:
        """A caption and `frames` scenes in which the first thing moves in a straight line (grows, for 'grows')."""
        draw = rng(derive(seed, "motion"))
        way = _pick(draw, list(MOVES))
        thing, path = scene.things[0], []
        dx, dy, grow = MOVES[way]
        for k in range(frames):
            part = k / max(1, frames - 1)
            now = replace(thing, x=thing.x + dx * part, y=thing.y + dy * part, scale=thing.scale * (1 + grow * part))
            path.append(replace(scene, things=(now, *scene.things[1:])))
        return f"{self.name(thing, draw)} {way}", path


def _pick(draw: np.random.Generator, options: Sequence[T], p: Sequence[float] | None = None) -> T:
    return options[int(draw.choice(len(options), p=p))]


def _changed(scene: Scene, which: Sequence[int], **change: Any) -> Scene:
    return replace(scene, things=tuple(replace(t, **change) if i in which else t for i, t in enumerate(scene.things)))


def _lay(canvas: np.ndarray, stamp: np.ndarray, left: int, top: int) -> None:
    """Composite a premultiplied stamp on the canvas; what falls outside is cut off."""
    size, side = canvas.shape[0], stamp.shape[0]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(size, left + side), min(size, top + side)
    if x0 >= x1 or y0 >= y1:
        return
    part = stamp[y0 - top:y1 - top, x0 - left:x1 - left]
    canvas[y0:y1, x0:x1] = part[..., :3] + canvas[y0:y1, x0:x1] * (1 - part[..., 3:] / 255)
