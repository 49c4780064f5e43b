"""`/v1/make` and `/v1/routes`: the whole table over HTTP."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Result, Warn
from conjure.serve.errors import ApiError, told
from conjure.serve.state import Server, server
from conjure.serve.wire import HEARTBEAT, event_name, plain, received, sent, sse, suffix_for
from conjure.serve.worker import Ticket
from conjure.tasks.inputs import FILE, LOCAL
from conjure.tasks.make import Plan, plan, record, run
from conjure.tasks.table import Edge, everything, resolve

PING = 15.0  # seconds of silence after which a stream says that it is still there
GLANCE = 0.5  # seconds after which whoever waits for the whole looks whether its client is still there

router = APIRouter()


class Wish(BaseModel):
    """What is to be made of what."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[str | dict[str, Any]] = Field(min_length=1, description="texts, {text}, {b64} or {url: data:...}")
    to: str = Field(default="", description="the kind or format to make: image, png, text")
    model: str = ""
    task: str = ""
    seed: int | None = Field(default=None, ge=0, lt=2**53)
    count: int = Field(default=1, ge=1)
    options: dict[str, Any] = Field(default_factory=dict, description="the edge's own; GET /v1/routes lists them")
    stream: bool = Field(default=False, description="server-sent events as the work goes on")
    previews: bool = Field(default=False, description="with stream: how the result looks so far")
    history: bool = Field(default=True, description="keep it in the server's history")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of a plan: the media with their records, the facts, and what was warned of."""

    plan: Plan
    result: Result
    warnings: tuple[str, ...]
    seconds: float
    numbers: tuple[int, ...]
    """Of the results in the history; none where it keeps none."""


@router.get("/v1/routes")
def routes() -> dict[str, Any]:
    """What can become what, and the options of each way as a JSON schema."""
    return {"object": "list", "data": [route(edge) for edge in everything()]}


def route(edge: Edge) -> dict[str, Any]:
    """One edge as plain values."""
    options = resolve(edge).Options
    schema = TypeAdapter(options).json_schema()
    return {"inputs": list(edge.inputs), "several": edge.several, "output": edge.output, "task": edge.task,
            "module": edge.module, "model": edge.model, "summary": edge.summary, "options": schema}  # fmt: skip


@router.post("/v1/make")
async def make(wish: Wish, request: Request) -> Response:
    """Anything into anything that the table leads to; the answer as a whole, or as events where `stream` is set."""
    home = server(request)
    inputs = [received(each, f"inputs[{place}]") for place, each in enumerate(wish.inputs)]
    planned = planned_for(home, inputs, to=wish.to, model=wish.model, task=wish.task, seed=wish.seed, count=wish.count,
                          options=wish.options)  # fmt: skip
    suffix = suffix_for(planned.output, wish.to if wish.to != planned.output else "")
    ticket = home.worker.submit(lambda: working(home, planned, keep=wish.history))
    if wish.stream:
        return StreamingResponse(_streamed(ticket, suffix, wish.previews), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # fmt: skip
    return JSONResponse(body(await made(ticket, request), suffix))


def planned_for(
    home: Server, inputs: Sequence[Any], *, to: str = "", model: str = "", task: str = "", seed: int | None = None,
    count: int = 1, options: Mapping[str, Any] | None = None,
) -> Plan:  # fmt: skip
    """The plan for a client's wish, or the error that names what is wrong with it. No string of a client is ever the
    name of a file here: texts are texts, and options that name pictures take the pictures themselves."""
    if count > home.settings.limits.count:
        raise ApiError(400, f"count: expected at most {home.settings.limits.count}, got {count}", param="count")
    named = home.keeper.path(model) if model else None
    given = dict(options or {})
    try:
        for name, value in given.items():
            if isinstance(value, Mapping):
                given[name] = received(value, f"options.{name}")
        made_of = plan(*inputs, to=to or None, model=named, task=task or None, seed=seed, count=count, **given)
        _no_paths(made_of.edges[-1], given)
        return made_of
    except ConjureError as error:
        raise told(error) from None
    except TypeError as error:  # an option called as an argument of `plan` is
        raise ApiError(400, f"options: {error}", param="options") from None


def _no_paths(edge: Edge, given: Mapping[str, Any]) -> None:
    """A text where a picture is expected would be read as the name of a file on the server."""
    fields = getattr(resolve(edge).Options, "__pydantic_fields__", {})
    for name, field in fields.items():
        extra = field.json_schema_extra or {}
        if extra == FILE and isinstance(given.get(name), str) and given[name]:
            raise ApiError(400, f'options.{name}: expected a picture, {{"b64": ...}}', param=f"options.{name}")
        if extra == LOCAL and given.get(name):
            raise ApiError(400, f"options.{name}: names files of this machine, which clients may not",
                           param=f"options.{name}", code="not_over_http")  # fmt: skip


def working(home: Server, planned: Plan, *, keep: bool) -> Iterator[Any]:
    """The plan's events in the worker's thread, and `Made` at the end."""
    began, warnings = time.monotonic(), []
    for event in run(planned, home.keeper.ready):
        if isinstance(event, Warn):
            warnings.append(event.text)
        if isinstance(event, Result):
            seconds = time.monotonic() - began
            numbers = home.keep(planned, event.media, seconds) if keep else ()
            yield Made(plan=planned, result=event, warnings=tuple(warnings), seconds=seconds, numbers=tuple(numbers))
        else:
            yield event


async def made(ticket: Ticket, request: Request) -> Made:
    """The end of the work; where the client goes away before, the work ends too."""
    looked = time.monotonic()
    async with aclosing(ticket.events(heartbeat=GLANCE)) as events:
        async for event in events:
            if isinstance(event, Made):
                return event
            if time.monotonic() - looked >= GLANCE:
                looked = time.monotonic()
                if await request.is_disconnected():
                    break
    raise ApiError(499, "the client went away", code="client_closed_request")


def body(done: Made, suffix: str) -> dict[str, Any]:
    """The whole answer."""
    edge = done.plan.edges[-1]
    outputs = []
    for index, each in enumerate(done.result.media):
        facts = sent(each, suffix, record(done.plan, index))
        outputs.append(facts | ({"history": done.numbers[index]} if done.numbers else {}))
    return {"object": "made", "created": int(time.time()), "task": edge.task, "model": done.plan.models[-1],
            "seeds": list(done.plan.seeds), "outputs": outputs, "facts": _facts(done.result.facts),
            "warnings": list(done.warnings), "seconds": round(done.seconds, 3)}  # fmt: skip


async def _streamed(ticket: Ticket, suffix: str, previews: bool) -> AsyncIterator[str]:
    try:
        async with aclosing(ticket.events(heartbeat=PING)) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Made):
                    yield sse("result", body(event, suffix))
                elif not isinstance(event, Preview) or previews:
                    yield sse(event_name(event), plain(event, previews=previews) or {})
    except ApiError as error:
        yield sse("error", error.body())
    except ConjureError as error:
        yield sse("error", told(error).body())


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are plain values."""
    return {name: value for name, value in facts.items() if isinstance(value, str | int | float | bool | list | dict)}
