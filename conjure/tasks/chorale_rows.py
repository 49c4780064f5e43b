"""Four-part music as the rows that `models/four_voices.py` reads: moved to C major or A minor, the key told beside.

Legend: B rows, T steps, V voices, F facts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from conjure.codecs.chorale_tokens import HIDDEN, START, STEPS_PER_BAR, STEPS_PER_BEAT, VOICES, to_tokens, transposed
from conjure.codecs.music_words import MOTIONS, place_of
from conjure.data.chorales import Example
from conjure.models.four_voices import BEATS_LEFT


def facts(steps: int, key: int, *, start: int = 0, rest: int | None = 0, stride: int = 1,
          motion: int | None = None) -> np.ndarray:  # fmt: skip
    """What the network is told of each step, int64 `[T, F]`; None is not told. `start` and `rest` are sixteenths of the
    piece before and behind these steps."""
    at_T = np.arange(steps) * stride
    left_T = np.full(steps, BEATS_LEFT)
    if rest is not None:
        left_T = np.minimum(((steps - 1) * stride + rest - at_T) // STEPS_PER_BEAT, BEATS_LEFT - 1)
    columns = [(start + at_T) % STEPS_PER_BAR, left_T, np.full(steps, key // 12), np.full(steps, place_of(key) % 12),
               np.full(steps, MOTIONS if motion is None else motion), np.full(steps, int(stride > 1))]  # fmt: skip
    return np.stack(columns, 1).astype(np.int64)


def shifted(notes_TV: np.ndarray, before_V: np.ndarray | None = None) -> np.ndarray:
    """Tokens of the step before each, `START` before the first of a piece."""
    first_V = np.full(len(VOICES), START) if before_V is None else before_V
    return np.concatenate([first_V[None], notes_TV[:-1]])


def row(example: Example, shown: Sequence[bool], key: int | None = None) -> dict[str, np.ndarray]:
    """An example as tokens; `shown` says whether the end and the movement are told. `key` instead of its own one.

    `ConjureError` where a pitch lies beyond all tokens in that key.
    """
    end, motion = shown
    key = example.key if key is None else key
    notes_TV = to_tokens(transposed(example.grid_TV, -place_of(key)))
    before_V = None if example.before_V is None else to_tokens(transposed(example.before_V, -place_of(key)))
    facts_TF = facts(len(notes_TV), key, start=example.start, rest=example.rest if end else None,
                     stride=example.stride, motion=example.motion if motion else None)  # fmt: skip
    told_TV = np.where(example.given_TV, notes_TV, HIDDEN)
    return {"notes": notes_TV, "before": shifted(notes_TV, before_V), "told": told_TV, "facts": facts_TF,
            "scored": np.array(bool(example.given_TV.any()))}


def padded(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Rows of different lengths as one batch; what is added is not counted."""
    longest = max(len(row["notes"]) for row in rows)
    fill = {"notes": 0, "before": HIDDEN, "told": HIDDEN, "facts": 0}
    batch = {
        name: torch.from_numpy(np.stack([
            np.pad(row[name], ((0, longest - len(row[name])), (0, 0)), constant_values=value) for row in rows
        ]).astype(np.int64))
        for name, value in fill.items()
    }  # fmt: skip
    lengths_B = torch.tensor([len(row["notes"]) for row in rows])
    counted_BT = torch.arange(longest) < lengths_B[:, None]
    return batch | {"counted": counted_BT, "scored": torch.tensor([bool(row["scored"]) for row in rows])}
