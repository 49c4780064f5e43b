"""Does a trained generator copy its training pictures? A sheet of samples beside their nearest training pictures, and a
paragraph for the model's card.

Legend: N samples, M training pictures, H held-out pictures; h, w pixels and c channels of a picture, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image as Pillow

from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.core.files import write_atomic
from conjure.core.shelf import find
from conjure.data.pictures_small import SmallPictures, SmallSet
from conjure.media.image import Image, grid
from conjure.metrics.neighbours import Memorisation, memorisation
from conjure.models.features import load_extractor

Tell = Callable[[Event], None]
SHEET = 16  # samples on the sheet
COLUMNS = 4
SMALLEST = 96  # pixels: smaller pictures are enlarged on the sheet
SHRUNK = 32  # pixels of a side at which pictures are compared where no network knows them
HEADING = "## Does it copy?"
FILE = "memorisation.png"


@dataclass(frozen=True, kw_only=True)
class Sets:
    """uint8 `[.., h, w, c]` of one size: samples, the training pictures, and pictures of the same kind that training
    never showed. `judge` names the model whose features compare them, "" compares pixels."""

    made_NHWC: np.ndarray
    train_MHWC: np.ndarray
    held_out_HHWC: np.ndarray
    judge: str = ""


class Generator(Protocol):
    """A task whose samples can be held against its training pictures."""

    def memorisation_sets(self, tell: Tell | None = None) -> Sets:
        """Samples, training pictures and held-out ones."""
        ...


def small_sets(name: SmallSet, made_NHWC: np.ndarray) -> Sets:
    """Samples held against the whole training and test splits of MNIST or CIFAR-10."""
    train, test = (SmallPictures(name, split).pixels_NHWC for split in ("train", "test"))
    judge = "starter/features-mnist" if name == "mnist" else ""
    return Sets(made_NHWC=made_NHWC, train_MHWC=train, held_out_HHWC=test, judge=judge)


def checked(sets: Sets) -> tuple[Memorisation, Image]:
    """The figures, and the sheet: each of the first 16 samples left of the training picture nearest to it."""
    shapes = {each.shape[1:] for each in (sets.made_NHWC, sets.train_MHWC, sets.held_out_HHWC)}
    if len(shapes) != 1:
        raise ConjureError(f"expected pictures of one size, got {' and '.join(map(str, sorted(shapes)))}")
    features = load_extractor(find(sets.judge)) if sets.judge else _pixels
    found = memorisation(features(sets.made_NHWC), features(sets.train_MHWC), features(sets.held_out_HHWC))
    nearest = sets.train_MHWC[found.nearest.index_N[:SHEET]]
    return found, grid([_pair(*two) for two in zip(sets.made_NHWC[:SHEET], nearest, strict=True)], columns=COLUMNS)


def write(folder: Path, sets: Sets) -> dict[str, dict[str, object]]:
    """The sheet and the card's paragraph into a model folder, in place of older ones; returns the figures."""
    found, sheet = checked(sets)
    sheet.save(folder / FILE)
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8") if card.is_file() else ""
    head, _, tail = before.partition(f"{HEADING}\n")
    after = tail[tail.index("\n## ") + 1 :] if "\n## " in tail else ""
    text = f"{head.rstrip()}\n\n{HEADING}\n\n{paragraph(found)}\n\n{after}".rstrip() + "\n"
    write_atomic(card, text.lstrip().encode())
    said = f"distances of features of {sets.judge}" if sets.judge else PIXELS
    return {"nearer_than_held_out": found.nearer.figure(said), "closer_than_99_percent": found.copies.figure(said)}


def paragraph(found: Memorisation) -> str:
    """What the figures say, in words."""
    near, close = found.nearer, found.copies
    return (
        f"![samples beside the nearest training pictures]({FILE})\n\n"
        f"Each of these samples stands left of the training picture nearest to it. Of all {near.n:,} samples, held "
        f"against pictures that training never showed, {near.value:.1%} ({near.low:.1%} to {near.high:.1%}) are the "
        f"nearer ones to training; 50 % means alike, more means copying. {close.value:.1%} ({close.low:.1%} to "
        f"{close.high:.1%}) are nearer than all but 1 % of the pictures not shown."
    )


PIXELS = f"distances of pixels at {SHRUNK}x{SHRUNK} (box filter)"


def _pixels(pictures_NHWC: np.ndarray) -> np.ndarray:
    """float32 `[N, F]`: pictures as they are, shrunk where they are larger."""
    if max(pictures_NHWC.shape[1:3]) <= SHRUNK:
        return pictures_NHWC.reshape(len(pictures_NHWC), -1).astype(np.float32) / 255
    rows = (Pillow.fromarray(each).resize((SHRUNK, SHRUNK), Pillow.Resampling.BOX) for each in pictures_NHWC)
    return np.stack([np.asarray(row, np.float32).ravel() / 255 for row in rows])


def _pair(made_HWC: np.ndarray, nearest_HWC: np.ndarray) -> Image:
    """Two pictures with a thin line between them and a white margin around."""
    scale = -(-SMALLEST // max(made_HWC.shape[:2]))
    made, nearest = (Image(each).rgb().repeat(scale, 0).repeat(scale, 1) for each in (made_HWC, nearest_HWC))
    line = np.full((made.shape[0], 2, 3), 160, np.uint8)
    return Image(np.pad(np.concatenate((made, line, nearest), 1), ((6, 6), (6, 6), (0, 0)), constant_values=255))
