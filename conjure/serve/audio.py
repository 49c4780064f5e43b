"""`/v1/audio/transcriptions` and `/v1/audio/translations`: what was said, in the shapes of the OpenAI API."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure.codecs.language_names import name_of
from conjure.core.errors import ConjureError
from conjure.core.events import Delta
from conjure.serve.errors import ApiError, Json, told
from conjure.serve.making import EITHER, STREAM, Made, made, planned_for, working
from conjure.serve.sampling import refused
from conjure.serve.state import Server, server
from conjure.serve.uploads import checked, form, shape
from conjure.serve.wire import HEARTBEAT, Room, medium, packed, sse
from conjure.serve.worker import Ticket
from conjure.tasks.inputs import Given

FILES = ("file",)
LISTS = ("timestamp_granularities", "include", "languages", "keywords", "known_speaker_names",
         "known_speaker_references")  # fmt: skip
PING = 15.0
TAKEN: dict[str, Container[Any]] = {
    "chunking_strategy": ("auto",), "include": (), "languages": (), "keywords": (),
}
"""Documented parameters that are taken only where they ask for what is done anyway."""
KNOWN = 4
"""People whose voices may be sent along."""
LAID_OUT = {"text": "txt", "srt": "srt", "vtt": "vtt"}
"""Formats of the API that are the file itself -> our names for them."""

router = APIRouter()


class Asked(BaseModel):
    """Whatever else comes must be an option of the task."""

    model_config = ConfigDict(extra="allow")

    model: str
    language: str = ""
    prompt: str = ""
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] = "json"
    temperature: float = Field(default=0, ge=0, le=1)
    timestamp_granularities: list[Literal["word", "segment"]] = Field(default_factory=list)
    known_speaker_names: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field([], max_length=KNOWN)
    known_speaker_references: list[str] = Field([], max_length=KNOWN)
    stream: bool = False


@router.post("/v1/audio/transcriptions", responses=EITHER, openapi_extra=shape(Asked, FILES, ["file", "model"]))
async def transcriptions(request: Request) -> Response:
    """What is said in a sound, in its own language."""
    return await _heard(request, translate=False)


@router.post("/v1/audio/translations", responses=EITHER, openapi_extra=shape(Asked, FILES, ["file", "model"]))
async def translations(request: Request) -> Response:
    """What is said in a sound, in English."""
    return await _heard(request, translate=True)


async def _heard(request: Request, *, translate: bool) -> Response:
    home = server(request)
    fields, files = await form(request, FILES, LISTS)
    asked = checked(Asked, fields)
    if len(files) != 1:
        raise ApiError(400, f"file: expected one sound, got {len(files)}", param="file",
                       code="missing_required_parameter" if not files else None)  # fmt: skip
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        raise ApiError(400, "timestamp_granularities: only verbose_json has times", param="timestamp_granularities")
    if asked.stream and asked.response_format not in ("json", "text"):
        raise ApiError(400, f"stream: expected json or text, got {asked.response_format}", param="response_format")
    given = asked.model_extra or {}
    refused(given, TAKEN)
    room = Room(home.settings.limits)
    sound = room.take(await asyncio.to_thread(_sound, files[0][1], "file"), "file")
    known = await asyncio.to_thread(_known, home, asked, room)
    options = {
        "language": asked.language, "prompt": asked.prompt, "temperature": asked.temperature, "translate": translate,
        "words": "word" in asked.timestamp_granularities, "format": LAID_OUT.get(asked.response_format, "txt"),
        **({"who": True} if asked.response_format == "diarized_json" else {}),
        **({"known": [each.name for each in known]} if known else {}),
    } | {name: value for name, value in given.items() if name not in TAKEN}  # fmt: skip
    planned = await asyncio.to_thread(
        lambda: planned_for(home, [sound, *known], to="text", model=asked.model, task="transcribe", options=options)
    )
    ticket = home.worker.submit(lambda: working(home, planned, keep=True))
    if asked.stream:
        return StreamingResponse(_streamed(ticket), media_type="text/event-stream", headers=STREAM)
    done = await made(ticket, request)
    if asked.response_format in LAID_OUT:
        return PlainTextResponse(str(done.result.media[0]))
    if asked.response_format == "diarized_json":
        return Json(_diarized(done, asked, translate))
    return Json(_verbose(done, asked, translate) if asked.response_format == "verbose_json" else _plain(done))


def _sound(data: bytes, param: str) -> Any:
    from conjure.media import Audio

    found = medium(data, param)
    if not isinstance(found, Audio):
        raise ApiError(400, f"{param}: expected a sound, got {found.kind}", param=param)
    return found


def _known(home: Server, asked: Asked, room: Room) -> list[Given]:
    """The voices of those who may speak, under their names, as the option `known` has them out of files."""
    names, voices = asked.known_speaker_names, asked.known_speaker_references
    if (names or voices) and asked.response_format != "diarized_json":
        raise ApiError(400, "known_speaker_names: only diarized_json has speakers", param="known_speaker_names")
    if len(names) != len(voices):
        raise ApiError(400, f"known_speaker_references: expected a sound for each of {len(names)} names, got "
                            f"{len(voices)}", param="known_speaker_references")  # fmt: skip
    if len(set(names)) < len(names) or any(name != " ".join(name.split()) for name in names):
        raise ApiError(400, f"known_speaker_names: expected different names, each in one line, got {names}",
                       param="known_speaker_names")  # fmt: skip
    found = []
    for place, (name, voice) in enumerate(zip(names, voices, strict=True)):
        param = f"known_speaker_references[{place}]"
        sound = _sound(packed({"url": voice}, param, home.fetch), param)
        found.append(Given(room.take(sound, param), name, "known"))
    return found


def _facts(done: Made) -> Mapping[str, Any]:
    return done.result.facts["results"][0]


def _plain(done: Made) -> dict[str, Any]:
    return {"text": str(done.result.media[0]), "usage": _usage(done)}


def _verbose(done: Made, asked: Asked, translate: bool) -> dict[str, Any]:
    facts = _facts(done)
    segments = facts["segments"]
    said: dict[str, Any] = {
        "task": "translate" if translate else "transcribe", "language": name_of(facts.get("language", "en")).lower(),
        "duration": facts["duration"], "text": str(done.result.media[0]), "usage": _usage(done),
    }  # fmt: skip
    if "word" in asked.timestamp_granularities:
        said["words"] = [
            {"word": word["text"], "start": word["start"], "end": word["end"]}
            for each in segments for word in each.get("words", ())
        ]  # fmt: skip
    if "segment" in asked.timestamp_granularities or not asked.timestamp_granularities:
        said["segments"] = [_segment(number, each, asked) for number, each in enumerate(segments)]
    return said


def _diarized(done: Made, asked: Asked, translate: bool) -> dict[str, Any]:
    """Speakers who are not known are A, B and so on, in the order in which they begin."""
    found, known = _facts(done)["segments"], asked.known_speaker_names
    names = [each.get("speaker", "") for each in found]
    free = (letters for letters in map(_letters, itertools.count()) if letters not in known)
    called = {name: name if name in known else next(free) for name in dict.fromkeys(names)}
    return {
        "task": "translate" if translate else "transcribe", "duration": _facts(done)["duration"],
        "text": " ".join(each["text"] for each in found), "usage": _usage(done),
        "segments": [
            {"type": "transcript.text.segment", "id": f"seg_{number}", "start": each["start"], "end": each["end"],
             "text": each["text"], "speaker": called[names[number]]} for number, each in enumerate(found)
        ],
    }  # fmt: skip


def _letters(place: int) -> str:
    """0 is A, 25 Z, 26 AA."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def _segment(number: int, found: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Clients expect a place in the file in hundredths of a second, and how sure the model was."""
    text = found["text"].encode()
    return {
        "id": number, "seek": round(100 * found["start"]), "start": found["start"], "end": found["end"],
        "text": found["text"], "tokens": [], "temperature": asked.temperature, "avg_logprob": found.get("confidence"),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
    }  # fmt: skip


def _usage(done: Made) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(_facts(done)["duration"])}


async def _streamed(ticket: Ticket) -> AsyncIterator[str]:
    try:
        async with aclosing(ticket.events(heartbeat=PING)) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Delta):
                    yield sse("transcript.text.delta", {"type": "transcript.text.delta", "delta": event.text})
                elif isinstance(event, Made):
                    yield sse("transcript.text.done", {"type": "transcript.text.done", **_plain(event)})
    except (ApiError, ConjureError) as error:
        yield sse("error", (error if isinstance(error, ApiError) else told(error)).body())
