"""The two measures of a model that draws pictograms: does it know the things, and can it put them together?

Known things: each of the N pictograms is asked for by name in three phrasings; a picture counts where, centred and at
32x32, it is nearest (L2) to the pictogram that was asked for, of all N.

Composition: 500 prompts of two things that training never showed together, with a relation ("left of", "under") and
one colour. Each thing's own template, at its nominal size, is slid over the picture. It counts as found where, at the
place of its best fit, no other pictogram and no other colour of its own fits better. The picture counts where both are
found and the places are as the prompt says: apart along the relation's axis by over a fifth of the canvas, in the right
order, and less than that across it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image as PillowImage

from conjure.core.events import Event, Progress
from conjure.core.seeds import derive, rng
from conjure.data.phrases import article, spoken
from conjure.data.recolour import COLOURS
from conjure.data.scene_graph import OPPOSITE, PHRASES, RELATIONS, SCALES, Scene, Thing
from conjure.data.scenes import SceneSource
from conjure.media.image import Image
from conjure.metrics.confidence import wilson
from conjure.metrics.template_search import centred, locate, nearest

Draw = Callable[[Sequence[str], Sequence[int]], list[Image]]
Tell = Callable[[Event], None]
PHRASINGS = ("{a} {name}", "{name}", "a picture of {a} {name}")
SIDE = 24  # pixels of a window when things are compared at one place
BATCH = 16


def known_things(
    draw: Draw, source: SceneSource, *, limit: int | None = None, tell: Tell | None = None
) -> dict[str, object]:
    """`draw(prompts, seeds)` makes the pictures. `limit` takes the first so many of a fixed shuffle of the things."""
    everything_NSSC = np.stack([centred(_alone(source, i)) for i in range(len(source.pictograms))])
    chosen = rng(0).permutation(len(source.pictograms))[:limit]
    asked = [(int(i), way) for i in chosen for way in PHRASINGS]
    right = 0
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        names = [spoken(source.pictograms[i].name) for i, _ in part]
        prompts = [way.format(a=article(name), name=name) for (_, way), name in zip(part, names, strict=True)]
        pictures = draw(prompts, [derive(0, "known", start + k) for k in range(len(part))])
        found = nearest(np.stack([centred(p.rgb()) for p in pictures]), everything_NSSC)
        right += int((found == [i for i, _ in part]).sum())
        if tell:
            tell(Progress(start + len(part), len(asked), "picture", "known things"))
    protocol = f"nearest of {len(everything_NSSC)} pictograms, L2 at 32x32 after centring, {len(PHRASINGS)} phrasings"
    return _share(right, len(asked), protocol)


def compositions(
    draw: Draw, source: SceneSource, *, count: int = 500, tell: Tell | None = None
) -> dict[str, object]:
    """Scenes of held-out pairs, drawn from prompts and searched for both things."""
    plain = np.stack([_window(source, Thing(i, 0.5, 0.5, 1.0)) for i in range(len(source.pictograms))])
    right = 0
    for start in range(0, count, BATCH):
        scenes = [relation_scene(source, start + k) for k in range(min(BATCH, count - start))]
        seeds = [derive(0, "composition", start + k) for k in range(len(scenes))]
        pictures = draw([prompt(source, s) for s in scenes], seeds)
        right += sum(as_asked(source, plain, s, p.rgb()) for s, p in zip(scenes, pictures, strict=True))
        if tell:
            tell(Progress(start + len(scenes), count, "picture", "composition"))
    return _share(right, count, "unseen pairs with relation and one colour, both found by template and in place")


def relation_scene(source: SceneSource, index: int) -> Scene:
    """Two medium things of a held-out pair on white; exactly one of them takes a colour."""
    for attempt in range(1000):  # a pair in which something can be coloured comes long before
        scene = source.sample(derive(0, "relation", index, attempt), kind="pair", split="test")
        tintable = [k for k, t in enumerate(scene.things) if t.concept in source.tints]
        if not tintable:
            continue
        draw = rng(derive(scene.seed, "tint"))
        which, colour = int(draw.choice(tintable)), str(draw.choice(list(COLOURS)))
        things = tuple(replace(t, colour=colour if k == which else None, size="medium", scale=SCALES["medium"],
                               x=RELATIONS[scene.relation][k][0], y=RELATIONS[scene.relation][k][1])
                       for k, t in enumerate(scene.things))
        return replace(scene, things=things, background="white")
    raise ValueError("none of these pictograms can take a colour")


def prompt(source: SceneSource, scene: Scene) -> str:
    """'a small dog under a green car': either thing first, and always how they lie (captions may leave that open)."""
    draw = rng(derive(scene.seed, "prompt"))
    (first, second), relation = (source.name(thing, draw) for thing in scene.things), scene.relation
    if draw.random() < 0.5:
        first, second, relation = second, first, OPPOSITE[relation]
    return f"{first} {draw.choice(PHRASES[relation])} {second}"


def as_asked(source: SceneSource, plain_NSSC: np.ndarray, scene: Scene, pixels_HWC: np.ndarray) -> bool:
    """Whether both things of a pair are where the scene says.

    `plain`: windows of all pictograms in their own colours, float32 [N, SIDE, SIDE, 3].
    """
    size = pixels_HWC.shape[0]
    places = []
    for thing in scene.things:
        stamp = source.stamp(thing.concept, thing.colour, round(thing.scale * size))
        opacity = stamp[..., 3] / 255
        template = stamp[..., :3] + 255 * (1 - opacity[..., None])
        x, y, _ = locate(pixels_HWC, template, 0.1 + 0.9 * opacity)
        side = template.shape[0]
        left, top = round(x - side / 2), round(y - side / 2)
        seen = _shrunk(pixels_HWC[top : top + side, left : left + side])
        known, wanted = plain_NSSC, thing.concept
        if thing.concept in source.tints:
            tinted = [_window(source, Thing(thing.concept, 0.5, 0.5, 1.0, colour)) for colour in COLOURS]
            known = np.concatenate([plain_NSSC, tinted])
        if thing.colour is not None:
            wanted = len(plain_NSSC) + list(COLOURS).index(thing.colour)
        if nearest(seen[None], known)[0] != wanted:
            return False
        places.append((x / size, y / size))
    (x1, y1), (x2, y2) = places
    along, across = (x2 - x1, y2 - y1) if scene.relation == "left" else (y2 - y1, x2 - x1)
    return along > 0.2 and abs(across) < 0.2


def _alone(source: SceneSource, concept: int) -> np.ndarray:
    return source.paint(Scene("single", (Thing(concept, 0.5, 0.5, 1.0),)))


def _window(source: SceneSource, thing: Thing) -> np.ndarray:
    return source.paint(Scene("single", (thing,)), size=SIDE).astype(np.float32)


def _shrunk(pixels_HWC: np.ndarray) -> np.ndarray:
    picture = PillowImage.fromarray(np.ascontiguousarray(pixels_HWC))
    return np.asarray(picture.resize((SIDE, SIDE), PillowImage.Resampling.LANCZOS), np.float32)


def _share(right: int, n: int, protocol: str) -> dict[str, object]:
    value, low, high = wilson(right, n)
    return {"value": value, "low": low, "high": high, "n": n, "protocol": protocol}
