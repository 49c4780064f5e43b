"""The page at `/`: its tabs, and how it sits in the server's application."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from starlette.routing import Match

from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.media import Text
from conjure.serve.errors import ApiError
from conjure.serve.state import Server
from conjure.studio import chat, compare, edit, listen, make, models, past, player, showing, speak, train
from conjure.studio.theme import CSS, HEAD, theme
from conjure.tasks.make import plan, run

LOG = logging.getLogger("conjure.studio")

CONCURRENT = 16
"""Listeners of one kind that run at once: they wait for the worker, and compute nothing."""
TIDIED_SECONDS, KEPT_SECONDS = 600, 86400
"""How often files are removed from the temporary folder from which the page shows them, and how old they become."""
_NEEDED = re.compile(
    r"/gradio_api/(queue/(join|data)|upload|upload_progress|file=.*|app_id|heartbeat/\w+|reset|cancel|startup-events"
    r"|component_server|run/predict|theme\.css)/?"
)
"""What the page asks of Gradio's own endpoints. The rest, which fetches, records and edits, is not reachable."""
_CLOSED = ("/gradio_api", "/monitoring", "/login", "/logout", "/svelte", "/pwa_icon", "/config", "/user", "/token")

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


def mounted(app: FastAPI) -> FastAPI:
    """The server's application with the page at its root; the endpoints stay where they are."""
    app.add_api_route("/v1/{rest:path}", _nothing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                      include_in_schema=False)  # fmt: skip
    page = blocks(lambda: app.state.server)
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], run_history=False, allowed_paths=[], show_error=False,
        max_file_size=app.state.settings.limits.body_bytes, ssr_mode=False, enable_monitoring=False, pwa=False,
        mcp_server=False, theme=theme(), css=CSS + player.STYLE,
    )  # fmt: skip
    page_itself: Any = app.routes[-1]
    page_itself.app = _apart(page_itself.app)
    app.add_middleware(Shell)  # type: ignore[arg-type]
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def warmed(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            home: Server = app.state.server
            tidying = asyncio.create_task(_tidying())
            warming = home.worker.submit(lambda: _warm(home))
            yield state
            warming.cancel()
            tidying.cancel()

    app.router.lifespan_context = warmed
    return app


def blocks(home: Callable[[], Server]) -> gr.Blocks:
    """The page."""
    kept = (TIDIED_SECONDS, KEPT_SECONDS)
    with gr.Blocks(title="conjure studio", analytics_enabled=False, delete_cache=kept) as made:
        gr.HTML('<header id="head"><h1>conjure</h1><p>Any medium in, any medium out, on your own machine</p></header>')
        with gr.Tabs() as tabs:
            with gr.Tab("Make", id="make"):
                files = make.page(home)
            with gr.Tab("Chat", id="chat"):
                chat.page(home)
            with gr.Tab("Edit", id="edit"):
                edit.page(home)
            with gr.Tab("Listen", id="listen") as tab:
                listen.page(home, tab)
            with gr.Tab("Speak", id="speak") as tab:
                speak.page(home, tab)
            with gr.Tab("Compare", id="compare"):
                compare.page(home)
            with gr.Tab("History", id="history") as tab:
                past.page(home, tab, tabs, files)
            with gr.Tab("Models", id="models") as tab:
                models.page(home, tab)
            with gr.Tab("Train", id="train"):
                train.page(home)
    made.queue(default_concurrency_limit=CONCURRENT, api_open=False)
    return made


def _warm(home: Server) -> Iterator[Event]:
    """The example in one step, for nobody: the model and what it runs on are loaded when the first picture is asked
    for."""
    try:
        yield from run(plan(Text(make.EXAMPLE), to="image", seed=0, steps=1), home.keeper.ready)
    except ConjureError as error:  # a machine without that model makes other things
        LOG.info("nothing is loaded ahead: %s", error.message)


async def _tidying() -> None:
    """What the page showed long ago is still in the history, and need not lie about as a file as well."""
    while True:
        await asyncio.sleep(TIDIED_SECONDS)
        await asyncio.to_thread(showing.tidy, KEPT_SECONDS)


class Shell:
    """Around the page: 404 for what Gradio would offer and the page does not need; and our own head in the page itself,
    where Gradio adds it only after its scripts are loaded, so that there is something to see at once."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(_CLOSED) and not _NEEDED.fullmatch(path):
            await ApiError(404, f"there is no {path}").response()(scope, receive, send)
        elif scope["type"] == "http" and path == "/" and scope["method"] == "GET":
            plain = [each for each in scope["headers"] if each[0] != b"accept-encoding"]
            await self.app({**scope, "headers": plain}, receive, _headed(send))
        else:
            await self.app(scope, receive, send)


def _apart(app: App) -> App:
    """The page's application writes itself into a request's scope, where what is around it looks for the server's."""

    async def called(scope: Scope, receive: Any, send: Any) -> None:
        await app(dict(scope), receive, send)

    return called


def _headed(send: Any) -> Any:
    """Sends a page of HTML with our head in it, and anything else as it is."""
    start: list[Any] = []
    parts: list[bytes] = []

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            if not (kinds and kinds[0].startswith(b"text/html")):
                await send(message)
                return
            start.append(message)
        elif not start:
            await send(message)
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                page = b"".join(parts).replace(b"</head>", (HEAD + player.SCRIPT).encode() + b"</head>", 1)
                headers = [each for each in start[0]["headers"] if each[0].lower() != b"content-length"]
                await send(start[0] | {"headers": [*headers, (b"content-length", str(len(page)).encode())]})
                await send({"type": "http.response.body", "body": page})

    return sending


async def _nothing(request: Request, rest: str) -> None:
    """The page would answer for every path below the root: the API's own errors come first."""
    for route in request.app.routes:
        if route.matches(request.scope)[0] is Match.PARTIAL:
            raise ApiError(405, f"{request.method} does not go with {request.url.path}")
    raise ApiError(404, f"there is no {request.url.path}")
