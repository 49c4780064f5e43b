"""What all loops have to do, and what they report.

Legend: N rows, T tokens of a row, B rows of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Work:
    """A decoder's shape, its batch, and how many steps to time after some that are thrown away.

    `hidden` is the width of the gated feed-forward layer, with three matrices; a plain one has two of 3/2 the
    width, which is the same number of weights and of multiplications.
    """

    vocab: int = 8192
    dim: int = 288
    layers: int = 6
    heads: int = 6
    hidden: int = 768
    length: int = 512
    batch: int = 8
    steps: int = 8
    discard: int = 2
    threads: int = 1
    lr: float = 1e-3

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.batch * self.length

    @property
    def total(self) -> int:
        """Steps to take: the last one only marks the end of the one before."""
        return self.discard + self.steps + 1

    @property
    def matrices(self) -> int:
        """Weights that each token is multiplied with, the output matrix (which is the embedding) included."""
        return self.layers * (4 * self.dim**2 + 3 * self.dim * self.hidden) + self.vocab * self.dim

    @property
    def flops(self) -> float:
        """Of one step: two per weight and token, and a causal token meets half the others; backward twice forward."""
        return 3 * 2.0 * self.tokens * (self.matrices + self.layers * self.length * self.dim)

    def rows(self, indices: Sequence[int]) -> np.ndarray:
        """int64 [len(indices), T + 1], uniform over the vocabulary; row i is the same in every loop."""
        made = [np.random.default_rng(i).integers(0, self.vocab, self.length + 1) for i in indices]
        return np.stack(made)


@dataclass(frozen=True)
class Timed:
    """What a loop reports: when each step began, by one clock, and facts about it."""

    began: tuple[float, ...]
    parameters: int
    optimizer: str


def seconds(began: Sequence[float], discard: int) -> list[float]:
    """From the beginning of a step to that of the next, so that nothing a loop does between steps is left out."""
    return [after - before for before, after in zip(began[discard:], began[discard + 1 :], strict=False)]
