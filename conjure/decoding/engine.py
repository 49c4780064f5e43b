"""Many texts at once, each of which comes and goes when it likes: continuous batching (Yu et al., Orca, OSDI 2022).

Every step carries on all texts that are under way by a token, in one pass of the network, and reads a piece of the
prompt of one that arrives. What an earlier text began with is not read again: a place whose text has ended keeps what
it read until the place is needed, and a prompt that begins alike starts from there.

A text depends on its prompt, its seed and its settings, not on those beside it, up to the rounding of the network.

Legend: B texts, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.decoding.reader import Network
from conjure.decoding.rows import Row, choose
from conjure.nn.cache import Cache

PIECE = 128
"""Tokens of prompts that are read in one step: so long the others wait for it."""
WORTH = 8
"""Fewer tokens that begin alike are read anew: finding them a place costs as much."""

Step = tuple[int, str] | None
"""A token and the text that has become certain; None where a step brought this text no token."""


class Slots(Protocol):
    """Places for texts of their own lengths."""

    count: int
    capacity: int

    def read(self, place: int, ids: Sequence[int]) -> Tensor:
        """Logits `[V]` after these next tokens of one text."""
        ...

    def step(self, places: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits `[B, V]` after one more token for each of these texts."""
        ...

    def cut(self, place: int, length: int) -> None:
        """Forget all but the first `length` tokens of a text."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """What `source` read first, `length` tokens of it, becomes what `target` has read."""
        ...


class Separate:
    """Places for any network: a cache each, carried on one after the other."""

    def __init__(self, network: Network, count: int, capacity: int) -> None:
        self.network, self.count, self.capacity = network, count, capacity
        self._caches: list[Cache | None] = [None] * count

    def read(self, place: int, ids: Sequence[int]) -> Tensor:
        cache = self._caches[place]
        if cache is None:
            cache = self._caches[place] = self.network.cache(1, self.capacity)
        ids_1T = torch.tensor([list(ids)], device=cache.padding_B.device)
        return self.network(ids_1T, cache=cache, last_only=True)[0, -1]

    def step(self, places: Sequence[int], tokens: Sequence[int]) -> Tensor:
        return torch.stack([self.read(place, [token]) for place, token in zip(places, tokens, strict=True)])

    def cut(self, place: int, length: int) -> None:
        cache = self._caches[place]
        if cache is not None:
            cache.truncate(length)

    def copy(self, source: int, target: int, length: int) -> None:
        origin = self._caches[source]
        assert origin is not None, "nothing was read there"
        fresh = self._caches[target] = self.network.cache(1, self.capacity)
        fresh.restore({name: each.clone() for name, each in origin.state().items()})
        fresh.truncate(length)


@dataclass(eq=False)
class _Seat:
    """One text. `read` counts the tokens of its prompt that are in its place."""

    row: Row
    place: int = -1
    read: int = 0
    out: deque[tuple[int, str]] = field(default_factory=deque)
    error: Exception | None = None

    @property
    def unread(self) -> int:
        return len(self.row.known) - self.read


class Engine:
    """Texts on the places of `slots`; more of them wait, in the order they came. One thread at a time."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._waiting: deque[_Seat] = deque()
        self._arriving: deque[_Seat] = deque()
        self._live: list[_Seat] = []
        self._kept: list[tuple[int, ...]] = [()] * slots.count
        """What each free place has read."""
        self._free = deque(range(slots.count))  # those used longest ago first
        self.reused = 0
        """Tokens of prompts that did not have to be read."""
        self.steps = 0

    def stream(self, row: Row) -> Iterator[Step]:
        """The tokens of a text as they come; between them None for every step that brought it nothing. Who draws from
        any stream carries on all texts, unless another has since: a round of all streams is one step. Closing the
        iterator takes the text out."""
        self._check(row)
        seat, seen = _Seat(row), -1
        self._waiting.append(seat)
        try:
            while True:
                while seat.out:
                    seen = self.steps
                    yield seat.out.popleft()
                if seat.error is not None:
                    raise seat.error
                if row.ended is not None:
                    return
                if seen == self.steps:
                    self.step()
                seen = self.steps
                if not seat.out and row.ended is None:
                    yield None
        finally:
            self._leave(seat)

    @property
    def load(self) -> tuple[int, int]:
        """(texts that are read or written, texts that wait for a place)"""
        return len(self._live) + len(self._arriving), len(self._waiting)

    @torch.inference_mode()
    def step(self) -> None:
        """A token for every text under way, and a piece of the first prompt that is not read yet, with what fits beside
        it of the next ones. Where a prompt is cut does not depend on the others: sums would be ordered otherwise."""
        self.steps += 1
        if self._live:
            seats = list(self._live)
            logits_BV = self.slots.step([seat.place for seat in seats], [seat.row.known[-1] for seat in seats])
            self._drawn(seats, logits_BV)
        while self._waiting and self._free:
            self._seated(self._waiting.popleft())
        room = PIECE
        while self._arriving and (room == PIECE or self._arriving[0].unread <= room):
            room -= self._read(self._arriving[0])

    # ---------------------------------------------------------------- inside
    def _check(self, row: Row) -> None:
        if row.begin < 1:
            raise ConjureError("there is nothing to continue: no token comes before the first", hint="write a prompt")
        if row.begin + row.decoding.tokens > self.slots.capacity:
            raise ConjureError(
                f"prompt and answer may have {self.slots.capacity} tokens together, asked for were {row.begin} and "
                f"{row.decoding.tokens}", hint="shorten the prompt, or ask for fewer tokens",
            )  # fmt: skip

    def _seated(self, seat: _Seat) -> None:
        """Gives a text a free place, with what some text before began alike."""
        prompt = seat.row.known
        candidates = [(_alike(self._kept[place], prompt), place) for place in self._free]
        others = (*self._live, *self._arriving)
        candidates += [(_alike(each.row.known[: each.read], prompt), each.place) for each in others]
        length, source = max(candidates, key=lambda pair: pair[0])
        length = min(length, len(prompt) - 1)  # the last token is read anew: its logits are wanted
        if length < WORTH:
            seat.place, length = self._free.popleft(), 0
            self.slots.cut(seat.place, 0)
        elif source in self._free:
            self._free.remove(source)
            seat.place = source
            self.slots.cut(source, length)
        else:
            seat.place = self._free.popleft()
            self.slots.copy(source, seat.place, length)
        seat.read = length
        self.reused += length
        self._arriving.append(seat)

    def _read(self, seat: _Seat) -> int:
        """Reads the next piece; how many tokens that were."""
        prompt = seat.row.known
        piece = prompt[seat.read : seat.read + PIECE]
        logits_V = self.slots.read(seat.place, piece)
        seat.read += len(piece)
        if seat.read == len(prompt):
            self._arriving.popleft()
            self._live.append(seat)
            self._drawn([seat], logits_V[None])
        return len(piece)

    def _drawn(self, seats: Sequence[_Seat], logits_BV: Tensor) -> None:
        """The next token of each, by its own settings; an error ends the one text it belongs to."""
        for seat, logits_V in zip(seats, logits_BV, strict=True):
            row = seat.row
            seat.read = len(row.known)
            try:
                (token,) = choose(logits_V[None], [row], row.decoding, row.end)
                seat.out.append((token, row.push(token)))
            except ConjureError as error:
                seat.error = error
            if row.ended is not None or seat.error is not None:
                self._leave(seat)

    def _leave(self, seat: _Seat) -> None:
        for line in (self._waiting, self._arriving, self._live):
            if seat in line:
                line.remove(seat)
        if seat.place >= 0:
            self._kept[seat.place] = tuple(seat.row.known[: seat.read])
            self._free.append(seat.place)
            seat.place = -1


def _alike(known: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    most = min(len(known), len(prompt))
    for place in range(most):
        if known[place] != prompt[place]:
            return place
    return most
