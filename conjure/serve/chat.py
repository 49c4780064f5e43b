"""`/v1/chat/completions`: the next turn of a chat, or the calls of tools that it takes."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from conjure.codecs.tool_calls import ToolCall, may_begin, parsed, schema
from conjure.serve.errors import ApiError
from conjure.serve.sampling import (
    CHAT,
    FINISH,
    GLANCE,
    PING,
    Answer,
    Sampling,
    gathered,
    seed_of,
    settings_of,
    streaming,
    texts_of,
    ticket_for,
)
from conjure.serve.state import server
from conjure.serve.texts import Began, Ended, Piece, TextWish
from conjure.serve.wire import HEARTBEAT

router = APIRouter()


class Talk(Sampling):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True


@router.post("/v1/chat/completions")
async def chat(asked: Talk, request: Request) -> Response:
    """The next turn of a chat."""
    settings = settings_of(asked, asked.max_completion_tokens or asked.max_tokens)
    if asked.logprobs:
        settings |= {"logprobs": True, "alternatives": asked.top_logprobs or 0}
    elif asked.top_logprobs is not None:
        raise ApiError(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
    name = asked.model or CHAT
    wish, tools = wish_of(asked.messages, asked.tools, asked.tool_choice, asked.response_format, count=asked.n,
                          seed=seed_of(asked), settings=settings)  # fmt: skip
    ticket = ticket_for(server(request), name, wish)
    answer = _Chat(name, asked, tools)
    if asked.stream:
        return streaming(answer.streamed(texts_of(ticket, PING)))
    return JSONResponse(await answer.whole(texts_of(ticket, GLANCE), request))


def wish_of(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None, choice: str | Mapping[str, Any],
    form: Mapping[str, Any] | None, **more: Any,
) -> tuple[TextWish, frozenset[str]]:  # fmt: skip
    """What is to be written, and the names of the tools that it may call."""
    functions = [_function(each, place) for place, each in enumerate(tools or ())]
    names = frozenset(each["name"] for each in functions)
    held = _held(form)
    if isinstance(choice, Mapping):
        wanted = choice.get("function", choice).get("name", "")
        if wanted not in names:
            raise ApiError(400, f"tool_choice: no tool is called {wanted!r}", param="tool_choice")
        held = schema(functions, wanted)
    elif choice == "required":
        if not names:
            raise ApiError(400, "tool_choice required, but there are no tools", param="tool_choice")
        held = schema(functions)
    elif choice not in ("auto", "none"):
        said = f"tool_choice: expected auto, none, required or a tool, got {choice!r}"
        raise ApiError(400, said, param="tool_choice")
    if choice == "none":
        functions, names = [], frozenset()
    shown = [{"type": "function", "function": each} for each in functions]
    turns = [_turn(each, place) for place, each in enumerate(messages)]
    return TextWish(messages=turns, tools=shown, schema=held, **more), names


def _function(tool: Mapping[str, Any], place: int) -> dict[str, Any]:
    """A tool as templates expect it: name, description, parameters with properties."""
    function = tool.get("function", tool)
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping) or not function.get("name"):
        raise ApiError(400, f"tools[{place}]: expected a function with a name", param=f"tools[{place}]")
    parameters: dict[str, Any] = dict(function.get("parameters") or {"type": "object"})
    parameters.setdefault("properties", {})
    return {"name": function["name"], "description": function.get("description") or "", "parameters": parameters}


def _turn(message: Mapping[str, Any], place: int) -> dict[str, Any]:
    """One message as chat templates expect it: its parts joined to one text."""
    where = f"messages[{place}]"
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise ApiError(400, f"{where}.role: expected system, user, assistant or tool, got {role!r}", param=where)
    if isinstance(content, list):
        texts = []
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
                raise ApiError(400, f"{where}: this model reads texts, got a part of type {kind!r}", param=where)
            texts.append(part["text"])
        content = "\n".join(texts)
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise ApiError(400, f"{where}.content: expected a text, got {type(content).__name__}", param=where)
    turn = {**message, "role": "system" if role == "developer" else role, "content": content}
    if calls := message.get("tool_calls"):
        turn["tool_calls"] = [_called(each, where) for each in calls]
        if not content:  # what our own template writes; others look at the calls
            turn["content"] = "\n".join(json.dumps(each["function"]) for each in turn["tool_calls"])
    return turn


def _called(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A call of an earlier turn, its arguments as values: templates write them as JSON themselves."""
    function = call.get("function")
    try:
        assert isinstance(function, Mapping)
        arguments = function.get("arguments") or "{}"
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
        return {**call, "function": {"name": function["name"], "arguments": values}}
    except (AssertionError, KeyError, ValueError):
        said = f"{where}.tool_calls: expected functions with a name and arguments in JSON"
        raise ApiError(400, said, param=where) from None


def _held(wanted: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    kind = (wanted or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    inner = (wanted or {}).get("json_schema")
    if kind != "json_schema" or not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
        raise ApiError(400, "response_format: expected text, json_object, or json_schema with its schema",
                       param="response_format")  # fmt: skip
    return inner["schema"]


class _Chat(Answer):
    kind = "chatcmpl"

    def __init__(self, name: str, asked: Talk, tools: frozenset[str]) -> None:
        super().__init__(name, asked)
        self.tools, self.single = tools, not asked.parallel_tool_calls

    async def whole(self, texts: AsyncGenerator[Any, None], request: Request) -> dict[str, Any]:
        self.tokens, made, pieces = await gathered(texts, request)
        choices = []
        for index, each in enumerate(made):
            text, calls = self._read(each.text)
            message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
            if calls:
                message["tool_calls"] = [_shown(call) for call in calls]
            choices.append({"index": index, "finish_reason": "tool_calls" if calls else FINISH[each.ended],
                            "message": message, "logprobs": self._logprobs(pieces[index])})  # fmt: skip
        written = sum(len(each.ids) for each in made)
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage(written)}

    async def streamed(self, texts: AsyncGenerator[Any, None]) -> AsyncIterator[str]:
        begun: set[int] = set()
        held: dict[int, str] = {}  # what may turn out to be a call is kept back until that is certain
        written = 0
        async with aclosing(texts) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Began):
                    self.tokens = event.tokens
                    for index in range(self.asked.n):
                        yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
                elif isinstance(event, Piece):
                    written += 1
                    text = event.text if event.index in begun else event.text.lstrip(" ")
                    if self.tools and event.index not in begun:
                        held[event.index] = text = (held.get(event.index, "") + text).lstrip(" ")
                        if may_begin(text):
                            text = ""
                    if text:
                        begun.add(event.index)
                    if text or event.logprob is not None:
                        yield self._chunk(event.index, {"content": text}, logprobs=self._logprobs([event]))
                elif isinstance(event, Ended):
                    finish = FINISH[event.made.ended]
                    if event.index not in begun and held.get(event.index):
                        text, calls = self._read(event.made.text)
                        if text:
                            yield self._chunk(event.index, {"content": text})
                        for place, call in enumerate(calls):
                            yield self._chunk(event.index, {"tool_calls": [{"index": place, **_shown(call)}]})
                        finish = "tool_calls" if calls else finish
                    yield self._chunk(event.index, {}, finish=finish)
        if self.counted:
            last = {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage(written)}
            yield f"data: {json.dumps(last)}\n\n"

    def _read(self, text: str) -> tuple[str, list[ToolCall]]:
        """An answer taken apart: what is said, and the calls of tools."""
        text = text.lstrip(" ")
        if not self.tools:
            return text, []
        rest, calls = parsed(text, self.tools)
        return rest, calls[:1] if self.single else calls

    def _chunk(self, index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        more = {"usage": None} if self.counted else {}
        body = {**self.head, "object": "chat.completion.chunk", "choices": [choice], **more}
        return f"data: {json.dumps(body)}\n\n"

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not getattr(self.asked, "logprobs", False):
            return None
        return {"content": [_scored(each) for each in pieces if each.logprob is not None], "refusal": None}


def _shown(call: ToolCall) -> dict[str, Any]:
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function",
            "function": {"name": call.name, "arguments": call.arguments}}  # fmt: skip


def _scored(piece: Piece) -> dict[str, Any]:
    top = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in piece.named]
    return {"token": piece.name, "logprob": piece.logprob, "bytes": list(piece.name.encode()), "top_logprobs": top}
