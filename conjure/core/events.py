"""What every `generate` yields: progress, previews and pieces of text as they come, and the result last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conjure.core.protocol import Medium


@dataclass(frozen=True)
class Progress:
    """`step` of `total` units of work are done; `note` says what is being done."""

    step: int
    total: int
    unit: str = "step"
    note: str = ""


@dataclass(frozen=True)
class Preview:
    """How the result looks so far. `medium` is made when it is asked for: decoding costs, and few callers look."""

    make: Callable[[], Medium]

    @property
    def medium(self) -> Medium:
        return self.make()


@dataclass(frozen=True)
class Delta:
    """The next piece of a text that is being written."""

    text: str


@dataclass(frozen=True)
class Warn:
    """One sentence the user should read; the work goes on."""

    text: str


@dataclass(frozen=True)
class Result:
    """The finished media, one per seed, and facts about the making (evaluations, tokens per second, ...)."""

    media: Sequence[Medium]
    facts: Mapping[str, Any] = field(default_factory=dict)


Event = Progress | Preview | Delta | Warn | Result
