"""What all endpoints that write texts share: what a request says of sampling, and what comes back of the worker."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Container, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure.core.errors import ConjureError
from conjure.decoding.rows import Generation
from conjure.serve.errors import ApiError, told
from conjure.serve.state import Server
from conjure.serve.texts import LONGEST, Began, Ended, Piece, TextWish
from conjure.serve.worker import Ticket, Waiting

CHAT, TEXT = "starter/chat", "starter/story"
"""The models that write where a request names none."""
PING = 15.0
GLANCE = 0.5
"""Seconds of silence: after the first a stream says that it is still there, after the second the whole answer looks
whether its client is."""
FINISH = {"end": "stop", "stop": "stop", "length": "length"}
PASSED = frozenset(
    "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention verbosity "
    "reasoning_effort prediction".split()
)
"""Documented parameters that are hints or belong to the service: nothing of the answer depends on them."""
WIDEST = 64
"""Characters of a token, at most, as far as a prompt's length is judged by its characters."""
STOPS = 32
"""Stop strings of one request."""
EMPTY = (None, False, "", 0, [], {})
"""Values that ask for nothing."""
DECODING = ("top_k", "min_p", "typical_p", "repetition_penalty", "min_tokens", "no_repeat_ngram")
"""Knobs of ours that clients send besides those of the API."""


class Sampling(BaseModel):
    """What all of them take."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int = Field(default=1, ge=1, le=16)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    min_tokens: int | None = Field(default=None, ge=0)
    no_repeat_ngram: int | None = Field(default=None, ge=0)


class Answer:
    """The head that all parts of an answer have, and its count of tokens."""

    kind = ""

    def __init__(self, name: str, asked: Sampling) -> None:
        self.asked, self.tokens = asked, 0
        self.head = {"id": f"{self.kind}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}

    @property
    def counted(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool((self.asked.stream_options or {}).get("include_usage"))

    def usage(self, written: int) -> dict[str, int]:
        return {"prompt_tokens": self.tokens, "completion_tokens": written, "total_tokens": self.tokens + written}


def settings_of(asked: Sampling, tokens: int | None, seen: Iterable[str] = ()) -> dict[str, Any]:
    """The knobs of `Decoding` that a request sets; what nobody knows is named, not passed over, but for what the caller
    has `seen` to."""
    extra = asked.model_extra or {}
    known(extra, PASSED | frozenset(seen))
    if asked.stream_options is not None and not asked.stream:
        raise ApiError(400, "stream_options goes with stream: true", param="stream_options")
    known(asked.stream_options or {}, frozenset({"include_usage", "include_obfuscation"}))
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stops) > STOPS:
        raise ApiError(400, f"stop: expected at most {STOPS}, got {len(stops)}", param="stop")
    given = {
        "temperature": asked.temperature, "top_p": asked.top_p, "tokens": tokens, "stop": tuple(filter(None, stops)),
        "presence_penalty": asked.presence_penalty, "frequency_penalty": asked.frequency_penalty,
        "logit_bias": {int(token): value for token, value in (asked.logit_bias or {}).items() if _whole(token)},
        **{name: getattr(asked, name) for name in DECODING},
    }  # fmt: skip
    if asked.top_k is None and asked.temperature is not None and asked.temperature > 0:
        given["top_k"] = 0  # the file's own truncation is for its own temperature
    return {name: value for name, value in given.items() if value is not None and value not in ((), {})}


def _whole(token: str) -> bool:
    if not token.lstrip("-").isdecimal():
        raise ApiError(400, f"logit_bias: expected ids of tokens, got {token!r}", param="logit_bias")
    return True


def known(extra: Mapping[str, Any], allowed: frozenset[str]) -> None:
    for name, value in extra.items():
        if name not in allowed and value not in EMPTY:
            raise ApiError(400, f"unknown or unsupported parameter: {name}", param=name, code="unknown_parameter")


def refused(given: Mapping[str, Any], allowed: Mapping[str, Container[Any]]) -> None:
    """The parameters that are taken only where they ask for what is done anyway."""
    for name, values in allowed.items():
        if (value := given.get(name)) is not None and value not in values:
            raise ApiError(400, f"{name}: {value!r:.100} is not supported", param=name, code="unsupported_value")


def seed_of(asked: Sampling) -> int:
    return int.from_bytes(os.urandom(4), "little") if asked.seed is None else asked.seed % 2**63


def ticket_for(home: Server, name: str, wish: TextWish) -> Ticket:
    path = home.keeper.path(name)
    bounded(home, wish)
    return home.worker.submit(lambda: _counted(home, name, path, wish), shared=True)


def bounded(home: Server, wish: TextWish) -> None:
    """What no model could read is not cut into tokens first, which would keep everybody waiting."""
    said = len(wish.prompt) + len(wish.ids) + sum(len(str(each.get("content") or "")) for each in wish.messages)
    if said > LONGEST * WIDEST:
        raise ApiError(413, f"the prompt has {said:,} characters, models here read {LONGEST:,} tokens",
                       code="context_length_exceeded")  # fmt: skip
    try:
        texts = [wish.prompt, wish.messages, wish.tools, wish.schema, wish.settings.get("stop")]
        json.dumps(texts, ensure_ascii=False).encode()  # `UnicodeEncodeError` for halves of pairs, which is told
    except RecursionError:
        raise ApiError(400, "expected less within each other") from None
    if home.worker.load["running"] >= (most := home.settings.limits.texts):
        raise ApiError(429, f"{most} texts are being written already", code="queue_full")


def _counted(home: Server, name: str, path: str, wish: TextWish) -> Iterator[Any]:
    """What is written, counted for the metrics."""
    read, written = (home.metrics.tokens.labels(name, way) for way in ("read", "written"))
    with closing(home.keeper.writer(path).write(wish)) as events:
        for event in events:
            if isinstance(event, Piece):
                written.inc()
            elif isinstance(event, Began):
                read.inc(event.tokens)
            yield event


async def texts_of(ticket: Ticket, heartbeat: float) -> AsyncGenerator[Any, None]:
    """The events of one request. Steps that brought nothing are passed over; None says every so often that
    time has passed."""
    last = time.monotonic()
    async with aclosing(ticket.events(heartbeat=heartbeat)) as events:
        async for event in events:
            if (now := time.monotonic()) - last >= heartbeat:
                last = now
                yield None
            if event is not None and not isinstance(event, Waiting):
                yield event


async def gathered(
    texts: AsyncGenerator[Any, None], request: Request
) -> tuple[int, list[Generation], list[list[Piece]]]:
    """All that comes of one wish: tokens of the prompt, the answers, and the pieces of each."""
    tokens, made, pieces = 0, {}, {}
    async with aclosing(texts) as events:
        async for event in events:
            if event is None:
                if await request.is_disconnected():
                    raise ApiError(499, "the client went away", code="client_closed_request")
            elif isinstance(event, Began):
                tokens = event.tokens
            elif isinstance(event, Piece):
                pieces.setdefault(event.index, []).append(event)
            elif isinstance(event, Ended):
                made[event.index] = event.made
    order = sorted(made)
    return tokens, [made[k] for k in order], [pieces.get(k, []) for k in order]


def streaming(lines: AsyncIterator[str]) -> StreamingResponse:
    async def closed() -> AsyncIterator[str]:
        try:
            async for line in lines:
                yield line
            yield "data: [DONE]\n\n"
        except (ApiError, ConjureError) as error:
            body = (error if isinstance(error, ApiError) else told(error)).body()
            yield f"data: {json.dumps(body)}\n\n"

    return StreamingResponse(closed(), media_type="text/event-stream",
                             headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})  # fmt: skip
