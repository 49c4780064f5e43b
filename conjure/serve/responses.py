"""`/v1/responses`: the same talks in the newer shape of the OpenAI API. No request is kept for the next one."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure.core.errors import ConjureError
from conjure.serve.chat import form_of
from conjure.serve.errors import ApiError, Json, told
from conjure.serve.making import EITHER
from conjure.serve.sampling import CHAT, GLANCE, PASSED, PING, known, refused, texts_of, ticket_for
from conjure.serve.state import server
from conjure.serve.texts import Began
from conjure.serve.turns import Called, Said, Turn, function, joined, turn, turns, whole, wish_of
from conjure.serve.wire import HEARTBEAT, sse

HARMLESS = PASSED | frozenset("reasoning truncation include".split())
"""A text too long is refused, however it should have been shortened; how a model reasons is a hint."""
INCLUDED = ("reasoning.encrypted_content",)
"""What may be included: these models have no reasoning that would have to be left out."""

router = APIRouter()


class Wanted(BaseModel):
    model_config = ConfigDict(extra="allow")

    input: str | list[dict[str, Any]]
    model: str = ""
    instructions: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: dict[str, Any] | None = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    stream: bool = False
    seed: int | None = None


@router.post("/v1/responses", responses=EITHER)
async def responses(asked: Wanted, request: Request) -> Response:
    """The next turn of a talk."""
    known(asked.model_extra or {}, HARMLESS)
    _no_more(asked)
    settings = {"temperature": asked.temperature, "top_p": asked.top_p, "tokens": asked.max_output_tokens}
    seed = secrets.randbits(32) if asked.seed is None else asked.seed % 2**63
    wish, names = wish_of(
        _turns(asked.instructions, asked.input), [_tool(each, f"tools[{n}]") for n, each in enumerate(asked.tools)],
        asked.tool_choice, _form(asked.text), seed=seed,
        settings={name: value for name, value in settings.items() if value is not None},
    )  # fmt: skip
    ticket = ticket_for(server(request), asked.model or CHAT, wish)
    answer, single = _Answer(asked), not asked.parallel_tool_calls
    if asked.stream:
        events = answer.streamed(turns(texts_of(ticket, PING), names, single=single))
        return StreamingResponse(events, media_type="text/event-stream",
                                 headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # fmt: skip
    tokens, (made,) = await whole(turns(texts_of(ticket, GLANCE), names, single=single), request)
    return Json(answer.whole(tokens, made))


def _no_more(asked: Wanted) -> None:
    """What the parameters that are passed over must not ask for."""
    extra = asked.model_extra or {}
    refused(extra, {"truncation": ("auto", "disabled")})
    included = extra.get("include") or []
    for each in included if isinstance(included, list) else [included]:
        if each not in INCLUDED:
            raise ApiError(400, f"include: {each!r:.100} is not supported", param="include", code="unsupported_value")
    known(asked.text or {}, frozenset({"format", "verbosity"}))


def _turns(instructions: str | None, given: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [turn("system", instructions, "instructions")] if instructions else []
    if isinstance(given, str):
        return [*found, turn("user", given, "input")]
    for place, item in enumerate(given):
        where, kind = f"input[{place}]", item.get("type", "message")
        if kind == "message":
            found.append(turn(item.get("role"), joined(item.get("content"), where), where))
        elif kind == "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments"), "id": item.get("call_id")}
            found.append(turn("assistant", "", where, [call]))
        elif kind == "function_call_output":
            output = joined(item.get("output"), where)
            found.append(turn("tool", output, where, tool_call_id=item.get("call_id", "")))
        elif kind != "reasoning":
            raise ApiError(400, f"{where}: items of type {kind!r} are not read here", param=where)
    if not found:
        raise ApiError(400, "input: expected at least one item", param="input")
    return found


def _tool(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    if given.get("type") != "function":
        raise ApiError(400, f"{where}: expected a function, got {given.get('type')!r}", param=where)
    return function(given, where)


def _form(text: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    form = (text or {}).get("format") or {"type": "text"}
    if not isinstance(form, Mapping):
        raise ApiError(400, "text.format: expected an object", param="text.format")
    return form_of({**form, "json_schema": form} if form.get("type") == "json_schema" else form)


class _Answer:
    """A response as it grows; its events are numbered."""

    def __init__(self, asked: Wanted) -> None:
        self.asked, self.number, self.tokens = asked, -1, 0
        self.id, self.created = f"resp_{secrets.token_hex(16)}", int(time.time())
        self.output: list[dict[str, Any]] = []

    def whole(self, tokens: int, made: Turn) -> dict[str, Any]:
        self.tokens = tokens
        if made.text or not made.calls:
            self.output.append(self._message(made.text))
        self.output += [_call(each) for each in made.calls]
        return self._shown(made.reason, made.tokens)

    async def streamed(self, events: AsyncGenerator[Any, None]) -> AsyncIterator[str]:
        said: dict[str, Any] | None = None
        try:
            async with aclosing(events) as came:
                async for each in came:
                    if each is None:
                        yield HEARTBEAT
                    elif isinstance(each, Began):
                        self.tokens = each.tokens
                        yield self._event("response.created", response=self._shown())
                        yield self._event("response.in_progress", response=self._shown())
                    elif isinstance(each, Said):
                        if said is None:
                            said = self._message("", status="in_progress")
                            for line in self._opened(said):
                                yield line
                        part = said["content"][0]
                        part["text"] += each.text
                        yield self._event("response.output_text.delta", item_id=said["id"], content_index=0,
                                          output_index=len(self.output), delta=each.text, logprobs=[])  # fmt: skip
                    else:
                        if said is not None:
                            for line in self._closed(said):
                                yield line
                            said = None
                        if isinstance(each, Called):
                            for line in self._called(_call(each)):
                                yield line
                            continue
                        ended = "response.incomplete" if each.reason == "length" else "response.completed"
                        yield self._event(ended, response=self._shown(each.reason, each.tokens))
        except (ApiError, ConjureError) as error:
            body = (error if isinstance(error, ApiError) else told(error)).body()["error"]
            yield self._event("error", code=body["code"] or body["type"], message=body["message"], param=body["param"])

    def _opened(self, item: dict[str, Any]) -> list[str]:
        place, part = len(self.output), {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            self._event("response.output_item.added", output_index=place, item={**item, "content": []}),
            self._event("response.content_part.added", item_id=item["id"], output_index=place, content_index=0,
                        part=part),
        ]  # fmt: skip

    def _closed(self, item: dict[str, Any]) -> list[str]:
        place, part = len(self.output), item["content"][0]
        item["status"] = "completed"
        self.output.append(item)
        at = {"item_id": item["id"], "output_index": place, "content_index": 0}
        return [
            self._event("response.output_text.done", **at, text=part["text"], logprobs=[]),
            self._event("response.content_part.done", **at, part=part),
            self._event("response.output_item.done", output_index=place, item=item),
        ]

    def _called(self, item: dict[str, Any]) -> list[str]:
        place = len(self.output)
        self.output.append(item)
        begun = {**item, "arguments": "", "status": "in_progress"}
        at = {"item_id": item["id"], "output_index": place}
        return [
            self._event("response.output_item.added", output_index=place, item=begun),
            self._event("response.function_call_arguments.delta", **at, delta=item["arguments"]),
            self._event("response.function_call_arguments.done", **at, arguments=item["arguments"], name=item["name"]),
            self._event("response.output_item.done", output_index=place, item=item),
        ]

    def _message(self, text: str, status: str = "completed") -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": "message", "id": f"msg_{secrets.token_hex(16)}", "status": status, "role": "assistant",
                "content": [part]}  # fmt: skip

    def _event(self, kind: str, **more: Any) -> str:
        self.number += 1
        return sse(kind, {"type": kind, "sequence_number": self.number, **more})

    def _shown(self, reason: str = "", written: int = 0) -> dict[str, Any]:
        """The response as it stands: without a reason it is still under way."""
        status = "in_progress" if not reason else "incomplete" if reason == "length" else "completed"
        usage = {
            "input_tokens": self.tokens, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.tokens + written,
        }  # fmt: skip
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self.asked.instructions, "model": self.asked.model or CHAT, "output": list(self.output),
            "parallel_tool_calls": self.asked.parallel_tool_calls, "temperature": self.asked.temperature,
            "tool_choice": self.asked.tool_choice, "tools": self.asked.tools, "top_p": self.asked.top_p,
            "max_output_tokens": self.asked.max_output_tokens, "previous_response_id": None,
            "metadata": (self.asked.model_extra or {}).get("metadata") or {},
            "text": self.asked.text or {"format": {"type": "text"}}, "usage": usage if reason else None,
        }  # fmt: skip


def _call(called: Called) -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{secrets.token_hex(16)}", "call_id": called.id, "status": "completed",
            "name": called.call.name, "arguments": called.call.arguments}  # fmt: skip
