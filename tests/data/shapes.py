"""Pictograms made here: sixteen patterns of squares, a disc, and a pane of coloured glass, with names and keywords."""

from __future__ import annotations

from functools import cache

import numpy as np

from conjure.codecs.picture_words import PictureWords
from conjure.core.seeds import rng
from conjure.data.captions import SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.pictograms import Pictogram
from conjure.data.recolour import rgb
from conjure.data.scenes import SceneSource

SIDE = 64
# name, keywords, group, hues in turns (none: grey; two: no main colour)
SHAPES = (
    ("teapot", ("tea", "drink", "pot"), "Food", (0.02,)),
    ("umbrella", ("rain", "parasol"), "Objects", (0.52,)),
    ("fire engine", ("truck", "engine"), "Travel", (0.95,)),
    ("red apple", ("apple", "fruit", "red"), "Food", (0.0,)),
    ("flag: Oz", ("wizard",), "Flags", (0.3,)),
    ("box", ("parcel",), "Objects", (0.1,)),
    ("old woman", ("woman", "elder"), "People & Body", (0.08,)),
    ("hourglass", ("sand", "timer"), "Objects", (0.15, 0.6)),
    ("unicorn", ("horse",), "Animals", (0.8,)),
    ("mouse", ("rodent",), "Animals", ()),
    ("leaf", ("plant",), "Nature", (0.29,)),
    ("wolf", ("pack",), "Animals", (0.47,)),
    ("berry", ("fruit", "jam"), "Food", (0.7,)),
    ("church", ("chapel",), "Places", (0.45, 0.95)),
    ("rocket", ("space",), "Travel", (0.9,)),
    ("kite", ("toy", "wind"), "Objects", (0.25,)),
)
DISC, GLASS = len(SHAPES), len(SHAPES) + 1


@cache
def shapes() -> SceneSource:
    """Scenes of 64 x 64 pixels over them; DISC is a full blue disc, GLASS a square of red at half opacity."""
    pictures = [_pattern(k, hues) for k, (*_, hues) in enumerate(SHAPES)]
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
    disc, glass = np.zeros((SIDE, SIDE, 4), np.uint8), np.zeros((SIDE, SIDE, 4), np.uint8)
    disc[x**2 + y**2 < 30**2] = (20, 40, 230, 255)
    glass[:] = (255, 0, 0, 128)
    rows = [*SHAPES, ("marble", ("ball",), "Objects", ()), ("window", ("pane",), "Objects", ())]
    known = [
        Pictogram(name, keywords, group, "", "", f"{k:x}", False, None)
        for k, (name, keywords, group, _) in enumerate(rows)
    ]
    return SceneSource(known, np.stack([*pictures, disc, glass]), size=SIDE)


@cache
def vocabulary() -> PictureWords:
    captions = SceneCaptions(shapes())
    return PictureWords(captions.grammar, captions.names, spoken)


def _pattern(number: int, hues: tuple[float, ...]) -> np.ndarray:
    """Squares on an 8 x 8 grid, half of them filled, always the four in the corners."""
    draw = rng(number)
    filled = draw.permutation(64).reshape(8, 8) < 32
    filled[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    hue = np.zeros((8, 8))
    for k, own in enumerate(hues):
        hue[:, 8 * k // len(hues) :] = own
    colour = rgb(hue, np.full((8, 8), 0.85 if hues else 0.0), np.full((8, 8), 0.6 if hues else 0.4))
    cells = np.concatenate([np.rint(colour * 255), filled[..., None] * 255], -1) * filled[..., None]
    return cells.astype(np.uint8).repeat(SIDE // 8, 0).repeat(SIDE // 8, 1)
