"""The server: the guard in front, the endpoints behind it, one worker that computes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from conjure.core.version import __version__
from conjure.serve import (
    audio,
    chat,
    completions,
    errors,
    handbook,
    images,
    jobs,
    making,
    messages,
    models,
    past,
    responses,
    speech,
)
from conjure.serve import metrics as counters
from conjure.serve.guard import Guard
from conjure.serve.idempotency import Idempotent
from conjure.serve.metrics import Metered
from conjure.serve.settings import Settings
from conjure.serve.state import Server, server


def build(settings: Settings) -> FastAPI:
    """The ASGI application. Its worker and its history live from startup to shutdown."""

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        home = Server(settings)
        app.state.server = home
        home.start()
        try:
            yield
        finally:
            home.stop()

    app = FastAPI(title="conjure", version=__version__, lifespan=living, docs_url=None, redoc_url=None,
                  default_response_class=errors.Json)  # fmt: skip
    app.state.settings = settings
    errors.install(app)
    app.add_middleware(Idempotent)  # type: ignore[arg-type]
    app.add_middleware(Guard, settings=settings)  # type: ignore[arg-type]
    app.add_middleware(Metered)  # type: ignore[arg-type]  # the last is the first that a request meets
    parts = (models, making, jobs, images, audio, speech, chat, completions, messages, responses)
    for part in (*parts, past, counters, handbook):
        app.include_router(part.router)

    @app.get("/health")
    def health(request: Request) -> dict[str, Any]:
        """Whether the server lives, and how much it has to do."""
        home = server(request)
        return {"status": "ok", "version": __version__, **home.worker.load}

    handbook.describe(app)
    return app
