"""A talk as a tree: to say something again, or to ask for another answer, begins a branch, and no branch is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from conjure.media.image import Image

USER, ASSISTANT = "user", "assistant"
FIRST = -1
"""What the first turns follow."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One thing said. `above` is the number of the turn that it follows; `note` says what went wrong or was cut off."""

    role: str
    text: str = ""
    pictures: tuple[Image, ...] = ()
    above: int = FIRST
    model: str = ""
    system: str = ""
    """The system prompt under which it was answered."""
    seed: int | None = None
    tokens: int = 0
    note: str = ""


@dataclass(frozen=True)
class Talk:
    """All turns in the order in which they were said; `chosen` leads from a turn to the one shown after it."""

    turns: tuple[Turn, ...] = ()
    chosen: Mapping[int, int] = field(default_factory=dict)

    @property
    def path(self) -> list[int]:
        """The numbers of the turns that are shown."""
        found, at = [], FIRST
        while (at := self.chosen.get(at, FIRST)) != FIRST:
            found.append(at)
        return found

    @property
    def shown(self) -> list[Turn]:
        return [self.turns[number] for number in self.path]

    def said(self, turn: Turn) -> tuple[Talk, int]:
        """The talk with one turn more, which is shown, and its number."""
        number = len(self.turns)
        return Talk((*self.turns, turn), {**self.chosen, turn.above: number}), number

    def with_turn(self, number: int, **changes: Any) -> Talk:
        """The talk with some fields of a turn changed."""
        turns = list(self.turns)
        turns[number] = replace(turns[number], **changes)
        return Talk(tuple(turns), self.chosen)

    def versions(self, number: int) -> list[int]:
        """The turns that follow the same one, this one among them, in the order in which they were said."""
        above = self.turns[number].above
        return [other for other, turn in enumerate(self.turns) if turn.above == above]

    def stepped(self, number: int, by: int) -> Talk:
        """The talk with the version shown that comes `by` after this one; the same at either end."""
        versions = self.versions(number)
        place = min(max(versions.index(number) + by, 0), len(versions) - 1)
        return Talk(self.turns, {**self.chosen, self.turns[number].above: versions[place]})

    @property
    def forks(self) -> list[int]:
        """The shown turns that have other versions."""
        return [number for number in self.path if len(self.versions(number)) > 1]

    def before(self, number: int) -> list[Turn]:
        """What leads to a turn, without it."""
        found, at = [], self.turns[number].above
        while at != FIRST:
            found.append(self.turns[at])
            at = self.turns[at].above
        return found[::-1]


def messages(turns: Sequence[Turn], system: str) -> list[dict[str, str]]:
    """What a model is given to answer: whatever has no words is passed over."""
    head = [{"role": "system", "content": system}] if system.strip() else []
    return head + [{"role": turn.role, "content": turn.text} for turn in turns if turn.text]


def markdown(talk: Talk) -> str:
    """What is shown, as a text for people."""
    parts, system = [], ""
    for turn in talk.shown:
        if turn.system != system:
            system = turn.system
            parts.append(f"**System**\n\n{system or '(none)'}")
        who = "You" if turn.role == USER else turn.model or "Answer"
        pictures = "".join(f"\n\n({picture.width} x {picture.height} picture)" for picture in turn.pictures)
        note = f"\n\n_{turn.note}_" if turn.note else ""
        parts.append(f"**{who}**\n\n{turn.text}{pictures}{note}")
    return "\n\n---\n\n".join(parts) + "\n"


def plain(talk: Talk) -> dict[str, Any]:
    """Everything, every branch, as plain values; pictures stand by their digests."""
    turns = [
        {"number": number, "follows": None if turn.above == FIRST else turn.above, "role": turn.role,
         "text": turn.text, "pictures": [picture.digest() for picture in turn.pictures], "model": turn.model,
         "system": turn.system, "seed": turn.seed, "tokens": turn.tokens, "note": turn.note}
        for number, turn in enumerate(talk.turns)
    ]  # fmt: skip
    return {"format": "conjure-talk-v1", "shown": talk.path, "turns": turns}


# -- what is said, as Markdown without HTML ----------------------------------------------------------------------------

_CODE = re.compile(
    r"(^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*$.*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z))"  # a block, perhaps without end
    r"|(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)",
    re.DOTALL | re.MULTILINE,
)
_RISKY = re.compile(r"(?<!\\)(<|!(?=\[))")
_SHIELDED = re.compile(r"\\(<|!(?=\[))")


def harmless(text: str) -> str:
    """The same Markdown with tags, and pictures from elsewhere, as the characters they are written with. Code stays as
    it is: there they are characters already."""
    return _outside_code(text, lambda part: _RISKY.sub(r"\\\1", part))


def unshielded(text: str) -> str:
    """What `harmless` was given."""
    return _outside_code(text, lambda part: _SHIELDED.sub(r"\1", part))


def _outside_code(text: str, change: Any) -> str:
    parts, at = [], 0
    for match in _CODE.finditer(text):
        parts += [change(text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, change(text[at:])])
