"""One thread that computes, and tickets for whoever waits for it.

Networks run best one at a time on all cores. So work is handed in as a function that returns an iterator of events, the
worker draws from the iterators, and each ticket hands its events over to the event loop. Work of several tickets may be
`shared`: it takes turns, step by step, with the rest, which is done one after the other in the order it came. Of the
rest, what is `Alike` is begun together with the first of its kind, and takes turns too (`batches.py` says what that is
good for). Cancelling a ticket closes its iterator before the next event. Work may yield None, for a step that brought
nothing: nobody hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from conjure.core.errors import ConjureError
from conjure.serve.errors import ApiError

Work = Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class Waiting:
    """So many are served before this one."""

    position: int


@dataclass(frozen=True)
class Alike:
    """What work has in common that may be begun together: as much of it as has a `size` of `TOGETHER` in all."""

    key: Hashable
    size: int = 1


TOGETHER = 8


class _End:
    """Nothing more comes."""


@dataclass(frozen=True)
class _Failed:
    error: Exception


class Ticket:
    """One piece of work. `events` is read once, in the event loop it was made in."""

    def __init__(self, worker: Worker, work: Work, seconds: float, alike: Alike | None) -> None:
        self._worker, self._work, self._seconds, self.alike = worker, work, seconds, alike
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._iterator: Iterator[Any] | None = None
        self._deadline = float("inf")
        self.cancelled = threading.Event()

    async def events(self, heartbeat: float | None = None) -> AsyncGenerator[Any, None]:
        """`Waiting` while others are served, then what the work yields; its exceptions are raised here. None wherever
        nothing came for `heartbeat` seconds. Whoever stops reading cancels the work."""
        try:
            while True:
                try:
                    event = await asyncio.wait_for(self._came.get(), heartbeat)
                except TimeoutError:
                    yield None
                    continue
                if isinstance(event, _End):
                    return
                if isinstance(event, _Failed):
                    raise event.error
                yield event
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Ends the work before its next event; what has ended already stays as it is."""
        self.cancelled.set()
        self._worker._forget(self)

    # ---------------------------------------------------------------- in the worker's thread
    def _step(self) -> bool:
        """One event; False where there is none left."""
        try:
            if self.cancelled.is_set():
                self._end()
                return False
            if self._iterator is None:
                self._deadline = time.monotonic() + self._seconds
                self._iterator = self._work()
            if time.monotonic() > self._deadline:
                raise ApiError(504, f"the work was stopped after {self._seconds:g} seconds", code="timeout")
            if (event := next(self._iterator)) is not None:
                self._hand(event)
            return True
        except StopIteration:
            self._hand(_End())
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the one who asked
            self._close()
            self._hand(_Failed(error))
        return False

    def _end(self) -> None:
        self._close()
        self._hand(_End())

    def _close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def _hand(self, event: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is gone: so is whoever waited
            self._loop.call_soon_threadsafe(self._came.put_nowait, event)


class Worker:
    """Started with `start`, ended with `stop`; at most `queue` tickets wait."""

    def __init__(self, queue: int, seconds: float) -> None:
        self._most, self._seconds = queue, seconds
        self._waiting: deque[Ticket] = deque()
        self._shared: list[Ticket] = []
        self._current: list[Ticket] = []
        self._condition = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="conjure-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Cancels everything and waits for the thread to end."""
        with self._condition:
            self._stopped = True
            for ticket in (*self._waiting, *self._shared, *self._current):
                ticket.cancelled.set()
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def submit(
        self, work: Work, *, seconds: float | None = None, shared: bool = False, alike: Alike | None = None
    ) -> Ticket:
        """A ticket for the work; 429 where too many wait. Called in an event loop."""
        ticket = Ticket(self, work, self._seconds if seconds is None else seconds, alike)
        with self._condition:
            if self._stopped:
                raise ApiError(503, "the server is stopping", headers={"Retry-After": "5"})
            if len(self._waiting) >= self._most:
                raise ApiError(429, f"{self._most} requests are waiting already", code="queue_full",
                               headers={"Retry-After": "5"})  # fmt: skip
            if shared:
                self._shared.append(ticket)
            else:
                self._waiting.append(ticket)
                if place := len(self._waiting) - 1 + len(self._current):
                    ticket._came.put_nowait(Waiting(place))
            self._condition.notify_all()
        return ticket

    @property
    def load(self) -> dict[str, int]:
        """How many wait, and how many are being served."""
        with self._condition:
            return {"waiting": len(self._waiting), "running": len(self._shared) + len(self._current)}

    def _forget(self, ticket: Ticket) -> None:
        """What was cancelled gives up its place at once; what is being served ends before its next event."""
        with self._condition:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                ticket._end()
                self._tell_places()
            self._condition.notify_all()

    def _tell_places(self) -> None:
        for place, ticket in enumerate(self._waiting, start=1):
            ticket._hand(Waiting(place))

    def _next(self) -> list[Ticket]:
        """The first that waits, with those that may go with it."""
        group = [first := self._waiting.popleft()]
        if first.alike is not None:
            room = TOGETHER - first.alike.size
            for ticket in list(self._waiting):
                if ticket.alike is not None and ticket.alike.key == first.alike.key and ticket.alike.size <= room:
                    self._waiting.remove(ticket)
                    group.append(ticket)
                    room -= ticket.alike.size
        return group

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._waiting or self._shared or self._current or self._stopped):
                    self._condition.wait()
                if self._stopped and not (self._waiting or self._shared or self._current):
                    return
                if self._waiting and not self._current:
                    self._current = self._next()
                    self._tell_places()
                tickets = [*self._shared, *self._current]
            ended = [ticket for ticket in tickets if not ticket._step()]
            with self._condition:
                self._shared = [ticket for ticket in self._shared if ticket not in ended]
                self._current = [ticket for ticket in self._current if ticket not in ended]


async def result(ticket: Ticket) -> Any:
    """The last event of a ticket, for those who wait for the whole."""
    last: Any = None
    async for event in ticket.events():
        last = event
    if last is None:
        raise ConjureError("the work was cancelled")
    return last
