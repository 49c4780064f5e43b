"""`/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`: texts as clients of the OpenAI API ask for them."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure.core.errors import ConjureError
from conjure.decoding.rows import Generation
from conjure.serve.errors import ApiError, told
from conjure.serve.state import Server, server
from conjure.serve.texts import Began, Ended, Piece, TextWish
from conjure.serve.wire import HEARTBEAT
from conjure.serve.worker import Ticket, Waiting

CHAT, TEXT = "starter/chat", "starter/story"
PING = 15.0
FINISH = {"end": "stop", "stop": "stop", "length": "length"}
PASSED = frozenset(
    "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention verbosity "
    "reasoning_effort prediction modalities".split()
)
"""Documented parameters that change nothing here and do no harm."""
DECODING = frozenset("top_k min_p typical_p repetition_penalty min_tokens no_repeat_ngram".split())
"""Knobs of ours that clients send besides those of the API."""

router = APIRouter()


class Sampling(BaseModel):
    """What both endpoints that write take."""

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


class Talk(Sampling):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: dict[str, Any] | None = None


class Continued(Sampling):
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool = False
    suffix: None = None
    best_of: Literal[1] | None = None
    logprobs: int | None = Field(default=None, ge=0, le=5)


class Embedded(BaseModel):
    model_config = ConfigDict(extra="allow")

    input: str | list[str] | list[int] | list[list[int]]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


@router.post("/v1/chat/completions")
async def chat(asked: Talk, request: Request) -> Response:
    """The next turn of a chat."""
    home = server(request)
    settings = _settings(asked, asked.max_completion_tokens or asked.max_tokens)
    if asked.logprobs:
        settings |= {"logprobs": True, "alternatives": asked.top_logprobs or 0}
    elif asked.top_logprobs is not None:
        raise ApiError(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
    wish = TextWish(messages=[_turn(each, place) for place, each in enumerate(asked.messages)], count=asked.n,
                    seed=_seed(asked), settings=settings, schema=_schema(asked.response_format))  # fmt: skip
    name = asked.model or CHAT
    ticket = _ticket(home, name, wish)
    answer = _Chat(name, asked)
    if asked.stream:
        return _streaming(answer.streamed(_texts(ticket, home, name, PING)))
    return JSONResponse(await answer.whole(_texts(ticket, home, name, 0.5), request))


@router.post("/v1/completions")
async def completions(asked: Continued, request: Request) -> Response:
    """What follows a text."""
    home = server(request)
    settings = _settings(asked, asked.max_tokens or 16)
    if asked.logprobs is not None:
        settings |= {"logprobs": True, "alternatives": asked.logprobs}
    prompts = _several(asked.prompt, "prompt")
    name = asked.model or TEXT
    if asked.stream and len(prompts) > 1:
        raise ApiError(400, "prompt: expected one text with stream, got several", param="prompt")
    wishes = [TextWish(count=asked.n, seed=_seed(asked), settings=settings, **_prompt(each)) for each in prompts]
    tickets = [_ticket(home, name, wish) for wish in wishes]
    echoes = [each if asked.echo and isinstance(each, str) else "" for each in prompts]
    answer = _Completion(name, asked)
    if asked.stream:
        return _streaming(answer.streamed(_texts(tickets[0], home, name, PING), echoes[0]))
    texts = [_texts(ticket, home, name, 0.5) for ticket in tickets]
    return JSONResponse(await answer.whole(texts, echoes, request))


@router.post("/v1/embeddings")
async def embeddings(asked: Embedded, request: Request) -> JSONResponse:
    """Vectors of texts."""
    home = server(request)
    _known(asked.model_extra or {}, PASSED)
    name = home.keeper.path(asked.model or TEXT)
    inputs = _several(asked.input, "input")

    def work() -> Iterator[tuple[list[list[float]], int]]:
        model = home.keeper.writer(name).model
        texts = [each if isinstance(each, str) else model.tokenizer.decode(each) for each in inputs]
        if any(not text for text in texts):
            raise ApiError(400, "input: expected texts with something in them, got an empty one", param="input")
        vectors = model.embed(texts)
        if asked.dimensions is not None:
            if asked.dimensions > vectors.shape[1]:
                raise ApiError(400, f"dimensions: this model's vectors have {vectors.shape[1]}", param="dimensions")
            vectors = vectors[:, : asked.dimensions]
            vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)
        yield vectors.tolist(), sum(len(model.tokenizer.encode(text)) for text in texts)

    ticket, found = home.worker.submit(work), None
    async with aclosing(ticket.events(heartbeat=0.5)) as events:
        async for event in events:
            if isinstance(event, tuple):
                found = event
    assert found is not None
    vectors, count = found
    data = [{"object": "embedding", "index": place, "embedding": _packed(vector, asked.encoding_format)}
            for place, vector in enumerate(vectors)]  # fmt: skip
    usage = {"prompt_tokens": count, "total_tokens": count}
    return JSONResponse({"object": "list", "data": data, "model": asked.model or TEXT, "usage": usage})


# -- what is asked for ------------------------------------------------------------------------------------------------


def _settings(asked: Sampling, tokens: int | None) -> dict[str, Any]:
    """The knobs of `Decoding` that a request sets; what nobody knows is named, not passed over."""
    extra = asked.model_extra or {}
    _known(extra, PASSED | DECODING)
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    given = {
        "temperature": asked.temperature, "top_p": asked.top_p, "tokens": tokens, "stop": tuple(filter(None, stops)),
        "presence_penalty": asked.presence_penalty, "frequency_penalty": asked.frequency_penalty,
        "logit_bias": {int(token): value for token, value in (asked.logit_bias or {}).items() if _whole(token)},
        **{name: value for name, value in extra.items() if name in DECODING},
    }  # fmt: skip
    if asked.temperature is not None and asked.temperature > 0:
        given.setdefault("top_k", 0)  # the file's own truncation is for its own temperature
    return {name: value for name, value in given.items() if value is not None and value not in ((), {})}


def _whole(token: str) -> bool:
    if not token.lstrip("-").isdecimal():
        raise ApiError(400, f"logit_bias: expected ids of tokens, got {token!r}", param="logit_bias")
    return True


def _known(extra: Mapping[str, Any], allowed: frozenset[str]) -> None:
    for name, value in extra.items():
        if name not in allowed and value is not None:
            raise ApiError(400, f"unknown or unsupported parameter: {name}", param=name, code="unknown_parameter")


def _seed(asked: Sampling) -> int:
    return int.from_bytes(os.urandom(4), "little") if asked.seed is None else asked.seed % 2**63


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
    return {**message, "role": "system" if role == "developer" else role, "content": content}


def _schema(wanted: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
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


def _several(given: str | Sequence[Any], param: str) -> list[str | list[int]]:
    """The texts, or lists of ids, in one field."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise ApiError(400, f"{param}: expected at least one text", param=param)
    return [list(given)] if isinstance(given[0], int) else list(given)


def _prompt(each: str | list[int]) -> dict[str, Any]:
    if not each:
        raise ApiError(400, "prompt: expected a text, got an empty one", param="prompt")
    return {"prompt": each} if isinstance(each, str) else {"ids": each}


def _ticket(home: Server, name: str, wish: TextWish) -> Ticket:
    path = home.keeper.path(name)
    return home.worker.submit(lambda: home.keeper.writer(path).write(wish), shared=True)


async def _texts(ticket: Ticket, home: Server, name: str, heartbeat: float) -> AsyncGenerator[Any, None]:
    """The events of one request. Steps that brought nothing are passed over; None says that time has passed."""
    last = time.monotonic()
    async with aclosing(ticket.events(heartbeat=heartbeat)) as events:
        async for event in events:
            now = time.monotonic()
            if event is None or isinstance(event, Waiting):
                if now - last >= heartbeat:
                    last = now
                    yield None
                continue
            last = now
            yield event


# -- what is answered -------------------------------------------------------------------------------------------------


class _Answer:
    """What the two shapes have in common. Names of tokens need the model, which the worker holds: pieces bring them."""

    kind, chunk = "", ""

    def __init__(self, name: str, asked: Sampling) -> None:
        self.asked, self.tokens = asked, 0
        self.head = {"id": f"{self.kind}-{secrets.token_hex(12)}", "created": int(time.time()), "model": name}

    @property
    def counted(self) -> bool:
        return bool((self.asked.stream_options or {}).get("include_usage"))

    def usage(self, written: int) -> dict[str, int]:
        return {"prompt_tokens": self.tokens, "completion_tokens": written, "total_tokens": self.tokens + written}


async def _gathered(
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


class _Chat(_Answer):
    kind = "chatcmpl"

    async def whole(self, texts: AsyncGenerator[Any, None], request: Request) -> dict[str, Any]:
        self.tokens, made, pieces = await _gathered(texts, request)
        choices = [
            {
                "index": index, "finish_reason": FINISH[each.ended],
                "message": {"role": "assistant", "content": each.text.lstrip(" "), "refusal": None},
                "logprobs": self._logprobs(pieces[index]),
            }
            for index, each in enumerate(made)
        ]  # fmt: skip
        written = sum(len(each.ids) for each in made)
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage(written)}

    async def streamed(self, texts: AsyncGenerator[Any, None]) -> AsyncIterator[str]:
        begun: set[int] = set()
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
                    if text:
                        begun.add(event.index)
                    if text or event.logprob is not None:
                        yield self._chunk(event.index, {"content": text}, logprobs=self._logprobs([event]))
                elif isinstance(event, Ended):
                    yield self._chunk(event.index, {}, finish=FINISH[event.made.ended])
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


class _Completion(_Answer):
    kind = "cmpl"

    async def whole(
        self, texts: Sequence[AsyncGenerator[Any, None]], echoes: Sequence[str], request: Request
    ) -> dict[str, Any]:
        choices, written = [], 0
        for echo, each_text in zip(echoes, texts, strict=True):
            tokens, made, pieces = await _gathered(each_text, request)
            self.tokens += tokens
            for each, its in zip(made, pieces, strict=True):
                written += len(each.ids)
                choices.append({"index": len(choices), "text": echo + each.text, "finish_reason": FINISH[each.ended],
                                "logprobs": self._logprobs(its)})  # fmt: skip
        return {**self.head, "object": "text_completion", "choices": choices, "usage": self.usage(written)}

    async def streamed(self, texts: AsyncGenerator[Any, None], echo: str) -> AsyncIterator[str]:
        written = 0
        async with aclosing(texts) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Began):
                    self.tokens = event.tokens
                    if echo:
                        for index in range(self.asked.n):
                            yield self._chunk(index, echo)
                elif isinstance(event, Piece):
                    written += 1
                    if event.text or event.logprob is not None:
                        yield self._chunk(event.index, event.text, logprobs=self._logprobs([event]))
                elif isinstance(event, Ended):
                    yield self._chunk(event.index, "", finish=FINISH[event.made.ended])
        if self.counted:
            last = {**self.head, "object": "text_completion", "choices": [], "usage": self.usage(written)}
            yield f"data: {json.dumps(last)}\n\n"

    def _chunk(self, index: int, text: str, *, finish: str | None = None, logprobs: Any = None) -> str:
        choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}
        more = {"usage": None} if self.counted else {}
        return f"data: {json.dumps({**self.head, 'object': 'text_completion', 'choices': [choice], **more})}\n\n"

    def _logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if getattr(self.asked, "logprobs", None) is None:
            return None
        scored = [each for each in pieces if each.logprob is not None]
        likely = [dict(each.named) for each in scored]
        return {"tokens": [each.name for each in scored], "token_logprobs": [each.logprob for each in scored],
                "top_logprobs": likely, "text_offset": []}  # fmt: skip


def _scored(piece: Piece) -> dict[str, Any]:
    top = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in piece.named]
    return {"token": piece.name, "logprob": piece.logprob, "bytes": list(piece.name.encode()), "top_logprobs": top}


def _streaming(lines: AsyncIterator[str]) -> StreamingResponse:
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


def _packed(vector: Sequence[float], form: str) -> str | Sequence[float]:
    if form == "float":
        return vector
    import numpy as np

    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
