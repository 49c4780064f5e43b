"""A client that costs next to nothing, for it shares the machine with the server: plain HTTP/1.1 on asyncio's streams,
a connection for each request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 1800.0
"""Seconds after which a request counts as failed."""


@dataclass(frozen=True)
class Told:
    """One request: seconds until its first text and until its end, tokens written, and its fault ("" for none)."""

    first: float
    seconds: float
    tokens: int
    fault: str = ""


async def stream(port: int, body: Mapping[str, Any], *, leave: int = 0, path: str = "/v1/completions") -> Told:
    """A streamed completion. Tokens are those of the usage where the server tells it, else pieces of text; `leave`
    breaks off after so many pieces."""
    began, first, pieces, usage = time.perf_counter(), 0.0, 0, 0
    try:
        async with asyncio.timeout(LIMIT):
            async for event in _events(port, path, {**body, "stream": True}):
                if "error" in event:
                    return Told(first, time.perf_counter() - began, pieces, json.dumps(event["error"])[:300])
                usage = (event.get("usage") or {}).get("completion_tokens", usage)
                if any(_text(choice) for choice in event.get("choices") or ()):
                    pieces += 1
                    first = first or time.perf_counter() - began
                if leave and pieces >= leave:
                    break
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        return Told(first, time.perf_counter() - began, pieces, f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - began
    return Told(first, seconds, usage or pieces, "" if pieces else "no text came")


def _text(choice: Mapping[str, Any]) -> str:
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""


async def crowd(port: int, bodies: Sequence[Mapping[str, Any]]) -> tuple[list[Told], float]:
    """All of them at once; (what came of each, seconds until the last was done)."""
    began = time.perf_counter()
    told = await asyncio.gather(*(stream(port, body) for body in bodies))
    return list(told), time.perf_counter() - began


async def answer(port: int, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
    """(status, body) of one call, a GET where there is nothing to send."""
    reader, writer = await _asked(port, path, body)
    try:
        async with asyncio.timeout(LIMIT):
            status, headers = await _head(reader)
            return status, b"".join([piece async for piece in _pieces(reader, headers)])
    finally:
        await _closed(writer)


async def _events(port: int, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    reader, writer = await _asked(port, path, body)
    try:
        status, headers = await _head(reader)
        rest = b""
        async for piece in _pieces(reader, headers):
            rest += piece
            if status != 200:
                continue
            *lines, rest = rest.split(b"\n")
            for line in lines:
                data = line.removeprefix(b"data: ").strip()
                if line.startswith(b"data: ") and data != b"[DONE]":
                    yield json.loads(data)
        if status != 200:
            raise ValueError(f"status {status}: {rest[:300].decode(errors='replace')}")
    finally:
        await _closed(writer)


async def _asked(
    port: int, path: str, body: Mapping[str, Any] | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    head = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: localhost:{port}", "Connection: close"]
    head += [] if body is None else ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    writer.write("\r\n".join([*head, "", ""]).encode() + data)
    await writer.drain()
    return reader, writer


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split()[1]), {name.lower(): value.strip().lower() for name, _, value in named}


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The body as it comes."""
    if headers.get("transfer-encoding") != "chunked":
        if "content-length" in headers:
            yield await reader.readexactly(int(headers["content-length"]))
            return
        while piece := await reader.read(1 << 16):
            yield piece
        return
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:  # the other side was quicker
        return
