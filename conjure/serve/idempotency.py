"""`Idempotency-Key`: a request that is sent again, because its answer was lost, is not done again. Plain ASGI.

The first of a key does the work; whoever comes with the same key meanwhile waits for it and gets the same answer, byte
for byte, and so does whoever comes within an hour. Only answers that succeeded are kept: what was refused, failed or
given up may be tried again under its key. A stream is kept once it has ended whole, and is then sent in one piece.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from conjure.serve.errors import ApiError
from conjure.serve.guard import App, Message, Receive, Scope, Send

HEADER = b"idempotency-key"
LONGEST = 255  # characters of a key
MOST = 1000  # answers
MOST_BYTES = 64 << 20  # of all answers together
ONE_BYTES = 16 << 20  # of one: a larger one is not kept
SECONDS = 3600.0
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')


@dataclass
class _Kept:
    """One answer, once there is one."""

    body: bytes
    """The digest of what was asked."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[Message] | None = None
    size: int = 0
    until: float = 0.0


class Idempotent:
    """Passes on what has no key, and what has one that is new."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]) if scope["type"] == "http" and scope["method"] == "POST" else {}
        key = given.get(HEADER, b"").strip()
        if not key or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        if len(key) > LONGEST:
            raise ApiError(400, f"Idempotency-Key: expected at most {LONGEST} characters, got {len(key)}",
                           param="Idempotency-Key")  # fmt: skip
        body = await _all(receive)
        if body is None:  # the client has gone
            return
        who = [given.get(name, b"") for name in (b"authorization", b"x-api-key", b"cookie")]
        place = sha256(b"\0".join((scope["path"].encode(), *who, key))).digest()
        asked = _meant(given.get(b"content-type", b""), body, scope["query_string"])
        while (kept := self._there(place)) is not None:
            if kept.body != asked:
                raise ApiError(409, "Idempotency-Key: another request came under this key", param="Idempotency-Key",
                               code="idempotency_key_reused", headers={"x-should-retry": "false"})  # fmt: skip
            if kept.messages is not None:
                await _sent_again(kept.messages, send)
                return
            if not await _first(kept.done, receive):
                return
        await self._led(scope, receive, send, place, _Kept(asked), body)

    async def _led(
        self, scope: Scope, receive: Receive, send: Send, place: bytes, kept: _Kept, body: bytes
    ) -> None:
        self._kept[place] = kept
        messages: list[Message] | None = []
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def recorded(message: Message) -> None:
            nonlocal messages
            if messages is not None:
                kept.size += len(message.get("body", b""))
                failed = message.get("status", 200) >= 300
                messages = None if failed or kept.size > ONE_BYTES else [*messages, dict(message)]
            await send(message)
            if messages and message["type"] == "http.response.body" and not message.get("more_body", False):
                kept.messages, kept.until = messages, time.monotonic() + SECONDS

        try:
            await self.app(scope, again, recorded)
        finally:
            if kept.messages is None:
                del self._kept[place]
            else:
                self._make_room()
            kept.done.set()

    def _there(self, place: bytes) -> _Kept | None:
        kept = self._kept.get(place)
        if kept is not None and kept.messages is not None and kept.until < time.monotonic():
            del self._kept[place]
            return None
        return kept

    def _make_room(self) -> None:
        done = [place for place, kept in self._kept.items() if kept.messages is not None]
        size = sum(kept.size for kept in self._kept.values() if kept.messages is not None)
        while done and (len(done) > MOST or size > MOST_BYTES or self._kept[done[0]].until < time.monotonic()):
            size -= self._kept.pop(done.pop(0)).size


def _meant(kind: bytes, body: bytes, query: bytes) -> bytes:
    """The digest of a request. Clients draw a new boundary for a form each time that they send it."""
    if (boundary := _BOUNDARY.search(kind)) is not None:
        body, kind = body.replace(boundary[1], b""), kind.replace(boundary[1], b"")
    return sha256(b"\0".join((kind, query, body))).digest()


async def _all(receive: Receive) -> bytes | None:
    """The whole body; None where the client went away before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _first(done: asyncio.Event, receive: Receive) -> bool:
    """Whether the answer is there before this client goes away."""
    waits: list[asyncio.Task[Any]] = [asyncio.ensure_future(done.wait()), asyncio.ensure_future(receive())]
    try:
        ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return waits[0] in ended


async def _sent_again(messages: list[Message], send: Send) -> None:
    start, *bodies = messages
    headers = [*start.get("headers", ()), (b"idempotent-replayed", b"true")]
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(each.get("body", b"") for each in bodies)})
