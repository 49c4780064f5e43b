"""The teacher reading: sentences of `ljspeech_text`, each said by one of its voices, as examples for training.

Voice k of the four says sentences k, k + 4, k + 8 and so on, so all voices together say as many different texts as can
be. The 100 sentences of the "val" part are never in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from conjure.core.seeds import derive, rng
from conjure.data.teacher import VOICES, Rendered, Renderings, sentences

Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class ReadData:
    """The `data:` section of the recipes of voices."""

    texts: int = 3072
    """Sentences of the training part, over all voices."""
    frames: int = 160
    """Frames of a crop."""

    def __post_init__(self) -> None:
        if self.texts < len(VOICES) or self.frames < 8:
            raise ConjureError(f"data: expected texts >= {len(VOICES)} and frames >= 8, got {self}")


class ReadSentences:
    """`example(i)` is a pure function of (seed, i): epoch i // N says every sentence once, in its own order."""

    def __init__(self, split: Split, texts: int | None = None, seed: int = 0, *,
                 tell: Callable[[Progress], None] | None = None) -> None:  # fmt: skip
        every = sentences(split)[:texts]
        self._voices = [Renderings(every[at :: len(VOICES)], name, tell=tell) for at, name in enumerate(VOICES)]
        self._places = [(index % len(VOICES), index // len(VOICES)) for index in range(len(every))]
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[int, Rendered]:
        """(the voice, what it says) of sentence `index` of the part."""
        voice, at = self._places[index]
        return voice, self._voices[voice][at]

    def example(self, index: int) -> tuple[int, Rendered]:
        epoch, step = divmod(index, len(self))
        return self[int(self._order(epoch)[step])]

    def _draw_order(self, epoch: int) -> np.ndarray:
        return rng(derive(self._seed, "read", epoch)).permutation(len(self))
