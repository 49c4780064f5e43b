"""`/v1/images/...`: pictures in the shape that clients of the OpenAI API ask for them."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure.core.errors import ConjureError
from conjure.core.events import Preview
from conjure.serve.batches import alike
from conjure.serve.errors import ApiError, Json, told
from conjure.serve.making import EITHER, STREAM, Made, Previews, made, planned_for, working
from conjure.serve.sampling import refused
from conjure.serve.state import Server, server
from conjure.serve.uploads import checked, form, shape
from conjure.serve.wire import HEARTBEAT, TYPES, Room, file_bytes, medium, sse, suffix_for
from conjure.serve.worker import Ticket
from conjure.tasks.make import record

PING = 15.0
HINTS = frozenset({"user", "moderation"})
"""Documented parameters that belong to the service: no picture depends on them."""
TAKEN: dict[str, Container[Any]] = {
    "quality": ("auto", "standard"), "style": (), "background": ("auto", "opaque"), "input_fidelity": (),
    "output_compression": (100, "100"),
}  # fmt: skip
"""Documented parameters that are taken only where they ask for what is done anyway."""

FILES = ("image", "mask")

router = APIRouter()


class Asked(BaseModel):
    """What all three endpoints take; whatever else comes must be an option of the task."""

    model_config = ConfigDict(extra="allow")

    prompt: str = ""
    model: str = ""
    n: int = Field(default=1, ge=1)
    size: str = "auto"
    seed: int | None = Field(default=None, ge=0, lt=2**53)
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    stream: bool = False
    partial_images: int = Field(default=0, ge=0, le=3)


@router.post("/v1/images/generations", responses=EITHER)
async def generations(asked: Asked, request: Request) -> Response:
    """Pictures from a prompt."""
    if not asked.prompt.strip():
        raise ApiError(400, "prompt: expected a text, got none", param="prompt", code="missing_required_parameter")
    return await _answered(request, asked, [asked.prompt], "draw" if not asked.model else "", {}, "image_generation")


@router.post("/v1/images/edits", responses=EITHER, openapi_extra=shape(Asked, FILES, ["image", "prompt"]))
async def edits(request: Request) -> Response:
    """A picture changed as the prompt says, where a mask allows it: transparent pixels of the mask may change."""
    asked, pictures, mask = await _form(request)
    if len(pictures) != 1:
        raise ApiError(400, f"image: expected one picture, got {len(pictures)}", param="image")
    options: dict[str, Any] = {}
    if mask is not None:
        options["mask"] = _where_transparent(mask)
    inputs = [pictures[0], *([asked.prompt] if asked.prompt.strip() else [])]
    return await _answered(request, asked, inputs, "inpaint" if mask is not None else "edit", options, "image_edit")


@router.post("/v1/images/variations", responses=EITHER, openapi_extra=shape(Asked, FILES, ["image"]))
async def variations(request: Request) -> Response:
    """The same picture, drawn again."""
    asked, pictures, _ = await _form(request)
    if len(pictures) != 1:
        raise ApiError(400, f"image: expected one picture, got {len(pictures)}", param="image")
    return await _answered(request, asked, pictures, "vary", {}, "image_variation")


async def _answered(
    request: Request, asked: Asked, inputs: Sequence[Any], task: str, options: dict[str, Any], kind: str
) -> Response:
    home = server(request)
    extra = _extra(asked)
    room = Room(home.settings.limits)
    texts = [room.take(_text(each), "prompt") if isinstance(each, str) else each for each in inputs]
    planned = await asyncio.to_thread(
        lambda: planned_for(home, texts, to="image", model=asked.model, task=task, seed=asked.seed, count=asked.n,
                            options=options | _size(asked, task, inputs) | extra)
    )  # fmt: skip
    suffix = suffix_for("image", asked.output_format)
    previews = Previews(most=asked.partial_images if asked.stream else 0)
    ticket = home.worker.submit(lambda: working(home, planned, keep=True, previews=previews),
                                alike=alike(planned))  # fmt: skip
    if asked.stream:
        return StreamingResponse(_streamed(ticket, asked, suffix, kind), media_type="text/event-stream",
                                 headers=STREAM)  # fmt: skip
    done = await made(ticket, request)
    base = str(request.base_url)
    return await asyncio.to_thread(lambda: Json({
        "created": int(time.time()), "output_format": asked.output_format, "size": _sides(done), "usage": _usage(done),
        "data": [_datum(home, base, asked, done, index, suffix) for index in range(len(done.result.media))],
    }))  # fmt: skip


def _extra(asked: Asked) -> dict[str, Any]:
    """The options of the task among what came; of the API's own parameters none is passed over in silence."""
    given = asked.model_extra or {}
    refused(given, TAKEN)
    return {name: value for name, value in given.items() if name not in HINTS and name not in TAKEN}


def _text(words: str) -> Any:
    from conjure.media import Text

    return Text(words)


def _size(asked: Asked, task: str, inputs: Sequence[Any]) -> dict[str, Any]:
    """`size` of the clients ("256x256") as the option of the edge. A picture that is changed keeps its own."""
    if asked.size == "auto":
        return {}
    width, times, height = asked.size.partition("x")
    if not (times and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ApiError(400, f"size: expected WIDTHxHEIGHT or auto, got {asked.size!r}", param="size")
    if task in ("", "draw"):
        if width != height:
            raise ApiError(400, f"size: expected a square, got {asked.size}", param="size")
        return {"size": int(width)}
    picture = inputs[0]
    if (int(width), int(height)) != (picture.width, picture.height):
        own = f"{picture.width}x{picture.height}"
        raise ApiError(400, f"size: the result is as large as the picture, {own}, got {asked.size}", param="size",
                       code="unsupported_value")  # fmt: skip
    return {}


def _datum(home: Server, base: str, asked: Asked, done: Made, index: int, suffix: str) -> dict[str, Any]:
    data = file_bytes(done.result.media[index], suffix, record(done.plan, index))
    facts: dict[str, Any] = {"seed": done.plan.seeds[index]}
    if asked.response_format == "url":
        return facts | {"url": f"{base}media/{home.links.add(data, suffix)}"}
    return facts | {"b64_json": base64.b64encode(data).decode("ascii")}


async def _streamed(ticket: Ticket, asked: Asked, suffix: str, kind: str) -> AsyncIterator[str]:
    partial = 0
    try:
        async with aclosing(ticket.events(heartbeat=PING)) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Preview):
                    facts = await asyncio.to_thread(_partial, f"{kind}.partial_image", event, suffix, asked)
                    yield sse(facts["type"], facts | {"partial_image_index": partial})
                    partial += 1
                elif isinstance(event, Made):
                    for index in range(len(event.result.media)):
                        facts = await asyncio.to_thread(_whole, f"{kind}.completed", event, index, suffix, asked)
                        yield sse(facts["type"], facts | {"usage": _usage(event)})
    except (ApiError, ConjureError) as error:
        yield sse("error", (error if isinstance(error, ApiError) else told(error)).body())


def _partial(name: str, event: Preview, suffix: str, asked: Asked) -> dict[str, Any]:
    return _event(name, event.medium, None, suffix, asked)


def _whole(name: str, done: Made, index: int, suffix: str, asked: Asked) -> dict[str, Any]:
    return _event(name, done.result.media[index], record(done.plan, index), suffix, asked)


def _event(name: str, picture: Any, its: Any, suffix: str, asked: Asked) -> dict[str, Any]:
    packed = base64.b64encode(file_bytes(picture, suffix, its)).decode("ascii")
    return {"type": name, "b64_json": packed, "created_at": int(time.time()), "output_format": asked.output_format,
            "size": f"{picture.width}x{picture.height}", "quality": "auto", "background": "auto"}  # fmt: skip


def _usage(done: Made) -> dict[str, Any]:
    """Clients expect tokens; what a picture costs here is evaluations of the network."""
    evaluations = done.result.facts.get("evaluations", 0)
    count = int(evaluations) if isinstance(evaluations, int | float) else 0
    return {"input_tokens": 0, "output_tokens": count, "total_tokens": count,
            "input_tokens_details": {"text_tokens": 0, "image_tokens": 0}}  # fmt: skip


def _sides(done: Made) -> str:
    first: Any = done.result.media[0]
    return f"{first.width}x{first.height}"


async def _form(request: Request) -> tuple[Asked, list[Any], Any]:
    """The plain fields, the pictures, the mask."""
    fields, files = await form(request, FILES)
    room = Room(server(request).settings.limits)
    pictures, mask = [], None
    for name, data in files:
        picture = room.take(await asyncio.to_thread(_picture, data, name), name)
        if name == "mask":
            mask = picture
        else:
            pictures.append(picture)
    return checked(Asked, fields), pictures, mask


def _picture(data: bytes, param: str) -> Any:
    from conjure.media.image import Image

    picture = medium(data, param)
    if not isinstance(picture, Image):
        raise ApiError(400, f"{param}: expected a picture, got {picture.kind}", param=param)
    return picture


def _where_transparent(mask: Any) -> Any:
    """Clients say by transparency what may change; our masks say it by white. A mask without transparency is ours."""
    import numpy as np

    from conjure.media.image import Image

    alpha = mask.alpha()
    if alpha is None or (alpha == 255).all():
        return mask
    return Image(np.repeat((255 - alpha)[..., None], 3, -1))


@router.get("/media/{name}", response_class=Response, responses={200: {"content": {"*/*": {}}}})
def linked(name: str, request: Request) -> Response:
    """A result under its link, until that runs out."""
    found = server(request).links.get(name)
    if found is None:
        raise ApiError(404, "this link is unknown or has run out", code="link_expired")
    data, suffix = found
    return Response(data, media_type=TYPES[suffix],
                    headers={"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"})  # fmt: skip
