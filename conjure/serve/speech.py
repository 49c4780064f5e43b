"""`/v1/audio/speech`: a text said aloud, in the shapes of the OpenAI API.

Whoever says how to stream (`stream_format`) gets the sound sentence by sentence: `pcm`, `wav` and `mp3` are sent while
the rest is still being said, the other formats at the end. Without it the answer is one whole file.
"""

from __future__ import annotations

import asyncio
import base64
import io
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from conjure import media
from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Preview
from conjure.media.audio import Audio
from conjure.media.text import Text
from conjure.serve.errors import ApiError, told
from conjure.serve.making import STREAM, Made, Previews, made, planned_for, working
from conjure.serve.sampling import refused
from conjure.serve.state import Server, server
from conjure.serve.wire import HEARTBEAT, Room, sse
from conjure.serve.worker import Ticket
from conjure.tasks.abilities import is_public
from conjure.tasks.make import record

PCM_RATE = 24_000
"""Of `pcm` and of `aac`: what clients of the API play it at."""
PING = 15.0
TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
         "pcm": "audio/pcm"}  # fmt: skip
_UNKNOWN = 0xFFFF_FFFF
"""The size in the header of a WAV whose end is not known yet."""
Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

router = APIRouter()


class Named(BaseModel):
    """A voice by its id."""

    id: str


class Asked(BaseModel):
    """Whatever else comes must be an option of the task."""

    model_config = ConfigDict(extra="allow")

    model: str
    input: str
    voice: str | Named
    response_format: Format = "mp3"
    speed: float = Field(default=1.0, ge=0.25, le=4)
    stream_format: Literal["audio", "sse"] | None = None


@router.post("/v1/audio/speech", response_class=Response,
             responses={200: {"content": {each: {} for each in (*TYPES.values(), "text/event-stream")}}})  # fmt: skip
async def speech(asked: Asked, request: Request) -> Response:
    """A text said aloud."""
    home = server(request)
    given = asked.model_extra or {}
    refused(given, {"instructions": ("",)})
    if asked.response_format == "aac":
        _aac_writer()
    text = Room(home.settings.limits).take(_text(asked.input), "input")
    options = await asyncio.to_thread(_voiced, home, asked) | {"speed": asked.speed}
    options |= {name: value for name, value in given.items() if name != "instructions"}
    planned = await asyncio.to_thread(
        lambda: planned_for(home, [text], to="audio", model=asked.model, task="speak", options=options)
    )
    previews = Previews(asked=lambda: True) if asked.stream_format else Previews(most=0)
    ticket = home.worker.submit(lambda: working(home, planned, keep=True, previews=previews))
    if asked.stream_format is None:
        done = await made(ticket, request)
        data = await asyncio.to_thread(_whole, done, asked.response_format)
        return Response(data, media_type=TYPES[asked.response_format])
    pieces = _pieces(ticket, asked.response_format)
    first = await _first(pieces)
    if asked.stream_format == "sse":
        return StreamingResponse(_events(first, pieces), media_type="text/event-stream", headers=STREAM)
    return StreamingResponse(_bytes(first, pieces), media_type=TYPES[asked.response_format], headers=STREAM)


def _voiced(home: Server, asked: Asked) -> dict[str, Any]:
    """The option that chooses who speaks. Our voices have names, public models have numbers."""
    name = asked.voice if isinstance(asked.voice, str) else asked.voice.id
    if not is_public(shelf.find(home.keeper.path(asked.model))):
        return {"voice": name}
    if name != "default" and not (name.isascii() and name.isdigit()):
        raise ApiError(400, f"voice: this model numbers its speakers, expected '0', '1', ... or 'default', "
                            f"got '{name}'", param="voice")  # fmt: skip
    return {} if name == "default" else {"speaker": int(name)}


def _text(text: str) -> Text:
    try:
        return Text(text)
    except ConjureError as error:
        raise told(error, "input") from None


def _whole(done: Made, form: Format) -> bytes:
    sound = done.result.media[0]
    assert isinstance(sound, Audio)
    if form == "pcm":
        return _pcm(sound.at(PCM_RATE))
    if form == "aac":
        return _aac_writer()(sound)
    return media.encode(sound, f".{form}", record(done.plan, 0))


async def _pieces(ticket: Ticket, form: Format) -> AsyncIterator[bytes | Made | None]:
    """The sound in pieces as it comes, None where nothing came for a while, and `Made` at last."""
    parts = _Parts(form)
    async with aclosing(ticket.events(heartbeat=PING)) as events:
        async for event in events:
            if isinstance(event, Preview):
                sound = event.medium
                assert isinstance(sound, Audio)
                if piece := await asyncio.to_thread(parts.more, sound):
                    yield piece
            elif isinstance(event, Made):
                if piece := await asyncio.to_thread(parts.rest, event):
                    yield piece
                yield event
            elif event is None:
                yield None


async def _first(pieces: AsyncIterator[bytes | Made | None]) -> bytes:
    """The first piece: what is wrong with a wish shows before it, when the status can still say so."""
    try:
        async for piece in pieces:
            if isinstance(piece, bytes):
                return piece
    except ConjureError as error:
        raise told(error) from None
    raise ApiError(500, "nothing was said")


async def _bytes(first: bytes, pieces: AsyncIterator[bytes | Made | None]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        if isinstance(piece, bytes):
            yield piece


async def _events(first: bytes, pieces: AsyncIterator[bytes | Made | None]) -> AsyncIterator[str]:
    yield _delta(first)
    try:
        async for piece in pieces:
            if piece is None:
                yield HEARTBEAT
            elif isinstance(piece, Made):
                yield sse("speech.audio.done", {"type": "speech.audio.done", "usage": _usage(piece)})
            else:
                yield _delta(piece)
    except (ApiError, ConjureError) as error:
        yield sse("error", (error if isinstance(error, ApiError) else told(error)).body())


def _delta(piece: bytes) -> str:
    return sse("speech.audio.delta", {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode("ascii")})


def _usage(done: Made) -> dict[str, int]:
    """Clients expect counts of tokens: characters are read here, and hundredths of a second are said."""
    read = len(str(done.plan.inputs[0].medium))
    said = round(100 * done.result.media[0].seconds)  # type: ignore[attr-defined]
    return {"input_tokens": read, "output_tokens": said, "total_tokens": read + said}


class _Parts:
    """What is new of a sound that grows, in a format whose pieces may follow each other."""

    def __init__(self, form: Format) -> None:
        self._form: Format = form
        self._sent = 0

    def more(self, so_far: Audio) -> bytes:
        """The bytes of what came since; none where the format takes the whole alone."""
        if self._form not in ("pcm", "wav", "mp3") or so_far.samples.shape[1] <= self._sent:
            return b""
        new = Audio(so_far.samples[:, self._sent :], so_far.rate)
        begins, self._sent = not self._sent, so_far.samples.shape[1]
        if self._form == "mp3":
            return _appended(media.encode(new, ".mp3"))
        if self._form == "pcm":
            return _pcm(new.at(PCM_RATE))
        return (_open_wav(new.rate) if begins else b"") + _pcm(new)

    def rest(self, done: Made) -> bytes:
        """What is still missing at the end."""
        sound = done.result.media[0]
        assert isinstance(sound, Audio)
        return self.more(sound) if self._form in ("pcm", "wav", "mp3") else _whole(done, self._form)


def _pcm(sound: Audio) -> bytes:
    """16 bits, little-endian, mono, without a header."""
    return np.clip(np.rint(sound.mono() * 32768.0), -32768, 32767).astype("<i2").tobytes()


def _appended(data: bytes) -> bytes:
    """An MP3 without the note in its first frame that says how long it is: players would stop there."""
    first = data[:512]
    for note in (b"Xing", b"Info"):
        first = first.replace(note, bytes(4))
    return first + data[512:]


def _open_wav(rate: int) -> bytes:
    """The header of a WAV that ends where the stream does."""
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    return b"".join([b"RIFF", struct.pack("<I", _UNKNOWN), b"WAVEfmt ", struct.pack("<I", len(form)), form, b"data",
                     struct.pack("<I", _UNKNOWN)])  # fmt: skip


def _aac_writer() -> Callable[[Audio], bytes]:
    """What writes AAC in ADTS frames; 400 where PyAV is not installed."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ApiError(400, "response_format: aac needs PyAV on the server (pip install 'conjure[sound]')",
                       param="response_format", code="unsupported_value") from None  # fmt: skip

    def write(sound: Audio) -> bytes:
        out = io.BytesIO()
        with av.open(out, "w", format="adts") as container:
            stream: Any = container.add_stream("aac", rate=PCM_RATE, layout="mono")
            samples = sound.at(PCM_RATE).mono()
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
            frame.sample_rate = PCM_RATE
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
        return out.getvalue()

    return write
