"""Documents of any length into rows of one length, nothing cut away and nothing mixed.

Legend: B rows, T tokens of a row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from conjure.core.seeds import derive, rng

IGNORED = -100
"""The target that carries no loss (as `nn.cross_entropy.IGNORED`)."""


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of the stream, all of one document; the last one is a target only."""

    start: int
    stop: int

    @property
    def inputs(self) -> int:
        return self.stop - self.start - 1


def cut(borders: Sequence[int], length: int) -> list[Piece]:
    """Pieces of at most `length` inputs that between them predict every token of every document but its first.

    Document d is tokens [borders[d], borders[d + 1]) of the stream.
    """
    pieces = []
    for begin, end in pairwise(borders):
        pieces += [Piece(start, min(start + length + 1, end)) for start in range(begin, end - 1, length)]
    return pieces


def pack(pieces: Sequence[Piece], length: int) -> list[tuple[Piece, ...]]:
    """Rows of pieces with at most `length` inputs each: every piece goes, longest first, where it fits best.

    Best-fit decreasing, which wastes little (Ding et al. 2024, arXiv 2404.10830).
    """
    rows: list[list[Piece]] = []
    room: list[tuple[int, int]] = []  # (free inputs, row), sorted
    for piece in sorted(pieces, key=lambda p: (-p.inputs, p.start)):
        at = bisect_left(room, (piece.inputs, -1))
        free, row = room.pop(at) if at < len(room) else (length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(piece)
        if free > piece.inputs:
            insort(room, (free - piece.inputs, row))
    return [tuple(row) for row in rows]


class Packed:
    """A stream of token ids as shuffled rows of `length` inputs; row i is a pure function of (seed, i)."""

    def __init__(self, ids: np.ndarray, borders: Sequence[int], length: int, seed: int = 0) -> None:
        self.ids, self.length, self.seed = ids, length, seed
        self.rows = pack(cut(borders, length), length)
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        """Rows of one epoch."""
        return len(self.rows)

    def row(self, index: int) -> tuple[Piece, ...]:
        """Row `index` of the endless shuffled stream: every epoch is another permutation of all rows."""
        epoch, place = divmod(index, len(self.rows))
        known, order = self._order
        if known != epoch:
            order = rng(derive(self.seed, "epoch", epoch)).permutation(len(self.rows))
            self._order = (epoch, order)
        return self.rows[order[place]]

    def batch(self, rows: Sequence[tuple[Piece, ...]]) -> dict[str, Tensor]:
        """`ids` and `targets` int64 `[B, T]`; where a row holds several documents or padding, also `documents`
        (0, 1, ... in each row). Padding is a document of its own and has no targets."""
        return laid([[self._tokens(piece) for piece in row] for row in rows], self.length)

    def _tokens(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        tokens = self.ids[piece.start : piece.stop]
        return tokens[:-1], tokens[1:]


def laid(rows: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], length: int) -> dict[str, Tensor]:
    """Rows of (ids, targets) of pieces as a batch, see `Packed.batch`; together the pieces of a row have `length` ids
    or less."""
    ids_BT = np.zeros((len(rows), length), dtype=np.int64)
    targets_BT = np.full_like(ids_BT, IGNORED)
    documents_BT = np.zeros_like(ids_BT)
    for b, row in enumerate(rows):
        at = 0
        for number, (ids, targets) in enumerate(row):
            end = at + len(ids)
            ids_BT[b, at:end], targets_BT[b, at:end], documents_BT[b, at:end] = ids, targets, number
            at = end
        documents_BT[b, at:] = len(row)
    batch = {"ids": torch.from_numpy(ids_BT), "targets": torch.from_numpy(targets_BT)}
    if documents_BT.any():
        batch["documents"] = torch.from_numpy(documents_BT)
    return batch
