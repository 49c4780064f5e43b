"""The work of a page: each session one piece at a time, that can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

import gradio as gr

from conjure.core.errors import ConjureError
from conjure.serve.making import working
from conjure.serve.state import Server
from conjure.serve.worker import Ticket
from conjure.studio.following import BEAT, Stage, following
from conjure.tasks.make import Plan


class Tickets:
    """What runs on one page, by session.

        with tickets.taken(request) as key:                # `ConjureError` where something of this session runs
            async with aclosing(tickets.stages(key, home, plan)) as stages:
                async for stage in stages:
                    yield ...

    `busy` is the error's text."""

    def __init__(self, busy: str) -> None:
        self.busy = busy
        self._tickets: dict[str, Ticket | None] = {}

    def running(self, request: gr.Request) -> bool:
        """Whether something of this session is under way."""
        return str(request.session_hash) in self._tickets

    @contextmanager
    def taken(self, request: gr.Request) -> Iterator[str]:
        """The session's one place, until the block ends."""
        key = str(request.session_hash)
        if key in self._tickets:
            raise ConjureError(self.busy)
        self._tickets[key] = None
        try:
            yield key
        finally:
            self._tickets.pop(key, None)

    def runs(self, key: str, ticket: Ticket) -> Ticket:
        """The ticket, as what `stop` ends for this session."""
        self._tickets[key] = ticket
        return ticket

    async def stages(self, key: str, home: Server, plan: Callable[[], Plan]) -> AsyncGenerator[Stage, None]:
        """Plans in a thread, hands the work to the worker and follows it; what is made is kept in the history."""
        planned = await asyncio.to_thread(plan)
        ticket = self.runs(key, home.worker.submit(lambda: working(home, planned, keep=True)))
        async with aclosing(following(ticket.events(heartbeat=BEAT))) as stages:
            async for stage in stages:
                yield stage

    def stop(self, request: gr.Request) -> None:
        """Ends what runs for this session, if anything does."""
        ticket = self._tickets.get(str(request.session_hash))
        if ticket is not None:
            ticket.cancel()
