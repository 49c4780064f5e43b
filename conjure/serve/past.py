"""`/v1/history`: what was made, searched, looked at, made again, deleted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from conjure.core.errors import ConjureError
from conjure.core.history import Entry, History
from conjure.serve.errors import ApiError, Json
from conjure.serve.making import Previews, body, made, working
from conjure.serve.state import server
from conjure.serve.wire import TYPES
from conjure.tasks.keeping import obstacle
from conjure.tasks.remake import replan

router = APIRouter()


@router.get("/v1/history")
def search(
    request: Request, q: str = "", kind: str = "", model: str = "",
    limit: int = Query(default=20, ge=1, le=200), before: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The latest results first; `q` are words, `before` goes on after a page."""
    history = _history(request)
    found = history.search(q, kind=kind, model=model, limit=limit + 1, before=before)
    return {"object": "list", "data": [_plain(each) for each in found[:limit]], "has_more": len(found) > limit}


@router.get("/v1/history/{number}")
def one(number: int, request: Request) -> dict[str, Any]:
    """How a result was made, and what stands in the way of making it again ("" for nothing)."""
    history = _history(request)
    entry = _entry(history, number)
    facts = {"record": json.loads(entry.record.to_json()), "obstacle": obstacle(history, entry)}
    return _plain(entry) | facts


@router.get("/v1/history/{number}/content", response_class=Response,
            responses={200: {"content": {"*/*": {}}}})  # fmt: skip
def content(number: int, request: Request) -> Response:
    """The bytes of a result."""
    history = _history(request)
    entry = _entry(history, number)
    path = history.file(entry)
    if not path.is_file():
        raise ApiError(404, f"the bytes of result {number} are gone")
    kind = TYPES.get(entry.suffix, "application/octet-stream")
    return Response(path.read_bytes(), media_type=kind, headers={
        "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
    })  # fmt: skip


@router.delete("/v1/history/{number}")
def delete(number: int, request: Request) -> dict[str, Any]:
    """Forgets a result: its bytes, its words, and the inputs nothing else was made from."""
    history = _history(request)
    _entry(history, number)
    return {"id": number, "object": "history.deleted", "deleted": history.delete([number]) == 1}


@router.post("/v1/history/{number}/remake")
async def remake(number: int, request: Request) -> Json:
    """The same again, from the inputs that were kept."""
    home, history = server(request), _history(request)
    entry = _entry(history, number)
    if why := obstacle(history, entry):
        raise ApiError(409, f"result {number} cannot be made again: {why}", code="cannot_remake")
    again = await asyncio.to_thread(replan, entry.record, entry.kind, history.sources(number), [])
    ticket = home.worker.submit(lambda: working(home, again.plan, keep=False, previews=Previews(most=0)))
    done = await made(ticket, request)
    return await asyncio.to_thread(lambda: Json(body(done, entry.suffix)))


def _history(request: Request) -> History:
    history = server(request).history
    if history is None:
        raise ApiError(404, "this server keeps no history", code="no_history")
    return history


def _entry(history: History, number: int) -> Entry:
    try:
        return history.get(number)
    except ConjureError:
        raise ApiError(404, f"the history has no result {number}") from None


def _plain(entry: Entry) -> dict[str, Any]:
    return {"id": entry.id, "object": "history", "created": entry.made, "kind": entry.kind, "task": entry.task,
            "model": entry.model, "prompt": entry.prompt, "bytes": entry.bytes, "digest": f"sha256:{entry.digest}",
            "media_type": TYPES.get(entry.suffix, "application/octet-stream"), "seconds": entry.seconds,
            "source": entry.source, "content": f"/v1/history/{entry.id}/content"}  # fmt: skip
