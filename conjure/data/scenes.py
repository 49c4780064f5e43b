"""Composed scenes: one to six pictograms with colours, sizes, counts, places and relations, painted from a scene graph.

A `Scene` is a small frozen value; everything else is a pure function of it: `paint` draws it, `caption` says it,
`questions` asks about it, `edit` changes one thing and says how, `motion` lets it move. So pictures, captions, answers,
edits and films can never disagree. Scene k is a function of (seed, k) alone.

Lengths are fractions of the canvas side; x runs right, y runs down; a thing's place is its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image as PillowImage

from conjure.core.seeds import derive, rng
from conjure.data.phrases import COUNTS, article, plural, spoken, synonyms
from conjure.data.recolour import COLOURS, dominant_hue, recolour

if TYPE_CHECKING:
    from conjure.data.pictograms import Pictogram

Size = Literal["small", "medium", "large"]
Split = Literal["train", "test"]

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
    "left": ("to the left of", "left of", "on the left of"), "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"), "below": ("below", "under", "beneath"),
}
GRIDS = {  # how many things -> (centres, scale)
    2: (((0.27, 0.5), (0.73, 0.5)), 7 / GRID),
    3: (((0.2, 0.5), (0.5, 0.5), (0.8, 0.5)), 5 / GRID),
    4: (((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)), 6 / GRID),
    5: (((0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75)), 5 / GRID),
    6: (((0.2, 0.3), (0.5, 0.3), (0.8, 0.3), (0.2, 0.7), (0.5, 0.7), (0.8, 0.7)), 5 / GRID),
}
JITTER = 0.04  # before corners are moved to the grid
OWN_COLOURS = ("People & Body", "Flags")  # groups of pictograms that keep their colours


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

    kind: Literal["single", "pair", "row", "between", "count"]
    things: tuple[Thing, ...]
    background: str = "white"
    relation: str = ""  # pair: of the first thing to the second; single: the name of its place
    seed: int = 0


@dataclass(frozen=True)
class Question:
    text: str
    answer: str


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

    def sample(self, seed: int, *, kind: str | None = None, split: Split = "train") -> Scene:
        draw = rng(seed)
        scene = self._arranged(draw, seed, kind, split)
        return replace(scene, things=tuple(snapped(t) for t in scene.things))

    def _arranged(self, draw: np.random.Generator, seed: int, kind: str | None, split: Split) -> Scene:
        kind = kind or draw.choice(["single", "pair", "count", "row", "between"], p=[0.36, 0.42, 0.1, 0.06, 0.06])
        background = "white" if draw.random() < 0.7 else str(draw.choice(list(BACKGROUNDS)[1:]))
        if kind == "single":
            return self._single(draw, background, seed)
        number = {"pair": 2, "count": 1, "row": 3, "between": 3}[kind]
        concepts = self._concepts(draw, number, split)
        if kind == "count":
            centres, scale = GRIDS[int(draw.integers(2, 7))]
            first = self._thing(draw, concepts[0], (0, 0), "medium")
            things = tuple(replace(first, x=x, y=y, scale=scale) for x, y in centres)
            return Scene("count", things, background, seed=seed)
        if kind == "pair":
            relation = str(draw.choice(["left", "above"]))
            sizes = [str(draw.choice(["small", "medium", "large"], p=[0.16, 0.68, 0.16])) for _ in concepts]
            things = tuple(self._thing(draw, c, centre, size)  # type: ignore[arg-type]
                           for c, centre, size in zip(concepts, RELATIONS[relation], sizes, strict=True))
            return Scene("pair", things, background, relation, seed)
        centres, scale = GRIDS[3]
        things = tuple(replace(self._thing(draw, c, xy, "medium"), scale=scale)
                       for c, xy in zip(concepts, centres, strict=True))
        return Scene(kind, things, background, seed=seed)  # type: ignore[arg-type]

    def _single(self, draw: np.random.Generator, background: str, seed: int) -> Scene:
        concept = int(draw.integers(len(self.pictograms)))
        if draw.random() < 0.25:
            place = str(draw.choice(list(PLACES)))
            thing = replace(self._thing(draw, concept, PLACES[place], "small"), scale=ALONE["small"], size="medium")
            return Scene("single", (thing,), background, place, seed)
        size = str(draw.choice(["small", "medium", "large"], p=[0.1, 0.8, 0.1]))
        thing = self._thing(draw, concept, (0.5, 0.5), size)  # type: ignore[arg-type]
        return Scene("single", (replace(thing, scale=ALONE[size]),), background, "", seed)

    def _thing(self, draw: np.random.Generator, concept: int, centre: tuple[float, float], size: Size) -> Thing:
        colour = None
        if concept in self.tints and draw.random() < 0.5:
            colour = str(draw.choice(list(COLOURS)))
        dx, dy = draw.uniform(-JITTER, JITTER, 2)
        return Thing(concept, centre[0] + dx, centre[1] + dy, SCALES[size], colour, size)

    def _concepts(self, draw: np.random.Generator, number: int, split: Split) -> list[int]:
        """Different things; half of the time one of them can take another colour. Held-out pairs stay apart."""
        while True:
            chosen = [int(c) for c in draw.choice(len(self.pictograms), number, replace=False)]
            if draw.random() < 0.5 and self.tintable:
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
            noun = str(draw.choice(list(others)))
        words = [] if thing.size == "medium" else [str(draw.choice(SIZE_WORDS[thing.size]))]
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
            text = f"{say[0]} {scene.relation}" if scene.relation else self._plain(draw, scene.things[0], say[0])
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
            text += str(draw.choice([", on a {} background", " on a {} background", " with a {} background"])
                        ).format(scene.background)
        return text

    @staticmethod
    def _plain(draw: np.random.Generator, thing: Thing, say: str) -> str:
        bare = say.split(" ", 1)[1]
        return str(draw.choice([say, bare, f"a picture of {say}", f"a drawing of {say}", f"a pictogram of {say}",
                                f"{bare} icon"], p=[0.4, 0.25, 0.12, 0.08, 0.08, 0.07]))

    @staticmethod
    def _pair(draw: np.random.Generator, relation: str, first: str, second: str) -> str:
        way = draw.random()
        if relation == "left" and way < 0.2:
            return str(draw.choice([f"{first} and {second}", f"{first} next to {second}", f"{first} beside {second}"]))
        if relation == "left" and way < 0.3:
            return f"{first} on the left and {second} on the right"
        if relation == "above" and way < 0.15:
            return f"{first} at the top and {second} at the bottom"
        if way < 0.65:
            return f"{first} {draw.choice(PHRASES[relation])} {second}"
        return f"{second} {draw.choice(PHRASES[OPPOSITE[relation]])} {first}"

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
        noun = self.name(replace(thing, colour=None, size="medium"), draw, determiner="the")
        options = ["background", "replace"] + (["colour"] if thing.concept in self.tints else [])
        options += ["swap"] if scene.kind == "pair" else []
        options += ["remove"] if scene.kind == "pair" else []
        match str(draw.choice(options)):
            case "background":
                new = str(draw.choice([b for b in BACKGROUNDS if b != scene.background]))
                return f"make the background {new}", replace(scene, background=new)
            case "colour":
                new = str(draw.choice([c for c in COLOURS if c != thing.colour]))
                same = [i for i, t in enumerate(scene.things) if t.concept == thing.concept]
                say = noun if len(same) == 1 else "the " + plural(noun.removeprefix("the "))
                return f"make {say} {new}", _changed(scene, same, colour=new)
            case "swap":
                a, b = scene.things
                moved = (replace(b, x=a.x, y=a.y), replace(a, x=b.x, y=b.y))
                return f"swap {noun} and {self._other(scene, which, draw)}", replace(scene, things=moved)
            case "remove":
                kept = scene.things[1 - which]
                return f"remove {noun}", replace(scene, kind="single", things=(kept,), relation="")
            case _:
                same = [i for i, t in enumerate(scene.things) if t.concept == thing.concept]
                taken = {t.concept for t in scene.things}
                new = next(int(c) for c in draw.permutation(len(self.pictograms)) if int(c) not in taken)
                word = spoken(self.pictograms[new].name)
                say = noun if len(same) == 1 else "the " + plural(noun.removeprefix("the "))
                into = f"{article(word)} {word}" if len(same) == 1 else plural(word)
                return f"replace {say} with {into}", _changed(scene, same, concept=new, colour=None)

    def _other(self, scene: Scene, which: int, draw: np.random.Generator) -> str:
        return self.name(replace(scene.things[1 - which], colour=None, size="medium"), draw, determiner="the")

    def motion(self, scene: Scene, seed: int, frames: int = 16) -> tuple[str, list[Scene]]:
        """A caption and `frames` scenes in which the first thing moves in a straight line (grows, for 'grows')."""
        draw = rng(derive(seed, "motion"))
        way = str(draw.choice(list(MOVES)))
        thing, path = scene.things[0], []
        dx, dy, grow = MOVES[way]
        for k in range(frames):
            part = k / max(1, frames - 1)
            now = replace(thing, x=thing.x + dx * part, y=thing.y + dy * part, scale=thing.scale * (1 + grow * part))
            path.append(replace(scene, things=(now, *scene.things[1:])))
        return f"{self.name(thing, draw)} {way}", path


SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
MOVES = {"moves left": (-0.25, 0.0, 0.0), "moves right": (0.25, 0.0, 0.0), "moves up": (0.0, -0.25, 0.0),
         "moves down": (0.0, 0.25, 0.0), "grows": (0.0, 0.0, 0.8), "shrinks": (0.0, 0.0, -0.5)}
# every word a caption may hold beside the names of things
GRAMMAR = frozenset(w for text in (
    *PLACES, *COLOURS, *BACKGROUNDS, *COUNTS.values(), *SIZE_WORDS["small"], *SIZE_WORDS["large"],
    *(p for ways in PHRASES.values() for p in ways),
    "a an the and of with on in at next to beside between picture drawing pictogram icon background",
) for w in text.split())


def snapped(thing: Thing) -> Thing:
    """The thing with its left upper corner moved to the grid."""
    half = thing.scale / 2
    x, y = (round((at - half) * GRID) / GRID + half for at in (thing.x, thing.y))
    return replace(thing, x=x, y=y)


def held_out(a: int, b: int) -> bool:
    """Whether a pair of things is kept for tests: one pair in twenty, whichever comes first."""
    return derive(0, "pair", min(a, b), max(a, b)) % 20 == 0


def _changed(scene: Scene, which: Sequence[int], **change: object) -> Scene:
    return replace(scene, things=tuple(replace(t, **change) if i in which else t for i, t in enumerate(scene.things)))


def _lay(canvas: np.ndarray, stamp: np.ndarray, left: int, top: int) -> None:
    """Composite a premultiplied stamp on the canvas; what falls outside is cut off."""
    size, side = canvas.shape[0], stamp.shape[0]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(size, left + side), min(size, top + side)
    if x0 >= x1 or y0 >= y1:
        return
    part = stamp[y0 - top:y1 - top, x0 - left:x1 - left]
    canvas[y0:y1, x0:x1] = part[..., :3] + canvas[y0:y1, x0:x1] * (1 - part[..., 3:] / 255)
