"""A stand-in for the set `jsb_chorales`: hymns of block chords that move within the ranges of the voices."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from conjure.core.seeds import derive, rng

CHORDS = ((72, 67, 64, 48), (72, 69, 65, 53), (74, 67, 59, 55), (71, 67, 62, 55), (72, 64, 60, 57))


def hymn(seed: int, beats: int) -> list[list[int]]:
    """Chords of a beat each, some voices moving between, the last one C major, a rest at the beginning."""
    draw = rng(derive(seed, "hymn"))
    steps = np.repeat(np.array(CHORDS)[[*draw.integers(len(CHORDS), size=beats - 1), 0]], 4, axis=0)
    steps[2::8, 2] += 1
    steps[0, 3] = -1
    return (steps + int(draw.integers(-3, 4)) * (steps >= 0)).tolist()


def write_hymns(folder: Path, train: int = 12, valid: int = 3) -> None:
    """FOLDER/jsb_chorales, gzipped as it is shared."""
    place = folder / "jsb_chorales"
    place.mkdir(parents=True)
    parts = {"train": [hymn(k, 8 + k) for k in range(train)], "valid": [hymn(100 + k, 9 + 3 * k) for k in range(valid)]}
    with gzip.open(place / "Jsb16thSeparated.train_valid.json.gz", "wt") as file:
        json.dump(parts, file)
