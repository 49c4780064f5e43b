"""What all endpoints share: settings, models in memory, the worker, the history, links to results."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from conjure.core.errors import ConjureError
from conjure.core.history import History
from conjure.serve.batches import Batches
from conjure.serve.keeper import Keeper
from conjure.serve.links import Fetcher
from conjure.serve.metrics import Metrics
from conjure.serve.settings import Settings
from conjure.serve.wire import Fetch
from conjure.serve.worker import Worker
from conjure.tasks.keeping import keep
from conjure.tasks.make import Plan

LOG = logging.getLogger("conjure.serve")


class Links:
    """Files under names that nobody can guess, for a while."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._files: OrderedDict[str, tuple[float, bytes, str]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes, suffix: str) -> str:
        """The name under which the file is found."""
        name = f"{secrets.token_urlsafe(24)}{suffix}"
        with self._lock:
            self._files[name] = (time.monotonic() + self._seconds, data, suffix)
            while len(self._files) > self._most:
                self._files.popitem(last=False)
        return name

    def get(self, name: str) -> tuple[bytes, str] | None:
        """The bytes and their suffix; None for names that are unknown or have run out."""
        with self._lock:
            until, data, suffix = self._files.get(name, (0.0, b"", ""))
            if until <= time.monotonic():
                self._files.pop(name, None)
                return None
        return data, suffix


class Server:
    """The parts of one running server."""

    def __init__(self, settings: Settings) -> None:
        from conjure.serve.jobs import Jobs  # which are jobs of a server

        self.settings = settings
        self.keeper = Keeper(settings)
        self.batches = Batches(self.keeper.ready)
        self.worker = Worker(settings.limits.queue, settings.limits.work_seconds)
        self.history = History(settings.history) if settings.history else None
        self.fetch: Fetch | None = Fetcher(settings.links_from).fetch if settings.links_from else None
        """Gets what lies behind links of clients, where the settings allow any."""
        self.links = Links(settings.limits.links, settings.limits.link_seconds)
        self.jobs = Jobs(self)
        self.metrics = Metrics(self)
        self.began = time.time()

    def start(self) -> None:
        """Called in the event loop."""
        self.worker.start()
        self.jobs.start()

    def stop(self) -> None:
        """Ends all work; jobs wait for the next process."""
        self.worker.stop()
        self.jobs.stop()
        if self.history is not None:
            self.history.close()

    def keep(self, planned: Plan, made: Sequence[Any], seconds: float) -> list[int]:
        """The numbers of results in the history; none where it is off or refuses, which spoils nothing."""
        if self.history is None:
            return []
        try:
            return keep(self.history, planned, made, [], seconds, source="server")
        except ConjureError as error:
            LOG.warning("not kept in the history: %s", error.message)
            return []


def server(request: Request) -> Server:
    """The server that a request came to."""
    return request.app.state.server
