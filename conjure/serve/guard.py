"""The door: who may come in, and how much they may bring. Plain ASGI, before anything else looks at a request.

A page on the web can make a browser send requests to servers on this machine. So a request must name this server in
its Host header, which a rebound DNS name does not, and must not come from another site's page.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import Any

from conjure.serve.errors import ApiError
from conjure.serve.settings import LOOPBACK_NAMES, Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health"})
"""Paths that need no key."""
LINKS = "/media/"
"""Paths whose names nobody can guess, which a browser opens without a key."""


class Guard:
    """Refuses what may not come in, and passes the rest to `app`."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self._key = sha256(settings.key.encode()).digest() if settings.key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        began = False

        async def noticing(message: Message) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            self._host(headers)
            self._site(scope, headers)
            self._admit(scope, headers)
            await self.app(scope, self._bounded(headers, receive), noticing)
        except ApiError as error:
            if began:
                raise
            await error.response()(scope, receive, send)  # type: ignore[arg-type]

    def _host(self, headers: dict[str, str]) -> None:
        """With a key a foreign name does no harm: whoever rebinds a name to this address does not know the key."""
        if self._key is None and _name(headers.get("host", "")) not in LOOPBACK_NAMES | {self.settings.host}:
            raise ApiError(403, "this server is reached as localhost only", code="host_not_allowed")

    def _site(self, scope: Scope, headers: dict[str, str]) -> None:
        origin = headers.get("origin")
        if origin is not None:
            own = origin.partition("://")[2] == headers.get("host", "") and origin.startswith(("http://", "https://"))
            if not own and origin not in self.settings.origins:
                raise ApiError(403, "pages of other sites may not call this server", code="origin_not_allowed")
            return
        visit = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not visit:
            raise ApiError(403, "pages of other sites may not call this server", code="origin_not_allowed")

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        if self._key is None or scope["path"] in OPEN or scope["path"].startswith(LINKS):
            return
        given = headers.get("authorization", "").partition(" ")[2].strip() or headers.get("x-api-key", "")
        if not hmac.compare_digest(sha256(given.encode("utf-8", "replace")).digest(), self._key):
            raise ApiError(401, "the key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key",
                           headers={"WWW-Authenticate": "Bearer"})  # fmt: skip

    def _bounded(self, headers: dict[str, str], receive: Receive) -> Receive:
        """The body, refused as soon as it is known to be too large or comes too slowly."""
        limits = self.settings.limits
        said = headers.get("content-length", "")
        if said.isdecimal() and int(said) > limits.body_bytes:
            raise self._too_large()
        came, finished = 0, False
        until = asyncio.get_running_loop().time() + limits.body_seconds

        async def bounded() -> Message:
            nonlocal came, finished
            if finished:  # what comes now is the end of the connection
                return await receive()
            try:
                left = until - asyncio.get_running_loop().time()
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                raise ApiError(408, f"the request did not arrive in {limits.body_seconds:g} seconds") from None
            came += len(message.get("body", b""))
            finished = not message.get("more_body", False)
            if came > limits.body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> ApiError:
        most = self.settings.limits.body_bytes
        return ApiError(413, f"expected a body of at most {most:,} bytes", code="request_too_large")


def _name(host: str) -> str:
    """`localhost:8001` -> `localhost`, `[::1]:8001` -> `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
