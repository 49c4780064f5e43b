"""`/metrics`: what the server does and has, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from conjure.serve.errors import ApiError
from conjure.serve.guard import App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from conjure.serve.state import Server

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)

router = APIRouter()


class Metrics:
    """The counters of one server."""

    def __init__(self, home: Server) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("conjure_requests", "Requests answered", ["endpoint", "method", "status"],
                                registry=registry)  # fmt: skip
        self.seconds = Histogram("conjure_request_seconds", "From a request's head to the end of its answer",
                                 ["endpoint"], buckets=SECONDS, registry=registry)  # fmt: skip
        self.tokens = Counter("conjure_tokens", "Tokens of texts, read and written", ["model", "way"],
                              registry=registry)  # fmt: skip
        self.made = Counter("conjure_results", "Results made, by medium", ["kind"], registry=registry)
        self.registry.register(_Now(home))
        ProcessCollector(registry=self.registry)


class _Now(Collector):
    """What is so at the moment."""

    def __init__(self, home: Server) -> None:
        self._home = home

    def collect(self) -> Iterator[GaugeMetricFamily]:
        work = GaugeMetricFamily("conjure_work", "Requests at the worker", labels=["state"])
        for state, count in self._home.worker.load.items():
            work.add_metric([state], count)
        jobs = GaugeMetricFamily("conjure_jobs", "Jobs that are known", labels=["state"])
        for state, count in self._home.jobs.counts().items():
            jobs.add_metric([state], count)
        models = GaugeMetricFamily("conjure_model_bytes", "Weights of the models in memory", labels=["model"])
        for model, size in self._home.keeper.held.items():
            models.add_metric([model], size)
        yield from (work, jobs, models)

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing has to be asked of a server that has not begun yet."""
        return []


class Metered:
    """Counts every request, the refused ones too."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noticed(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noticed)
        finally:
            counted: Metrics = scope["app"].state.server.metrics  # there from startup on
            endpoint = _endpoint(scope)
            counted.requests.labels(endpoint, _method(scope["method"]), str(status or "none")).inc()
            counted.seconds.labels(endpoint).observe(time.monotonic() - began)


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """All of it, in the form that Prometheus reads."""
    home: Server = request.app.state.server
    if not home.settings.loopback and not home.settings.key:
        raise ApiError(404, "there is no /metrics")
    return Response(generate_latest(home.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _endpoint(scope: Scope) -> str:
    """The pattern of the path, of which there are few; "other" for whatever has none."""
    path = getattr(scope.get("route"), "path", "")
    return path if path.startswith(("/v1/", "/health", "/media/", "/metrics", "/docs")) else "other"


def _method(given: str) -> str:
    return given if given in ("GET", "POST", "DELETE", "OPTIONS", "HEAD") else "other"
