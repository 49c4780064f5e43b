"""`/v1/completions` and `/v1/embeddings`: what follows a text, and vectors of texts."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from conjure.serve.errors import ApiError, Json
from conjure.serve.making import EITHER
from conjure.serve.sampling import (
    FINISH,
    GLANCE,
    PASSED,
    PING,
    TEXT,
    Answer,
    Sampling,
    gathered,
    known,
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


@router.post("/v1/completions", responses=EITHER)
async def completions(asked: Continued, request: Request) -> Response:
    """What follows a text."""
    home = server(request)
    settings = settings_of(asked, asked.max_tokens or 16)
    if asked.logprobs is not None:
        settings |= {"logprobs": True, "alternatives": asked.logprobs}
    prompts = _several(asked.prompt, "prompt", home.settings.limits.queue)
    name = asked.model or TEXT
    if asked.stream and len(prompts) > 1:
        raise ApiError(400, "prompt: expected one text with stream, got several", param="prompt")
    wishes = [TextWish(count=asked.n, seed=seed_of(asked), settings=settings, **_prompt(each)) for each in prompts]
    tickets = [ticket_for(home, name, wish) for wish in wishes]
    echoes = [each if asked.echo and isinstance(each, str) else "" for each in prompts]
    answer = _Completion(name, asked)
    if asked.stream:
        return streaming(answer.streamed(texts_of(tickets[0], PING), echoes[0]))
    texts = [texts_of(ticket, GLANCE) for ticket in tickets]
    return Json(await answer.whole(texts, echoes, request))


@router.post("/v1/embeddings")
async def embeddings(asked: Embedded, request: Request) -> Json:
    """Vectors of texts."""
    home = server(request)
    known(asked.model_extra or {}, PASSED)
    name = home.keeper.path(asked.model or TEXT)
    inputs = _several(asked.input, "input", home.settings.limits.inputs)
    if sum(map(len, inputs)) > home.settings.limits.characters:
        raise ApiError(413, f"input: expected at most {home.settings.limits.characters:,} characters", param="input")
    "".join(each for each in inputs if isinstance(each, str)).encode()  # halves of pairs are told

    def work() -> Iterator[tuple[list[list[float]], int]]:
        model = home.keeper.writer(name).model
        if any(not 0 <= token < model.vocab for each in inputs if not isinstance(each, str) for token in each):
            raise ApiError(400, f"input: expected ids of tokens from 0 to {model.vocab - 1}", param="input")
        texts = [each if isinstance(each, str) else model.tokenizer.decode(each) for each in inputs]
        if any(not text for text in texts):
            raise ApiError(400, "input: expected texts with something in them, got an empty one", param="input")
        vectors = model.embed(texts)
        if asked.dimensions is not None:
            if asked.dimensions > vectors.shape[1]:
                raise ApiError(400, f"dimensions: this model's vectors have {vectors.shape[1]}", param="dimensions")
            vectors = vectors[:, : asked.dimensions]
        vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)  # clients take dot products
        yield vectors.tolist(), sum(len(model.tokenizer.encode(text)) for text in texts)

    ticket, found = home.worker.submit(work), None
    async with aclosing(ticket.events(heartbeat=GLANCE)) as events:
        async for event in events:
            if isinstance(event, tuple):
                found = event
            elif event is None and await request.is_disconnected():
                break
    if found is None:
        raise ApiError(499, "the client went away", code="client_closed_request")
    vectors, count = found
    data = [{"object": "embedding", "index": place, "embedding": _packed(vector, asked.encoding_format)}
            for place, vector in enumerate(vectors)]  # fmt: skip
    usage = {"prompt_tokens": count, "total_tokens": count}
    answer = {"object": "list", "data": data, "model": asked.model or TEXT, "usage": usage}
    return await asyncio.to_thread(Json, answer)


def _several(given: str | Sequence[Any], param: str, most: int) -> list[str | list[int]]:
    """The texts, or lists of ids, in one field."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise ApiError(400, f"{param}: expected at least one text", param=param)
    if isinstance(given[0], int):
        return [list(given)]
    if len(given) > most:
        raise ApiError(413, f"{param}: expected at most {most:,} texts, got {len(given):,}", param=param)
    return list(given)


def _prompt(each: str | list[int]) -> dict[str, Any]:
    if not each:
        raise ApiError(400, "prompt: expected a text, got an empty one", param="prompt")
    return {"prompt": each} if isinstance(each, str) else {"ids": each}


class _Completion(Answer):
    kind = "cmpl"

    async def whole(
        self, texts: Sequence[AsyncGenerator[Any, None]], echoes: Sequence[str], request: Request
    ) -> dict[str, Any]:
        choices, written = [], 0
        for echo, each_text in zip(echoes, texts, strict=True):
            tokens, made, pieces = await gathered(each_text, request)
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


def _packed(vector: Sequence[float], form: str) -> str | Sequence[float]:
    if form == "float":
        return vector
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
