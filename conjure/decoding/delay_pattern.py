"""Codes of several books written in one pass: book q lags q steps behind, so that it can see what the books before it
say of the same frame (Copet et al. 2023, arXiv 2306.05284, section 2.2). Of stereo sound two books lag `together`.

Legend: B rows, Q books, T frames, S = T + (the last lag) steps, D width, V codes of a book.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from conjure.core.seeds import derive, rng
from conjure.decoding.sample import draw
from conjure.nn.cache import Cache

UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How each code is drawn."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class Writer(Protocol):
    """What is asked of a network that writes codes."""

    def cache(self, batch: int, capacity: int) -> Cache: ...

    def hidden(self, ids_BQS: Tensor, *, cache: Cache) -> Tensor:
        """`[B, S, D]` after each of these next steps."""
        ...

    def logits(self, x_BSD: Tensor) -> Tensor:
        """float32 `[B, Q, S, V]`."""
        ...


def delayed(ids_BQT: Tensor, pad: int, together: int = 1) -> Tensor:
    """`[B, Q, S]`: each row begins by its lag later; `pad` fills the corners."""
    B, Q, T = ids_BQT.shape
    out_BQS = ids_BQT.new_full((B, Q, T + (Q - 1) // together), pad)
    for book in range(Q):
        lag = book // together
        out_BQS[:, book, lag : lag + T] = ids_BQT[:, book]
    return out_BQS


def aligned(ids_BQS: Tensor, together: int = 1) -> Tensor:
    """The way back, `[B, Q, T]`."""
    books = ids_BQS.shape[1]
    frames = ids_BQS.shape[2] - (books - 1) // together
    lags = [book // together for book in range(books)]
    return torch.stack([ids_BQS[:, book, lag : lag + frames] for book, lag in enumerate(lags)], 1)


@torch.no_grad()
def write(
    network: Writer, known_BQT: Tensor, frames: int, pad: int, seeds: Sequence[int], how: Drawing, *, together: int = 1
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """After each step: (new frames that are whole, all codes `[B, Q, T + frames]`, `UNKNOWN` where they are to come).

    Row b draws by `seeds[b]` alone. T may be 0.
    """
    B, Q, T = known_BQT.shape
    grid_BQS = delayed(torch.cat([known_BQT, known_BQT.new_full((B, Q, frames), UNKNOWN)], 2), pad, together)
    steps, streams = grid_BQS.shape[2], [rng(derive(seed, "codes")) for seed in seeds]
    cache = network.cache(B, steps)
    unread_BQS = torch.cat([grid_BQS.new_full((B, Q, 1), pad), grid_BQS[:, :, :T]], 2)
    for step in range(T, steps):
        last_B1D = network.hidden(unread_BQS, cache=cache)[:, -1:]
        logits_BQV = network.logits(last_B1D)[:, :, 0].numpy()
        for row, stream in enumerate(streams):
            for book in range(Q):
                if grid_BQS[row, book, step] == UNKNOWN:
                    u, logits_V = stream.random(), logits_BQV[row, book]
                    grid_BQS[row, book, step] = int(logits_V.argmax()) if how.temperature == 0 else draw(
                        logits_V, u, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p
                    )  # fmt: skip
        unread_BQS = grid_BQS[:, :, step : step + 1]
        yield max(0, step + 1 - T - (Q - 1) // together), aligned(grid_BQS, together)
