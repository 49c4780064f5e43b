"""What goes over the wire: media and events as plain values, and what clients send as media."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Preview, Progress, Result, Warn
from conjure.core.provenance import Record
from conjure.media.bounds import PIXELS, SECONDS, TEXT_BYTES
from conjure.media.kinds import SUFFIXES, writable
from conjure.serve.errors import ApiError
from conjure.serve.settings import Limits
from conjure.serve.worker import Waiting

TYPES = {
    ".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".json": "application/json",
    ".py": "text/x-python; charset=utf-8", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
    ".webp": "image/webp", ".srt": "application/x-subrip; charset=utf-8", ".vtt": "text/vtt; charset=utf-8",
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg",
    ".mid": "audio/midi", ".midi": "audio/midi",
}  # fmt: skip
"""Suffix -> media type of what is written."""
_DATA = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,")
HEARTBEAT = ": still here\n\n"
"""A comment: keeps the connection open and is no event."""


def suffix_for(kind: str, wanted: str = "") -> str:
    """The suffix in which a kind is sent; `wanted` is "png" or ".png" or empty."""
    suffix = f".{wanted.lower().removeprefix('.')}" if wanted else writable(kind)[0]
    if suffix == ".":
        suffix = writable(kind)[0]
    if SUFFIXES.get(suffix) != kind or suffix not in writable(kind):
        known = ", ".join(each.removeprefix(".") for each in writable(kind))
        raise ApiError(400, f"{kind} cannot be sent as {wanted}: {known}", param="output_format")
    return suffix


def file_bytes(medium: Any, suffix: str, record: Record | None) -> bytes:
    """A medium as a file of that suffix, with its record."""
    return media.encode(medium, suffix, record)


def sent(medium: Any, suffix: str, record: Record | None) -> dict[str, Any]:
    """A medium as JSON: a text as it is, anything else in base64."""
    facts: dict[str, Any] = {"kind": medium.kind, "media_type": TYPES[suffix]}
    if record is not None:
        facts["record"] = json.loads(record.to_json())
    if medium.kind == "text":
        return facts | {"text": str(medium)}
    return facts | {"b64": base64.b64encode(file_bytes(medium, suffix, record)).decode("ascii")}


def event_name(event: Any) -> str:
    """"queued", "progress", "preview", "delta", "warn" or "result"."""
    return "queued" if isinstance(event, Waiting) else type(event).__name__.lower()


def plain(event: Any) -> dict[str, Any]:
    """An event as JSON but for the result. A preview is encoded, which is no work for an event loop."""
    if isinstance(event, Waiting):
        return {"position": event.position}
    if isinstance(event, Progress):
        return {"step": event.step, "total": event.total, "unit": event.unit, "note": event.note}
    if isinstance(event, Delta | Warn):
        return {"text": event.text}
    if isinstance(event, Preview):
        medium = event.medium
        return sent(medium, suffix_for(medium.kind), None)
    assert not isinstance(event, Result), "results have media, which need their plan"
    raise TypeError(f"no event: {event!r}")


def sse(name: str, value: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"


def base64_bytes(text: str, param: str) -> bytes:
    """What a base64 text or a `data:` link holds."""
    if text.startswith("data:"):
        head = _DATA.match(text[:200])
        if head is None:
            raise ApiError(400, f"{param}: expected data:TYPE;base64,..., got {text[:40]!r}", param=param)
        text = text[head.end() :]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{param}: expected base64, got something else", param=param) from None


Fetch = Callable[[str, str], bytes]
"""The bytes behind a link, given with the name of the parameter that holds it."""


def received(value: Any, param: str, fetch: Fetch | None = None) -> Any:
    """The medium a client means: `{"text": ...}`, `{"b64": ...}`, `{"url": ...}`, or a plain string, which is a text
    and never the name of a file here."""
    text = value.get("text") if isinstance(value, Mapping) else value
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError:
            said = f"{param}: expected whole characters, got half a pair of surrogates"
            raise ApiError(400, said, param=param) from None
        return media.Text(text)
    return medium(packed(value, param, fetch), param)


def packed(value: Any, param: str, fetch: Fetch | None = None) -> bytes:
    """The bytes in `{"b64": ...}` or `{"url": "data:..."}`, or behind a link where links are followed."""
    found = (value.get("b64") or value.get("url")) if isinstance(value, Mapping) else None
    if not isinstance(found, str):
        forms = '{"text": ...}, {"b64": ...} or {"url": "data:..."}'
        raise ApiError(400, f"{param}: expected a text, {forms}", param=param)
    if found.startswith(("http:", "https:")):
        if fetch is None:
            raise ApiError(400, f"{param}: links are not followed; send the content as data:TYPE;base64,...",
                           param=param, code="remote_url_not_allowed")  # fmt: skip
        return fetch(found, param)
    return base64_bytes(found, param)


def medium(data: bytes, param: str) -> Any:
    """The medium in some bytes; what they are is seen by their content."""
    try:
        return media.read(data)
    except ConjureError as error:
        large = any(bound in error.hint for bound in (PIXELS, SECONDS, TEXT_BYTES))
        raise ApiError(413 if large else 400, f"{param}: {error.message}", param=param) from None


class Room:
    """For the pictures and sounds of one request, which are small as long as they are packed, and for its texts."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._pixels, self._characters = limits, limits.pixels, limits.characters
        self._seconds = float(limits.sound_seconds)

    def take(self, medium: Any, param: str) -> Any:
        """The medium, counted; 413 where all of a kind together have become too large."""
        if medium.kind == "image":
            self._pixels -= medium.width * medium.height
        elif medium.kind == "text":
            self._characters -= len(str(medium))
        elif medium.kind == "audio":
            self._seconds -= medium.seconds
        if self._seconds < 0:
            most = f"sound of at most {self._limits.sound_seconds:,} seconds"
            raise ApiError(413, f"{param}: expected {most} together", param=param)
        if self._pixels < 0:
            most = f"pictures of at most {self._limits.pixels:,} pixels"
            raise ApiError(413, f"{param}: expected {most} together", param=param)
        if self._characters < 0:
            most = f"texts of at most {self._limits.characters:,} characters"
            raise ApiError(413, f"{param}: expected {most} together", param=param)
        return medium
