"""`/v1/make` and `/v1/routes`: the whole table over HTTP."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Result, Warn
from conjure.media.kinds import looks_like_file
from conjure.serve.batches import alike
from conjure.serve.errors import ApiError, Json, told
from conjure.serve.state import Server, server
from conjure.serve.wire import HEARTBEAT, Room, event_name, medium, plain, received, sent, sse, suffix_for
from conjure.serve.worker import Ticket
from conjure.tasks.inputs import FILE, LOCAL, OR_SAMPLE, SOUND_FILE, Given, understand
from conjure.tasks.make import Plan, edges_of, plan, record
from conjure.tasks.table import Edge, everything, resolve

STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers of a stream, which no proxy may gather up."""
EITHER: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
"""In the OpenAPI document: the answer may be a stream, too."""
DIGEST = "digest"
"""Names a medium of a stored wish by its content."""
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
    return {"object": "list", "data": _routes(tuple(everything()))}


@functools.lru_cache(maxsize=2)
def _routes(edges: tuple[Edge, ...]) -> list[dict[str, Any]]:
    return [route(edge) for edge in edges]


def route(edge: Edge) -> dict[str, Any]:
    """One edge as plain values."""
    options = resolve(edge).Options
    schema = TypeAdapter(options).json_schema()
    return {"inputs": list(edge.inputs), "several": edge.several, "output": edge.output, "task": edge.task,
            "module": edge.module, "model": edge.model, "summary": edge.summary, "options": schema}  # fmt: skip


@router.post("/v1/make", responses=EITHER)
async def make(wish: Wish, request: Request) -> Response:
    """Anything into anything that the table leads to; the answer as a whole, or as events where `stream` is set."""
    home = server(request)
    settled = await asyncio.to_thread(planned, home, wish)
    suffix = suffix_for(settled.output, wish.to if wish.to != settled.output else "")
    previews = Previews(most=None if wish.stream and wish.previews else 0)
    ticket = home.worker.submit(lambda: working(home, settled, keep=wish.history, previews=previews),
                                alike=alike(settled))  # fmt: skip
    if wish.stream:
        return StreamingResponse(_streamed(ticket, suffix, previews), media_type="text/event-stream", headers=STREAM)
    done = await made(ticket, request)
    return await asyncio.to_thread(lambda: Json(body(done, suffix)))


def planned(home: Server, wish: Wish, file: Callable[[str], bytes] | None = None) -> Plan:
    """The plan for a wish, whose media are decoded here: no work for an event loop. `file` gives the bytes of media
    that a stored wish names by their digest."""

    room = Room(home.settings.limits)

    def read(value: Any, param: str) -> Any:
        if file is not None and isinstance(value, Mapping) and DIGEST in value:
            return room.take(medium(file(value[DIGEST]), param), param)
        return room.take(received(value, param, home.fetch), param)

    most = home.settings.limits.files
    if (came := sum(isinstance(each, Mapping) for each in (*wish.inputs, *wish.options.values()))) > most:
        raise ApiError(413, f"inputs: expected at most {most} files, got {came}", param="inputs")
    inputs = [read(each, f"inputs[{place}]") for place, each in enumerate(wish.inputs)]
    options = {name: read(each, f"options.{name}") if isinstance(each, Mapping) else each
               for name, each in wish.options.items()}  # fmt: skip
    return planned_for(home, inputs, to=wish.to, model=wish.model, task=wish.task, seed=wish.seed, count=wish.count,
                       options=options)  # fmt: skip


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
                given[name] = received(value, f"options.{name}", home.fetch)
        media = tuple(map(understand, inputs))
        _no_paths(edges_of(media, given, to=to or None, model=named, task=task or None)[-1], given, media)
        return plan(*media, to=to or None, model=named, task=task or None, seed=seed, count=count, **given)
    except ConjureError as error:
        raise told(error) from None
    except TypeError as error:  # an option called as an argument of `plan` is
        raise ApiError(400, f"options: {error}", param="options") from None


def _no_paths(edge: Edge, given: Mapping[str, Any], media: Sequence[Given]) -> None:
    """A text where a picture or a sound is expected would be read as the name of a file on the server. Names of files
    are taken for what came along under these names alone."""
    fields = getattr(resolve(edge).Options, "__pydantic_fields__", {})
    for name, field in fields.items():
        extra = field.json_schema_extra or {}
        if extra in (FILE, SOUND_FILE) and isinstance(given.get(name), str) and given[name]:
            what = "sound" if extra == SOUND_FILE else "picture"
            raise ApiError(400, f'options.{name}: expected a {what}, {{"b64": ...}}', param=f"options.{name}")
        if extra == OR_SAMPLE and looks_like_file(str(given.get(name) or "")):
            raise ApiError(400, f"options.{name}: expected a name, got that of a file", param=f"options.{name}",
                           code="not_over_http")  # fmt: skip
        came = [each.name for each in media if each.option == name]
        if extra == LOCAL and given.get(name) and given[name] != came:
            raise ApiError(400, f"options.{name}: names files of this machine, which clients may not",
                           param=f"options.{name}", code="not_over_http")  # fmt: skip


class Previews:
    """Which previews are decoded, in the worker's thread and nowhere else: at most `most` (None for any number), no
    more than `AHEAD` that nobody has taken yet, those that are asked for, and within a `share` of the time."""

    CHEAP = 0.25
    AHEAD = 8

    def __init__(
        self, *, most: int | None = None, share: float = 1.0, asked: Callable[[], bool] | None = None
    ) -> None:
        self._left, self._share, self._asked = most, share, asked
        self._ahead, self._next = 0, 0.0

    def take(self) -> None:
        """Somebody has taken one: there is room for another."""
        self._ahead -= 1

    def decoded(self, event: Preview) -> Preview | None:
        """The same with its medium made; None for one that is not wanted."""
        began = time.monotonic()
        if self._left == 0 or began < self._next or (self._asked is not None and not self._asked()):
            return None
        if self._ahead >= self.AHEAD:
            return None
        seen = event.medium
        self._ahead += 0 if self._asked is not None else 1
        self._left = None if self._left is None else self._left - 1
        ended = time.monotonic()
        self._next = ended + (ended - began) * (1 / self._share - 1)
        return Preview(lambda: seen)


def working(home: Server, settled: Plan, *, keep: bool, previews: Previews | None = None) -> Iterator[Any]:
    """The plan's events in the worker's thread, and `Made` at the end; None while a batch gathers. Without a word about
    `previews`, those come that cost little."""
    began, warnings = time.monotonic(), []
    wanted = Previews(share=Previews.CHEAP, asked=lambda: True) if previews is None else previews
    for event in home.batches.run(settled):
        if isinstance(event, Preview):
            if (decoded := wanted.decoded(event)) is not None:
                yield decoded
        elif isinstance(event, Result):
            seconds = time.monotonic() - began
            home.metrics.made.labels(settled.output).inc(len(event.media))
            numbers = home.keep(settled, event.media, seconds) if keep else ()
            yield Made(plan=settled, result=event, warnings=tuple(warnings), seconds=seconds, numbers=tuple(numbers))
        else:
            if isinstance(event, Warn):
                warnings.append(event.text)
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


async def _streamed(ticket: Ticket, suffix: str, previews: Previews) -> AsyncIterator[str]:
    try:
        async with aclosing(ticket.events(heartbeat=PING)) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Made):
                    yield sse("result", await asyncio.to_thread(body, event, suffix))
                elif isinstance(event, Preview):
                    yield sse("preview", await asyncio.to_thread(plain, event))
                    previews.take()
                else:
                    yield sse(event_name(event), plain(event))
    except ApiError as error:
        yield sse("error", error.body())
    except ConjureError as error:
        yield sse("error", told(error).body())


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are plain values."""
    return {name: value for name, value in facts.items() if isinstance(value, str | int | float | bool | list | dict)}
