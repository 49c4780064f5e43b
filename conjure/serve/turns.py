"""The next turn of a talk as all the chat-like shapes tell it: what is said, which tools are called, how it ended."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from conjure.codecs.tool_calls import Listener, ToolCall, schema
from conjure.serve.errors import ApiError
from conjure.serve.sampling import FINISH
from conjure.serve.texts import Began, Ended, Piece, TextWish

CALLS = "tool_calls"


@dataclass(frozen=True)
class Said:
    """A piece of what answer `index` says."""

    index: int
    text: str
    piece: Piece | None = None


@dataclass(frozen=True)
class Called:
    """The `place`-th call of a tool in answer `index`, under a name of its own."""

    index: int
    place: int
    call: ToolCall
    id: str


@dataclass(frozen=True)
class Over:
    """Answer `index` is whole: "stop", "length" or "tool_calls"; it took so many tokens."""

    index: int
    reason: str
    tokens: int


@dataclass
class Turn:
    """One whole answer."""

    text: str = ""
    calls: list[Called] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    reason: str = ""
    tokens: int = 0


async def turns(
    texts: AsyncGenerator[Any, None], tools: frozenset[str], *, single: bool = False
) -> AsyncGenerator[Began | Said | Called | Over | None, None]:
    """The events of a wish, told apart, without the spaces an answer begins with. What may turn out to be a call is
    kept back until that is certain; `single` passes over all calls but the first."""
    begun: set[int] = set()
    listeners: dict[int, Listener] = {}
    called: dict[int, int] = {}

    def told(index: int, heard: tuple[str, list[ToolCall]], piece: Piece | None = None) -> Iterator[Said | Called]:
        text, calls = heard
        if text or (piece is not None and piece.logprob is not None):
            yield Said(index, text, piece)
        for call in calls:
            place = called[index] = called.get(index, -1) + 1
            if place == 0 or not single:
                yield Called(index, place, call, f"call_{secrets.token_hex(12)}")

    async with aclosing(texts) as events:
        async for event in events:
            if event is None or isinstance(event, Began):
                yield event
            elif isinstance(event, Piece):
                text = event.text if event.index in begun else event.text.lstrip(" ")
                begun |= {event.index} if text else set()
                listener = listeners.setdefault(event.index, Listener(tools))
                for each in told(event.index, listener.hear(text), event):
                    yield each
            elif isinstance(event, Ended):
                if event.index in listeners:
                    for each in told(event.index, listeners[event.index].end()):
                        yield each
                reason = CALLS if event.index in called else FINISH[event.made.ended]
                yield Over(event.index, reason, len(event.made.ids))


async def whole(
    events: AsyncGenerator[Began | Said | Called | Over | None, None], request: Request
) -> tuple[int, list[Turn]]:
    """(tokens of the prompt, the answers) once all of it is there; ends the work where the client goes away."""
    tokens, found = 0, {}
    async with aclosing(events) as told:
        async for event in told:
            if event is None:
                if await request.is_disconnected():
                    raise ApiError(499, "the client went away", code="client_closed_request")
                continue
            if isinstance(event, Began):
                tokens = event.tokens
                continue
            turn = found.setdefault(event.index, Turn())
            if isinstance(event, Said):
                turn.text += event.text
                turn.pieces += [event.piece] if event.piece is not None else []
            elif isinstance(event, Called):
                turn.calls.append(event)
            else:
                turn.reason, turn.tokens = event.reason, event.tokens
    return tokens, [found[index] for index in sorted(found)]


# -- what is asked for ------------------------------------------------------------------------------------------------


def wish_of(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any],
    form: Mapping[str, Any] | None, **more: Any,
) -> tuple[TextWish, frozenset[str]]:  # fmt: skip
    """What is to be written, and the names of the tools that it may call.

    `messages` and `tools` (name, description, parameters) are plain values as templates expect them; `choice` is
    "auto", "none", "required" or a mapping with the name of a tool; `form` is a JSON schema that the answer keeps to.
    """
    names = frozenset(each["name"] for each in tools)
    held = form
    if isinstance(choice, Mapping):
        name = choice.get("name")
        if not isinstance(name, str) or name not in names:
            raise ApiError(400, f"tool_choice: no tool is called {name!r:.100}", param="tool_choice")
        held = schema(tools, name)
    elif choice == "required":
        if not names:
            raise ApiError(400, "tool_choice required, but there are no tools", param="tool_choice")
        held = schema(tools)
    elif choice not in ("auto", "none"):
        said = f"tool_choice: expected auto, none, required or a tool, got {choice!r}"
        raise ApiError(400, said, param="tool_choice")
    if choice == "none":
        tools, names = (), frozenset()
    shown = [{"type": "function", "function": dict(each)} for each in tools]
    return TextWish(messages=messages, tools=shown, schema=held, **more), names


def function(given: Any, where: str) -> dict[str, Any]:
    """A tool as templates expect it: name, description, parameters with properties."""
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str) or not given["name"]:
        raise ApiError(400, f"{where}: expected a function with a name", param=where)
    parameters = given.get("parameters", given.get("input_schema")) or {"type": "object"}
    if not isinstance(parameters, Mapping):
        raise ApiError(400, f"{where}: expected a JSON schema of the parameters", param=where)
    described = {"properties": {}, **parameters}
    return {"name": given["name"], "description": given.get("description") or "", "parameters": described}


def turn(role: Any, content: str, where: str, calls: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """One message. Earlier calls, each `name`, `arguments` (JSON text or values) and `id`, are there for templates that
    look at them; where nothing else was said, as text too, which is what our own template writes."""
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise ApiError(400, f"{where}.role: expected system, user, assistant or tool, got {role!r}", param=where)
    message: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": content, **more}
    if calls:
        functions = [_called(each, where) for each in calls]
        ids = [str(each.get("id", "")) for each in calls]
        message["tool_calls"] = [
            {"id": one, "type": "function", "function": each} for one, each in zip(ids, functions, strict=True)
        ]
        message["content"] = content or "\n".join(json.dumps(each) for each in functions)
    return message


def joined(parts: Any, where: str) -> str:
    """The texts of a message's parts; what is no text is refused, for these models read nothing else."""
    if isinstance(parts, str):
        return parts
    if not isinstance(parts, list):
        raise ApiError(400, f"{where}.content: expected a text, got {type(parts).__name__}", param=where)
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
            raise ApiError(400, f"{where}: this model reads texts, got a part of type {kind!r}", param=where)
        texts.append(part["text"])
    return "\n".join(texts)


def _called(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Name and arguments as values: templates write them as JSON themselves."""
    arguments = call.get("arguments") or {}
    try:
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        values = None
    if not isinstance(values, Mapping) or not isinstance(call.get("name"), str):
        raise ApiError(400, f"{where}: expected calls with a name and arguments in JSON", param=where)
    return {"name": call["name"], "arguments": dict(values)}
