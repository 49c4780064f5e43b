"""The voice listens to itself: a sentence in which a word seems to be missing or said twice is said again.

The ear is starter/ear, where it is there; it judges, it does not read (`decoding/word_presence.py`). What stays
doubtful is told, and the file is written all the same: an ear that was taught by machines is no proof.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import Field

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.models.proof_ear import Judged, ProofEar

EAR = "starter/ear"
TRIES = 2
"""Times that a sentence is said again."""
FASTEST = 1.5
"""Above this speed the ear is not asked: at twice the usual one it doubts three good sentences in ten."""
SHOWN, NAMED = 5, 60
"""Sentences that warnings name, and characters of each."""
CHECK: Any = Field(
    default=True, description="listen to each sentence, and say it again where a word is missing or said twice"
)
"""The option `check`."""
S = TypeVar("S")


@dataclass(frozen=True)
class Kept(Generic[S]):
    """The best of what was said, how often it was said again, and what was heard in it (None: not judged)."""

    sound: S
    again: int
    judged: Judged | None


def best(first: S, again: Callable[[int], S], judge: Callable[[S], Judged | None], tries: int = TRIES) -> Kept[S]:
    """`first`, or where it is doubtful the least doubtful of it and of `again(1)`, `again(2)`, up to the first that is
    right."""
    kept, heard = first, judge(first)
    attempt = 0
    while heard is not None and heard.faults and attempt < tries:
        attempt += 1
        other = again(attempt)
        found = judge(other)
        if found is not None and found.doubt < heard.doubt:
            kept, heard = other, found
    return Kept(kept, attempt, heard)


@functools.lru_cache(maxsize=1)
def proof_ear() -> ProofEar | None:
    """Our own ear, ready to judge; None where it is not installed."""
    try:
        folder = shelf.find(EAR)
    except ConjureError:
        return None
    return ProofEar.load(folder)


@dataclass
class Report:
    """What listening found, added up over sentences."""

    checked: int = 0
    again: int = 0
    doubtful: list[str] = field(default_factory=list)
    """Each with what seems wrong with it."""

    def add(self, text: str, kept: Kept[Any]) -> dict[str, Any]:
        """What the facts say of one sentence; empty where all is right."""
        if kept.judged is None:
            return {}
        self.checked += 1
        self.again += kept.again > 0
        faults = [f"{word} ({fault})" for word, fault in kept.judged.faults]
        if faults:
            often = f", said {1 + kept.again} times" if kept.again else ""
            self.doubtful.append(f"{_short(text)!r}{often}: {', '.join(faults)}")
        return ({"said_again": kept.again} if kept.again else {}) | ({"doubtful": faults} if faults else {})

    @property
    def facts(self) -> dict[str, int]:
        return {"checked": self.checked, "said_again": self.again, "doubtful": len(self.doubtful)}

    def warnings(self) -> list[str]:
        """One for each sentence that is still doubtful, then how many more there are."""
        found = [f"to our own ear this sentence does not sound right: {each}" for each in self.doubtful[:SHOWN]]
        more = len(self.doubtful) - SHOWN
        return [*found, f"and {more} more sentences do not"] if more > 0 else found


def _short(text: str) -> str:
    return text if len(text) <= NAMED else f"{text[: NAMED - 3]}..."
