"""What every program has to do, and how it is timed: a prompt of random ids, then new tokens one by one, greedily."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    folder: str
    variant: str
    prompt: int = 128
    tokens: int = 256
    threads: int = 2
    batch: int = 0
    """Rows of a batch that is decoded too; 0: none."""
    seconds: float = 20.0
    """Decoding ends by then: a slow program does fewer tokens."""
    only_first: bool = False
    """Ends after the first token, without any measurement: how long does it take from nothing?"""

    def ids(self, vocab: int, row: int = 0) -> list[int]:
        """The same for every program: a linear congruence, so that nothing need be imported."""
        state, ids = 12345 + row, []
        for _ in range(self.prompt):
            state = (1103515245 * state + 12345) % 2**31
            ids.append(3 + (state >> 8) % (vocab - 3))
        return ids


@dataclass
class Decoded:
    """Seconds after the start at which each token was there, the first one by the prompt."""

    times: list[float] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second after the first."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])


def decode(read: Callable[[list[int]], int], prompt: list[int], work: Work, tokens: int | None = None) -> Decoded:
    """`read` takes ids and says which comes next."""
    done, began = Decoded(), time.perf_counter()
    given = prompt
    for _ in range(tokens or work.tokens):
        given = [read(given)]
        done.times.append(time.perf_counter() - began)
        done.ids += given
        if done.times[-1] > work.seconds and len(done.times) > 3:
            break
    return done
