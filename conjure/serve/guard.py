"""The door: who may come in, and how much they may bring. Plain ASGI, before anything else looks at a request.

A page on the web can make a browser send requests to servers on this machine. So a request must name this server in
its Host header, which a rebound DNS name does not, and must not come from another site's page. What goes out says to
browsers that it is for pages of this server alone, and that those may load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response

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
ENTER = "/enter"
"""Where a browser trades the key for a cookie."""
VISITED = frozenset({"/", "/docs", ENTER})
"""Pages that a link on another site may lead to."""
PAGE = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "media-src 'self' data: blob:", "font-src 'self' data:",
    "connect-src 'self' data: blob:", "worker-src 'self' blob:", "frame-src 'self' data: blob:", "object-src 'none'",
    "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'",
))  # fmt: skip
"""What the studio's page may do: much, as it builds itself, but nothing that leaves this server."""
NOTHING = "default-src 'none'; frame-ancestors 'none'"
ALWAYS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY"}
DAY = 86400
LOCKED = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>conjure</title><style>body{font:1rem/1.5 system-ui,sans-serif;margin:10vh auto;max-width:24rem;padding:0 1rem}
input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.25rem 0}
:root{color-scheme:light dark}</style>
<h1>This server has a key</h1><p>It was printed when the server was started.</p>
<form action="/enter"><label>Key <input name="key" type="password" autocomplete="off" required autofocus></label>
<button>Enter</button></form></html>"""
BACK = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><a href="/">conjure</a>'


class Guard:
    """Refuses what may not come in, and passes the rest to `app`."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self._key = _digest(settings.key) if settings.key else None
        self._pass = hmac.new(settings.key.encode(), b"conjure studio", sha256).hexdigest() if settings.key else ""
        self._cookie = f"conjure_{_digest(self._pass).hex()[:8]}"  # servers of one host share its cookies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "websocket":
            await self._socket(scope, headers, receive, send)
            return
        origin = headers.get("origin", "")
        began = False

        async def marked(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                self._mark(message, origin)
            await send(message)

        try:
            self._host(headers)
            self._site(scope, headers)
            if (answer := self._own(scope, headers)) is not None:
                await answer(scope, receive, marked)  # type: ignore[arg-type]
                return
            self._admit(scope, headers)
            await self.app(scope, self._bounded(headers, receive), marked)
        except ApiError as error:
            if began:
                raise
            answer = self._locked(error, scope, headers) or error.response()
            await answer(scope, receive, marked)  # type: ignore[arg-type]

    async def _socket(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """Websockets go by the same rules, and only a studio has any: browsers do not ask before they open them."""
        try:
            self._host(headers)
            self._site(scope, headers)
            self._admit(scope, headers)
            if not self.settings.studio:
                raise ApiError(404, "there are no websockets here")
        except ApiError:
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    # ---------------------------------------------------------------- who comes in
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
        visit = scope.get("method") == "GET" and headers.get("sec-fetch-mode") == "navigate" and _path(scope) in VISITED
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not visit:
            raise ApiError(403, "pages of other sites may not call this server", code="origin_not_allowed")

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        if self._key is None or _path(scope) in OPEN or _path(scope).startswith(LINKS):
            return
        given = headers.get("authorization", "").partition(" ")[2].strip() or headers.get("x-api-key", "")
        passes = [each.partition("=")[2].strip() for each in headers.get("cookie", "").split(";")
                  if each.partition("=")[0].strip() == self._cookie]  # fmt: skip
        known = hmac.compare_digest(_digest(given), self._key)
        if not known and not any(hmac.compare_digest(_digest(each), _digest(self._pass)) for each in passes):
            raise ApiError(401, "the key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key",
                           headers={"WWW-Authenticate": "Bearer"})  # fmt: skip

    # ---------------------------------------------------------------- what the door answers itself
    def _own(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        origin = headers.get("origin", "")
        if scope["method"] == "OPTIONS" and origin in self.settings.origins:  # asked by a browser before it sends
            return Response(status_code=204, headers={
                "Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Max-Age": "600",
                "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "content-type"),
            })  # fmt: skip
        if _path(scope) != ENTER or scope["method"] != "GET":
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[-1]
        if self._key is not None and not hmac.compare_digest(_digest(given), self._key):
            raise ApiError(401, "the key is wrong", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        # A browser that comes from another site's link does not send a strict cookie along a redirect.
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        answer = HTMLResponse(BACK) if elsewhere else RedirectResponse("/", 303)
        if self._key is not None:
            answer.set_cookie(self._cookie, self._pass, max_age=30 * DAY, path="/", httponly=True, samesite="strict",
                              secure=scope.get("scheme") == "https")  # fmt: skip
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _locked(self, error: ApiError, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Whoever opens a page without the key is asked for it."""
        asks = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if error.status != 401 or not asks:
            return None
        policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
        return HTMLResponse(LOCKED, 401, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})

    def _mark(self, message: Message, origin: str) -> None:
        """The headers that tell browsers what an answer is for."""
        have = {name.lower() for name, _ in message.get("headers", ())}
        page = any(name.lower() == b"content-type" and value.startswith((b"text/html", b"text/javascript"))
                   for name, value in message.get("headers", ()))  # fmt: skip  # a worker's script has rules of its own
        more = dict(ALWAYS)
        more["content-security-policy"] = PAGE if page and self.settings.studio else NOTHING
        if origin in self.settings.origins:
            more |= {"access-control-allow-origin": origin, "vary": "Origin"}
        else:
            more["cross-origin-resource-policy"] = "same-origin"
        message["headers"] = [*message.get("headers", ()),
                              *((name.encode(), value.encode()) for name, value in more.items()
                                if name.encode() not in have)]  # fmt: skip

    # ---------------------------------------------------------------- how much comes in
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


def _digest(text: str) -> bytes:
    """Of equal length for every text, so that comparing takes equally long."""
    return sha256(text.encode("utf-8", "replace")).digest()


def _path(scope: Scope) -> str:
    return scope["path"]


def _name(host: str) -> str:
    """`localhost:8001` -> `localhost`, `[::1]:8001` -> `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
