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

_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_MARKS = ("[TOOL_CALLS]", "<|python_tag|>")
_BEGINS = ("{", "[{", "[ {", "<tool_call>", *_MARKS)
NAMES = ("arguments", "parameters", "args")


@dataclass(frozen=True)
class ToolCall:
    """The name of a tool and its arguments as JSON text."""

    name: str
    arguments: str


def parsed(text: str, names: Collection[str]) -> tuple[str, list[ToolCall]]:
    """(what is not a call, the calls). A text that calls nothing, or only what is not in `names`, comes back whole."""
    if tagged := _TAGGED.findall(text):
        calls = [call for inner in tagged for call in _calls(inner, names)]
        return (_TAGGED.sub("", text).strip(), calls) if calls else (text, [])
    inner = text.strip()
    for mark in _MARKS:
        inner = inner.removeprefix(mark).strip()
    calls = _calls(inner, names)
    return ("", calls) if calls else (text, [])


def may_begin(text: str) -> bool:
    """Whether what was written so far may turn out to be a call."""
    begun = text.lstrip()
    return not begun or any(begun.startswith(mark) or mark.startswith(begun) for mark in _BEGINS)


def schema(tools: Sequence[Mapping[str, Any]], name: str = "") -> dict[str, Any]:
    """The JSON schema of a call of one of these tools, or of the one called `name`."""
    calls = [
        {
            "type": "object", "additionalProperties": False, "required": ["name", "arguments"],
            "properties": {
                "name": {"const": each["name"]},
                "arguments": each.get("parameters") or {"type": "object", "additionalProperties": False},
            },
        }
        for each in tools
        if not name or each["name"] == name
    ]  # fmt: skip
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


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
