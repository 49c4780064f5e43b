"""`/v1/messages`: the same talks in the shape of the Anthropic API."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure.core.errors import ConjureError
from conjure.serve.errors import ApiError, Json, told
from conjure.serve.making import EITHER
from conjure.serve.sampling import CHAT, GLANCE, PING, bounded, known, texts_of, ticket_for
from conjure.serve.state import server
from conjure.serve.texts import Began, TextWish
from conjure.serve.turns import Called, Said, Turn, function, joined, turn, turns, whole, wish_of
from conjure.serve.wire import HEARTBEAT, sse

PASSED = frozenset("metadata service_tier cache_control thinking".split())
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}

router = APIRouter()


class Talk(BaseModel):
    model_config = ConfigDict(extra="allow")

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    model: str = ""
    system: str | list[dict[str, Any]] = ""
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    stop_sequences: list[str] = Field(default_factory=list)
    stream: bool = False
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: dict[str, Any] = Field(default_factory=lambda: {"type": "auto"})


class Counted(BaseModel):
    model_config = ConfigDict(extra="allow")

    messages: list[dict[str, Any]] = Field(min_length=1)
    model: str = ""
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = Field(default_factory=list)


@router.post("/v1/messages", responses=EITHER)
async def messages(asked: Talk, request: Request) -> Response:
    """The next turn of a talk."""
    known(asked.model_extra or {}, PASSED)
    if (thinking := (asked.model_extra or {}).get("thinking")) and thinking != {"type": "disabled"}:
        raise ApiError(400, "thinking: these models do not", param="thinking", code="unsupported_value")
    settings = {
        "temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k, "tokens": asked.max_tokens,
        "stop": tuple(asked.stop_sequences) or None,
    }  # fmt: skip
    kind = str(asked.tool_choice.get("type", "auto"))
    choice = {"name": asked.tool_choice.get("name")} if kind == "tool" else CHOICES.get(kind, kind)
    wish, names = wish_of(
        _turns(asked.system, asked.messages), _tools(asked.tools), choice, None, seed=secrets.randbits(32),
        settings={name: value for name, value in settings.items() if value is not None},
    )  # fmt: skip
    single = bool(asked.tool_choice.get("disable_parallel_tool_use"))
    ticket, model = ticket_for(server(request), asked.model or CHAT, wish), asked.model or CHAT
    head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": model}
    if asked.stream:
        events = _streamed(head, turns(texts_of(ticket, PING), names, single=single))
        return StreamingResponse(events, media_type="text/event-stream",
                                 headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # fmt: skip
    tokens, (made,) = await whole(turns(texts_of(ticket, GLANCE), names, single=single), request)
    return Json(head | {
        "content": _blocks(made), "stop_reason": REASONS[made.reason], "stop_sequence": None,
        "usage": {"input_tokens": tokens, "output_tokens": made.tokens},
    })  # fmt: skip


@router.post("/v1/messages/count_tokens")
async def count_tokens(asked: Counted, request: Request) -> dict[str, int]:
    """How many tokens a talk has so far."""
    known(asked.model_extra or {}, PASSED | {"tool_choice"})
    home = server(request)
    path = home.keeper.path(asked.model or CHAT)
    shown = [{"type": "function", "function": each} for each in _tools(asked.tools)]
    wish = TextWish(messages=_turns(asked.system, asked.messages), tools=shown)
    bounded(home, wish)
    ticket = home.worker.submit(lambda: iter([home.keeper.writer(path).count(wish)]))
    found = [event async for event in ticket.events() if isinstance(event, int)]
    return {"input_tokens": found[0]}


def _turns(system: str | list[dict[str, Any]], given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [turn("system", joined(system, "system"), "system")] if system else []
    for place, each in enumerate(given):
        found += _message(each, f"messages[{place}]")
    return found


def _message(given: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """One message, and one of its own for each result of a tool in it."""
    role, content = given.get("role"), given.get("content")
    if role not in ("user", "assistant"):
        raise ApiError(400, f"{where}.role: expected user or assistant, got {role!r}", param=where)
    if not isinstance(content, list):
        return [turn(role, joined(content, where), where)]
    results = [part for part in content if isinstance(part, Mapping) and part.get("type") == "tool_result"]
    calls = [part for part in content if isinstance(part, Mapping) and part.get("type") == "tool_use"]
    rest = [part for part in content if part not in results and part not in calls]
    earlier = [{"name": call.get("name"), "arguments": call.get("input") or {}, "id": call.get("id")} for call in calls]
    found = [
        turn("tool", joined(each.get("content") or "", where), where, tool_call_id=each.get("tool_use_id", ""))
        for each in results
    ]
    if rest or earlier or not found:
        found.append(turn(role, joined(rest, where), where, earlier))
    return found


def _tools(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    for place, each in enumerate(given):
        if each.get("type", "custom") not in ("custom", None):
            raise ApiError(400, f"tools[{place}]: expected a tool of yours, got {each['type']!r:.60}", param="tools",
                           code="unsupported_value")  # fmt: skip
    return [function(each, f"tools[{place}]") for place, each in enumerate(given)]


def _blocks(made: Turn) -> list[dict[str, Any]]:
    said = [{"type": "text", "text": made.text}] if made.text or not made.calls else []
    return said + [{**_call(each), "input": json.loads(each.call.arguments)} for each in made.calls]


def _call(called: Called) -> dict[str, Any]:
    return {"type": "tool_use", "id": called.id, "name": called.call.name, "input": {}}


async def _streamed(head: dict[str, Any], events: AsyncGenerator[Any, None]) -> AsyncIterator[str]:
    index, speaking = -1, False

    def event(kind: str, **more: Any) -> str:
        return sse(kind, {"type": kind, **more})

    try:
        async with aclosing(events) as came:
            async for each in came:
                if each is None:
                    yield HEARTBEAT
                elif isinstance(each, Began):
                    usage = {"input_tokens": each.tokens, "output_tokens": 0}
                    begun = head | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
                    yield event("message_start", message=begun)
                elif isinstance(each, Said):
                    if not speaking:
                        index, speaking = index + 1, True
                        yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
                    delta = {"type": "text_delta", "text": each.text}
                    yield event("content_block_delta", index=index, delta=delta)
                else:
                    if speaking:
                        yield event("content_block_stop", index=index)
                        speaking = False
                    if isinstance(each, Called):
                        index += 1
                        yield event("content_block_start", index=index, content_block=_call(each))
                        delta = {"type": "input_json_delta", "partial_json": each.call.arguments}
                        yield event("content_block_delta", index=index, delta=delta)
                        yield event("content_block_stop", index=index)
                    else:
                        over = {"stop_reason": REASONS[each.reason], "stop_sequence": None}
                        yield event("message_delta", delta=over, usage={"output_tokens": each.tokens})
        yield event("message_stop")
    except (ApiError, ConjureError) as error:
        yield sse("error", {"type": "error", **(error if isinstance(error, ApiError) else told(error)).body()})
