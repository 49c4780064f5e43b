"""What an argument means: an existing file is that file, `text:...` is always text, a name of a file that is not there
is an error, anything else is text."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.core.protocol import Medium
from conjure.media.kinds import SUFFIXES, looks_like_file

if TYPE_CHECKING:
    from conjure.media.image import Image

FILE: dict[str, Any] = {"file": "image"}
"""Marks a field of an Options class (`json_schema_extra`) whose value names a picture: a further input."""

SOUND_FILE: dict[str, Any] = {"file": "audio"}
"""The same for a sound: `--voice sample.wav`."""

OR_SAMPLE: dict[str, Any] = {"or_file": "sample"}
"""Marks one whose value is a name, unless it looks like a file: then it is meant for that option."""

LOCAL: dict[str, Any] = {"local": True}
"""Marks one whose value names files or models of this machine: clients of the server may not set it."""

_TEXT = "text:"
_VERBS = {"translat": "translate", "summari": "summarise", "classif": "classify"}
"""How an instruction begins -> the task it asks for."""
_EDITS = {"control": "control", "likeness": "edit", "mask": "inpaint", "extend": "outpaint", "style": "restyle",
          "scale": "upscale", "strength": "vary", "size": "outpaint"}  # fmt: skip
"""An option given with a picture -> the task it asks for; the first that is there."""


@dataclass(frozen=True)
class Given:
    """One input, the name of the file it came from, and the option that named it ("" where there is none)."""

    medium: Medium
    name: str = ""
    option: str = ""

    @property
    def kind(self) -> str:
        return self.medium.kind

    def recorded(self) -> dict[str, str]:
        """What provenance keeps: a text itself, of anything else its name and digest."""
        if self.kind == "text":
            return {"kind": "text", "text": str(self.medium)}
        kept = {"kind": self.kind, "name": self.name, "digest": self.medium.digest()}
        return {**kept, "option": self.option} if self.option else kept


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


def instructed(given: Sequence[Given], options: Collection[str] = ()) -> str | None:
    """The task that the inputs and the names of the options ask for: a picture with `mask`; or the last of several
    texts: `letter.txt "translate to Spanish"`."""
    if any(each.kind == "image" for each in given):
        return next((task for name, task in _EDITS.items() if name in options), None)
    if len(given) < 2 or any(each.kind != "text" for each in given) or given[-1].name:
        return None
    said = str(given[-1].medium).strip().casefold()
    return next((task for beginning, task in _VERBS.items() if said.startswith(beginning)), None)


def attached(
    kind: type[Any], options: Mapping[str, Any], given: Sequence[Given]
) -> tuple[tuple[Given, ...], dict[str, Any]]:
    """(inputs, options) with the files that options name behind the other inputs, in the order of the fields.

    The options keep the files' names alone. A file that is among the inputs already is not read again. What came along
    for an option that names several files (`known`) stays behind the rest.
    """
    options, wanted = _meant(kind, options), _files(kind)
    named = [name for name in wanted if options.get(name) not in (None, "")]
    there = {each.option: each for each in given if each.option}
    there |= {name: _further(name, options[name], wanted[name]) for name in named if name not in there}
    plain = tuple(each for each in given if not each.option)
    several = (each for each in given if each.option in options and each.option not in wanted)
    return (*plain, *(there[name] for name in named), *several), {
        **options, **{name: there[name].name or name for name in named}
    }


def _meant(kind: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, files in place of names given to the options that take files."""
    found = dict(options)
    for name, field in getattr(kind, "__pydantic_fields__", {}).items():
        other = (field.json_schema_extra or {}).get("or_file")
        if other and isinstance(found.get(name), str) and looks_like_file(found[name]):
            if found.get(other):
                raise ConjureError(f"--{name}: expected a name beside --{other}, got the file {found[name]}")
            found[other] = found.pop(name)
    return found


def parted(inputs: Sequence[Medium], options: Any) -> tuple[Image, str, dict[str, Image]]:
    """What an edit is given, taken apart: the picture, the texts in one, and the pictures that options name.

    `ConjureError` where it is not one picture.
    """
    from conjure.media.image import Image

    named = [name for name in _files(type(options)) if getattr(options, name)]
    first = len(inputs) - len(named)
    own, files = inputs[:first], [each for each in inputs[first:] if isinstance(each, Image)]
    pictures = [each for each in own if isinstance(each, Image)]
    if len(files) < len(named) or len(pictures) != 1:
        came = sum(each.kind == "image" for each in inputs) - len(named)
        flags = ", ".join(f"--{name}" for name in _files(type(options)))
        hint = f"a further one goes with its option: {flags}" if flags else "make them one after the other"
        raise ConjureError(f"expected one picture to change, got {max(0, came)}", hint=hint)
    return pictures[0], " ".join(str(each) for each in own if each.kind == "text").strip(), dict(zip(named, files))


def moving(picture: Image) -> Iterator[Event]:
    """A word about a picture that moves."""
    if picture.frames > 1:
        yield Warn(f"the picture has {picture.frames} frames: the first is used")


def _files(kind: type[Any]) -> dict[str, str]:
    """The options that name files, and the kind of medium each of them takes."""
    fields = getattr(kind, "__pydantic_fields__", {})
    return {name: field.json_schema_extra["file"] for name, field in fields.items()
            if field.json_schema_extra in (FILE, SOUND_FILE)}  # fmt: skip


def _further(name: str, value: Any, kind: str) -> Given:
    given = understand(Path(value) if isinstance(value, str) else value)
    if given.kind != kind:
        wanted = {"image": "a picture", "audio": "a sound"}[kind]
        raise ConjureError(f"--{name}: expected {wanted}, {given.name or 'this'} is {given.kind}")
    return replace(given, option=name)


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
    return Given(_long(path) or _chomped(media.read(path)), path.name)


def _long(path: Path) -> Medium | None:
    """Sound of more seconds than may be held at once, as it lies in its file."""
    if SUFFIXES.get(path.suffix.lower()) != "audio" or not path.is_file():
        return None
    from conjure.media.recording import recording

    return recording(path)


def unheld(given: Given) -> bool:
    """Whether it is sound that is read in blocks, for few tasks can do that."""
    return hasattr(given.medium, "blocks")


def _chomped(medium: Medium) -> Medium:
    """A text without the line end that editors and `echo` put after its last line."""
    if medium.kind != "text":
        return medium
    return media.Text(str(medium).removesuffix("\n").removesuffix("\r"))


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text
