"""Calls of tools in what a model wrote, in the forms that public models were taught.

{"name": "add", "arguments": {"a": 1}}          our own, and Llama 3.1 with "parameters"
[{"name": ...}, {"name": ...}]                  Mistral, behind a mark that is no text
<tool_call>{"name": ...}</tool_call> ...        Hermes, Qwen
<|python_tag|>{"name": ...}; {"name": ...}      Llama 3.1
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MARKS = ("[TOOL_CALLS]", "<|python_tag|>")
_VALUES = re.compile(r"\s*(?:\[\s*)?(?:\{|\Z)")  # an object, a list of objects, or too little to tell
NAMES = ("arguments", "parameters", "args")


@dataclass(frozen=True)
class ToolCall:
    """The name of a tool and its arguments as JSON text."""

    name: str
    arguments: str


class Listener:
    """Tells what is said from what is called while a text is being written.

    What may turn out to be part of a call is held back until that is certain, and no more than that: behind a tag the
    call in it, at the end of what came the beginning of a tag with the space before it, and the whole of a text that
    begins as a call without tags does. Tags around anything but calls of `names` are text. How the text is cut into
    pieces makes no difference.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._open = False
        """Whether the text is known to be more than a call without tags."""
        self._said = self._called = False

    def hear(self, piece: str) -> tuple[str, list[ToolCall]]:
        """(what is certain to be said, the calls that are whole) with the next piece of the text."""
        if not self._names:
            return piece, []
        self._held += piece
        self._open = self._open or not _may_be_called(self._held)
        return self._told() if self._open else ("", [])

    def end(self) -> tuple[str, list[ToolCall]]:
        """The rest, after the last piece."""
        if not self._open and (calls := _untagged(self._held, self._names)):
            return "", calls
        said, calls = self._told()
        rest = self._held.lstrip()
        if rest.startswith(_OPEN) and (last := _calls(rest.removeprefix(_OPEN), self._names)):
            return said, calls + last
        return said + self._say(self._held.rstrip() if self._called else self._held), calls

    def _told(self) -> tuple[str, list[ToolCall]]:
        said, calls = "", []
        while (at := self._held.find(_OPEN)) >= 0 and (close := self._held.find(_CLOSE, at)) >= 0:
            inner, end = self._held[at + len(_OPEN) : close], close + len(_CLOSE)
            found = _calls(inner, self._names)
            said += self._say(self._held[:at].rstrip() if found else self._held[:end])
            calls += found
            self._called = self._called or bool(found)
            self._held = self._held[end:]
        sure = _sure(self._held)
        said += self._say(self._held[:sure])
        self._held = self._held[sure:]
        return said, calls

    def _say(self, text: str) -> str:
        """The space between calls and the first word is not said."""
        if self._called and not self._said:
            text = text.lstrip()
        self._said = self._said or bool(text)
        return text


def parsed(text: str, names: Collection[str]) -> tuple[str, list[ToolCall]]:
    """(what is not a call, the calls). A text that calls nothing, or only what is not in `names`, comes back whole."""
    listener = Listener(names)
    said, calls = listener.hear(text)
    rest, last = listener.end()
    return said + rest, calls + last


def schema(tools: Sequence[Mapping[str, Any]], name: str = "") -> dict[str, Any]:
    """The JSON schema of a call of one of these tools, or of the one called `name`."""
    calls = [
        {
            "type": "object", "additionalProperties": False, "required": ["name", "arguments"],
            "properties": {
                "name": {"const": each["name"]},
                "arguments": _closed(each.get("parameters") or {"type": "object"}),
            },
        }
        for each in tools
        if not name or each["name"] == name
    ]  # fmt: skip
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments that a tool does not name are none of its own: few schemas say so, all functions mean it."""
    return {"additionalProperties": False, **parameters} if parameters.get("type") == "object" else parameters


def _may_be_called(text: str) -> bool:
    """Whether a text that begins so may turn out to be calls without tags."""
    begun = text.lstrip()
    return bool(_VALUES.match(text)) or any(begun.startswith(mark) or mark.startswith(begun) for mark in _MARKS)


def _untagged(text: str, names: Collection[str]) -> list[ToolCall]:
    inner = text.strip()
    for mark in _MARKS:
        inner = inner.removeprefix(mark)
    return _calls(inner, names)


def _sure(text: str) -> int:
    """How much of a text belongs to no tag, whatever comes after it."""
    at = text.find(_OPEN)
    if at < 0:
        begun = (size for size in range(min(len(_OPEN) - 1, len(text)), 0, -1) if text.endswith(_OPEN[:size]))
        at = len(text) - next(begun, 0)
    return len(text[:at].rstrip())


def _calls(text: str, names: Collection[str]) -> list[ToolCall]:
    """All of a text as calls; none where any part of it is something else."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        if text[at] in " \n\r\t;,":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return []
        found += value if isinstance(value, list) else [value]
    calls = [_call(value, names) for value in found]
    return [call for call in calls if call is not None] if all(calls) else []


def _call(value: Any, names: Collection[str]) -> ToolCall | None:
    if not isinstance(value, Mapping) or value.get("name") not in names:
        return None
    arguments = next((value[name] for name in NAMES if name in value), {})
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], arguments) if isinstance(arguments, str) else None
