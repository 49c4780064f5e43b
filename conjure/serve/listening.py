"""How the server listens: uvicorn, with patience that ends.

uvicorn waits for ever for the head of a request, and for a client that does not take its answer. Both cost a connection
each, of which a system has only so many: here a head must come within `head_seconds`, and who takes nothing for
`stall_seconds` is cut off.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from conjure.serve.settings import Limits, Settings

GRACE = 3  # seconds that open streams have once the server is told to end
BACKLOG = 2048  # connections that wait to be accepted


class Patient(H11Protocol):
    """One connection."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.trailing_data[0]:  # the beginning of the next one is there already
            self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(self.limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _end(self._stall)

    def timeout_keep_alive_handler(self) -> None:
        """What a client never took must not keep the connection open."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        _end(self._head)
        _end(self._stall)
        super().connection_lost(exc)

    def _look(self) -> None:
        """Whether a head is still to come; the time for it runs from its first byte."""
        waits = self.conn.their_state is h11.IDLE and self.transport.get_protocol() is self
        if not waits:
            _end(self._head)
            self._head = None
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.limits.head_seconds, self.transport.abort)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def config(app: FastAPI, settings: Settings, **more: Any) -> uvicorn.Config:
    """What uvicorn is told. Requests are not logged: addresses may hold a key."""
    protocol = type("Patient", (Patient,), {"limits": settings.limits})
    told: dict[str, Any] = {
        "host": settings.host, "port": settings.port, "http": protocol, "log_level": "warning", "access_log": False,
        "timeout_keep_alive": 15, "timeout_graceful_shutdown": GRACE, "server_header": False, "date_header": False,
        "backlog": BACKLOG, "proxy_headers": False, **more,
    }  # fmt: skip
    return uvicorn.Config(app, **told)


def listen(app: FastAPI, settings: Settings, said: Callable[[int, uvicorn.Server], None]) -> None:
    """Serves until it is told to end. `said` is called with the port once connections are taken."""
    more_files()
    its = config(app, settings)
    server = uvicorn.Server(its)
    listening = its.bind_socket()
    listening.listen(its.backlog)  # who comes before the server is up waits
    said(listening.getsockname()[1], server)
    server.run(sockets=[listening])


def more_files() -> None:
    """Every connection is an open file: as many as the system allows, so that slow clients do not use them up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # then it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
