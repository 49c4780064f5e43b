"""`/v1/chat/completions`: the next turn of a chat, or the calls of tools that it takes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from conjure.serve.errors import ApiError, Json
from conjure.serve.making import EITHER
from conjure.serve.sampling import (
    CHAT,
    GLANCE,
    PING,
    Answer,
    Sampling,
    refused,
    seed_of,
    settings_of,
    streaming,
    texts_of,
    ticket_for,
)
from conjure.serve.state import server
from conjure.serve.texts import Began, Piece
from conjure.serve.turns import Called, Said, Turn, function, joined, turn, turns, whole, wish_of
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


@router.post("/v1/chat/completions", responses=EITHER)
async def chat(asked: Talk, request: Request) -> Response:
    """The next turn of a chat."""
    refused(asked.model_extra or {}, {"modalities": (["text"],)})
    settings = settings_of(asked, asked.max_completion_tokens or asked.max_tokens, {"modalities"})
    if asked.logprobs:
        settings |= {"logprobs": True, "alternatives": asked.top_logprobs or 0}
    elif asked.top_logprobs is not None:
        raise ApiError(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
    messages = [_message(each, f"messages[{place}]") for place, each in enumerate(asked.messages)]
    functions = [_tool(each, f"tools[{place}]") for place, each in enumerate(asked.tools or ())]
    choice = asked.tool_choice
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice)
    wish, names = wish_of(messages, functions, choice, form_of(asked.response_format), count=asked.n,
                          seed=seed_of(asked), settings=settings)  # fmt: skip
    answer = _Chat(asked.model or CHAT, asked)
    events = ticket_for(server(request), asked.model or CHAT, wish)
    single = not asked.parallel_tool_calls
    if asked.stream:
        return streaming(answer.streamed(turns(texts_of(events, PING), names, single=single)))
    tokens, made = await whole(turns(texts_of(events, GLANCE), names, single=single), request)
    return Json(answer.whole(tokens, made))


def form_of(wanted: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The JSON schema that an answer keeps to; None for free text."""
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


def _tool(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    if given.get("type", "function") != "function":
        raise ApiError(400, f"{where}: expected a function, got {given.get('type')!r}", param=where)
    return function(given.get("function"), where)


def _message(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    role, content = given.get("role"), given.get("content")
    calls = given.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise ApiError(400, f"{where}.tool_calls: expected a list of calls", param=where)
    if not all(isinstance(call.get("function"), Mapping) for call in calls):
        raise ApiError(400, f"{where}.tool_calls: expected functions", param=where)
    earlier = [{**call["function"], "id": call.get("id", "")} for call in calls]
    text = "" if content is None and role == "assistant" else joined(content, where)
    more = {"tool_call_id": given["tool_call_id"]} if "tool_call_id" in given else {}
    return turn(role, text, where, earlier, **more)


class _Chat(Answer):
    kind = "chatcmpl"

    def whole(self, tokens: int, made: Sequence[Turn]) -> dict[str, Any]:
        self.tokens = tokens
        choices = []
        for index, each in enumerate(made):
            content = each.text or (None if each.calls else "")
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            if each.calls:
                message["tool_calls"] = [_shown(call) for call in each.calls]
            choices.append({"index": index, "finish_reason": each.reason, "message": message,
                            "logprobs": self._logprobs(each.pieces)})  # fmt: skip
        usage = self.usage(sum(each.tokens for each in made))
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": usage}

    async def streamed(self, events: AsyncGenerator[Any, None]) -> AsyncIterator[str]:
        written = 0
        async with aclosing(events) as told:
            async for event in told:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Began):
                    self.tokens = event.tokens
                    for index in range(self.asked.n):
                        yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
                elif isinstance(event, Said):
                    scores = self._logprobs([event.piece]) if event.piece is not None else None
                    yield self._chunk(event.index, {"content": event.text}, logprobs=scores)
                elif isinstance(event, Called):
                    yield self._chunk(event.index, {"tool_calls": [{"index": event.place, **_shown(event)}]})
                else:
                    written += event.tokens
                    yield self._chunk(event.index, {}, finish=event.reason)
        if self.counted:
            last = {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage(written)}
            yield f"data: {json.dumps(last)}\n\n"

    def _chunk(self, index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        more = {"usage": None} if self.counted else {}
        body = {**self.head, "object": "chat.completion.chunk", "choices": [choice], **more}
        return f"data: {json.dumps(body)}\n\n"

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not getattr(self.asked, "logprobs", False):
            return None
        return {"content": [_scored(each) for each in pieces if each.logprob is not None], "refusal": None}


def _shown(called: Called) -> dict[str, Any]:
    return {"id": called.id, "type": "function",
            "function": {"name": called.call.name, "arguments": called.call.arguments}}  # fmt: skip


def _scored(piece: Piece) -> dict[str, Any]:
    top = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in piece.named]
    return {"token": piece.name, "logprob": piece.logprob, "bytes": list(piece.name.encode()), "top_logprobs": top}
