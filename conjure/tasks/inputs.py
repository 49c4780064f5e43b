"""What an argument means: an existing file is that file, `text:...` is always text, a name of a file that is not there
is an error, anything else is text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.protocol import Medium
from conjure.media.kinds import looks_like_file

_TEXT = "text:"
_VERBS = {"translat": "translate", "summari": "summarise", "classif": "classify"}
"""How an instruction begins -> the task it asks for."""


@dataclass(frozen=True)
class Given:
    """One input, and the name of the file it came from ("" if from none)."""

    medium: Medium
    name: str = ""

    @property
    def kind(self) -> str:
        return self.medium.kind

    def recorded(self) -> dict[str, str]:
        """What provenance keeps: a text itself, of anything else its name and digest."""
        if self.kind == "text":
            return {"kind": "text", "text": str(self.medium)}
        return {"kind": self.kind, "name": self.name, "digest": self.medium.digest()}


def understand(argument: Any) -> Given:
    """The input an argument stands for: a medium, bytes, a `Path`, or a string by the rules above."""
    if isinstance(argument, Given):
        given = argument
    elif isinstance(argument, bytes):
        given = Given(_chomped(media.read(argument)))
    elif isinstance(argument, Path):
        given = _file(argument)
    elif isinstance(argument, str):
        given = _string(argument)
    else:
        given = Given(argument)
    if given.kind == "text" and not str(given.medium).strip():
        where = f"{given.name}: " if given.name else ""
        raise ConjureError(
            f"{where}expected a prompt, got an empty text", hint='for example: conjure make "a red apple"'
        )
    return given


def instructed(given: Sequence[Given]) -> str | None:
    """The task that the last of several texts asks for: `letter.txt "translate to Spanish"`."""
    if len(given) < 2 or any(each.kind != "text" for each in given) or given[-1].name:
        return None
    said = str(given[-1].medium).strip().casefold()
    return next((task for beginning, task in _VERBS.items() if said.startswith(beginning)), None)


def _string(argument: str) -> Given:
    if argument.startswith(_TEXT):
        return Given(media.Text(argument.removeprefix(_TEXT)))
    if os.path.isfile(argument):  # False, not an error, for what cannot be a path
        return _file(Path(argument))
    if looks_like_file(argument):
        raise ConjureError(
            f"{argument}: no such file", hint=f"if it is meant as text, write {_quoted(_TEXT + argument)}"
        )
    return Given(media.Text(argument))


def _file(path: Path) -> Given:
    if not path.exists():
        raise ConjureError(f"{path}: no such file")
    return Given(_chomped(media.read(path)), path.name)


def _chomped(medium: Medium) -> Medium:
    """A text without the line end that editors and `echo` put after its last line."""
    if medium.kind != "text":
        return medium
    return media.Text(str(medium).removesuffix("\n").removesuffix("\r"))


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text
