"""`/v1/jobs`: long work that goes on without its client, and after a restart of the server.

A wish is stored before it is answered, with its seeds drawn and its media beside it, and planned anew from what is
stored when its turn comes: so it makes no difference whether the process in between was the same. Jobs are handed to
the worker one at a time, so that those who wait for an answer do not wait for all of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import secrets
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Preview, Progress, Warn
from conjure.core.jobs import LIVING, Entry
from conjure.core.jobs import Jobs as Store
from conjure.media.kinds import writable
from conjure.serve.errors import ApiError, Json, told
from conjure.serve.making import DIGEST, PING, STREAM, Made, Previews, Wish, planned, working
from conjure.serve.state import Server, server
from conjure.serve.wire import HEARTBEAT, event_name, file_bytes, packed, plain, sse
from conjure.serve.worker import Ticket, Waiting
from conjure.tasks.make import Plan, record

LOG = logging.getLogger("conjure.serve")
AGAIN = 1.0  # seconds until a full queue is tried again, and between two looks at a job of another process

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job. Media of `wish` are named by their digest; times are seconds since 1970; `progress` is the share that is
    done, None where nobody knows; `results` are numbers of the history, `links` names below /media/ where it keeps
    none."""

    id: str
    state: str
    wish: Wish
    created: float
    started: float | None
    ended: float | None
    progress: float | None
    error: dict[str, Any] | None
    results: tuple[int, ...]
    links: tuple[str, ...]
    attempts: int

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in LIVING


@dataclass(frozen=True)
class Finished:
    """The last event of a job."""

    job: Job


class _Live:
    """What is known of a job that has not ended, for whoever follows it: all that adds up, and the latest of the
    rest. Changed in the event loop alone."""

    def __init__(self) -> None:
        self._serial = 0
        self._kept: list[tuple[int, Any]] = []
        self._latest: dict[type, tuple[int, Any]] = {}
        self.changed = asyncio.Event()
        self.ticket: Ticket | None = None
        self.watchers = 0
        self.over = False

    def tell(self, event: Any) -> None:
        self._serial += 1
        if isinstance(event, Warn | Delta):
            self._kept.append((self._serial, event))
        elif isinstance(event, Waiting | Progress | Preview):
            self._latest[type(event)] = (self._serial, event)
            if not isinstance(event, Waiting):
                self._latest.pop(Waiting, None)
        self._wake()

    def end(self) -> None:
        self.over = True
        self._wake()

    def since(self, serial: int) -> list[tuple[int, Any]]:
        return sorted(each for each in (*self._kept, *self._latest.values()) if each[0] > serial)

    def progress(self) -> float | None:
        _, event = self._latest.get(Progress, (0, None))
        return event.step / event.total if event is not None and event.total else None

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Jobs:
    """The jobs of one server. `add`, `get`, `recent`, `cancel` and `delete` may be called in any thread; they read and
    write a file, so an event loop does better to call them through `asyncio.to_thread`."""

    def __init__(self, home: Server) -> None:
        self._home = home
        self._own = tempfile.TemporaryDirectory(prefix="conjure-jobs-") if home.history is None else None
        self._store = Store(Path(self._own.name) if self._own else home.history.folder / "jobs")  # type: ignore[union-attr]
        self._live: dict[str, _Live] = {}
        self._waiting: deque[str] = deque()
        self._more = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Takes up what an earlier process has left. Called in the event loop."""
        limits = self._home.settings.limits
        self._store.prune(limits.jobs_kept, limits.jobs_seconds)
        self._loop = asyncio.get_running_loop()
        for name in self._store.adopt():
            self._live[name] = _Live()
            self._enter(name)
        self._task = self._loop.create_task(self._run())

    def stop(self) -> None:
        """After the worker has stopped: what it was at waits for the next process."""
        if self._task is not None:
            self._task.cancel()
        self._store.release()
        self._store.close()
        if self._own is not None:
            self._own.cleanup()

    # ---------------------------------------------------------------- for clients
    def add(self, wish: Wish) -> Job:
        """A job that is stored, with its seeds drawn, and will be done. `ApiError` for what cannot be done."""
        limits = self._home.settings.limits
        if self._store.counts()["queued"] >= limits.jobs:
            raise ApiError(429, f"{limits.jobs} jobs are waiting already", code="queue_full",
                           headers={"Retry-After": "30"})  # fmt: skip
        files: dict[str, bytes] = {}
        stored = self._put_away(wish, files)
        settled = planned(self._home, stored, files.__getitem__)
        values = stored.model_dump(exclude={"stream", "previews"}) | {"seed": settled.seeds[0]}
        name = f"job_{secrets.token_urlsafe(18)}"
        self._live[name] = _Live()
        try:
            self._store.add(name, json.dumps(values), files)
        except ConjureError:
            del self._live[name]
            raise
        assert self._loop is not None, "jobs are taken between start and stop"
        self._loop.call_soon_threadsafe(self._enter, name)
        self._store.prune(limits.jobs_kept, limits.jobs_seconds)
        return self.get(name)

    def get(self, name: str) -> Job:
        """One job; 404 where there is none of that name."""
        entry = self._store.get(name)
        if entry is None:
            raise ApiError(404, f"there is no job {name[:60]!r}", code="job_not_found")
        return self._job(entry)

    def recent(self, limit: int = 20) -> list[Job]:
        """The latest first."""
        return [self._job(entry) for entry in self._store.latest(limit)]

    def counts(self) -> dict[str, int]:
        """How many are in each state."""
        return self._store.counts()

    def cancel(self, name: str) -> Job:
        """The job, ended before its next step; as it is where it has ended already."""
        self.get(name)
        if self._store.end(name, "cancelled") and self._loop is not None:
            self._loop.call_soon_threadsafe(self._leave, name)
        return self.get(name)

    def delete(self, name: str) -> None:
        """Forgets a job, cancelled first; its results in the history stay."""
        self.cancel(name)
        self._store.delete(name)

    def file(self, digest: str) -> bytes:
        """The bytes of a medium that a wish names by its digest."""
        return self._store.file(digest)

    async def follow(
        self, name: str, heartbeat: float | None = None, *, previews: bool = True
    ) -> AsyncGenerator[Any, None]:
        """`Waiting`, `Progress`, `Preview`, `Delta` and `Warn` of a job, from where it stands now, and `Finished` at
        the end; None wherever nothing came for `heartbeat` seconds. Whoever stops reading leaves the job as it is."""
        live = self._live.get(name)
        if live is None:
            async for event in self._watched(name, heartbeat):
                yield event
            return
        live.watchers += previews
        seen = 0
        try:
            while True:
                changed, over = live.changed, live.over
                for serial, event in live.since(seen):
                    seen = serial
                    if previews or not isinstance(event, Preview):
                        yield event
                if over:
                    break
                try:
                    await asyncio.wait_for(changed.wait(), heartbeat)
                except TimeoutError:
                    yield None
            yield Finished(await asyncio.to_thread(self.get, name))
        finally:
            live.watchers -= previews

    async def _watched(self, name: str, heartbeat: float | None) -> AsyncGenerator[Any, None]:
        """The same of a job that has ended, or that another process has."""
        for looks in itertools.count(1):
            job = await asyncio.to_thread(self.get, name)
            if job.over:
                yield Finished(job)
                return
            await asyncio.sleep(AGAIN)
            if heartbeat is not None and looks % max(1, round(heartbeat / AGAIN)) == 0:
                yield None

    # ---------------------------------------------------------------- in the event loop
    def _enter(self, name: str) -> None:
        self._waiting.append(name)
        self._live[name].tell(Waiting(len(self._waiting)))
        self._more.set()

    def _leave(self, name: str) -> None:
        live = self._live.get(name)
        if live is not None and live.ticket is not None:
            live.ticket.cancel()  # and `_one` sees to the rest
        elif live is not None:
            if name in self._waiting:
                self._waiting.remove(name)
            self._ended(name)

    def _ended(self, name: str) -> None:
        self._live.pop(name).end()
        for place, each in enumerate(self._waiting, start=1):
            self._live[each].tell(Waiting(place))

    async def _run(self) -> None:
        while True:
            self._more.clear()
            if not self._waiting:
                await self._more.wait()
            elif not await self._one(self._waiting[0]):
                await asyncio.sleep(AGAIN)

    async def _one(self, name: str) -> bool:
        """One job from beginning to end; False where the worker takes no more now."""
        live = self._live[name]
        try:
            ticket = self._home.worker.submit(lambda: self._work(name, live))
        except ApiError:  # too many wait
            return False
        self._waiting.popleft()
        live.ticket = ticket
        try:
            async with aclosing(ticket.events()) as events:
                async for event in events:
                    live.tell(event)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the one who asked
            await asyncio.to_thread(self._failed, name, _said(error))
        self._ended(name)
        return True

    def _failed(self, name: str, error: dict[str, Any]) -> None:
        try:
            self._store.end(name, "failed", error=error)
        except ConjureError as worse:  # a full disk, say: the next process will try again
            LOG.warning("a job could not be marked as failed: %s", worse.message)

    # ---------------------------------------------------------------- in the worker's thread
    def _work(self, name: str, live: _Live) -> Iterator[Any]:
        if not self._store.begin(name):  # cancelled meanwhile
            return
        entry = self._store.get(name)
        assert entry is not None
        wish = Wish(**json.loads(entry.wish))
        settled = planned(self._home, wish, self._store.file)
        previews = Previews(share=Previews.CHEAP, asked=lambda: live.watchers > 0)
        for event in working(self._home, settled, keep=wish.history, previews=previews):
            if isinstance(event, Made):
                links = () if event.numbers else self._linked(event.plan, event)
                self._store.end(name, "done", results=event.numbers, links=links)
            yield event

    def _linked(self, made_of: Plan, done: Made) -> list[str]:
        media: list[Any] = list(done.result.media)
        suffix = writable(media[0].kind)[0]
        return [self._home.links.add(file_bytes(each, suffix, record(made_of, index)), suffix)
                for index, each in enumerate(media)]  # fmt: skip

    # ---------------------------------------------------------------- inside
    def _job(self, entry: Entry) -> Job:
        live = self._live.get(entry.id)
        progress = 1.0 if entry.state == "done" else live.progress() if live is not None else None
        return Job(id=entry.id, state=entry.state, wish=Wish(**json.loads(entry.wish)), created=entry.created,
                   started=entry.started, ended=entry.ended, progress=progress, error=entry.error,
                   results=entry.results, links=entry.links, attempts=entry.attempts)  # fmt: skip

    def _put_away(self, wish: Wish, files: dict[str, bytes]) -> Wish:
        """The wish with its media named by their digests, their bytes among the files."""

        def named(value: Any, param: str) -> Any:
            if not isinstance(value, Mapping) or isinstance(value.get("text"), str):
                return value
            data = packed(value, param, self._home.fetch)
            digest = hashlib.sha256(data).hexdigest()
            files[digest] = data
            return {DIGEST: digest}

        inputs = [named(each, f"inputs[{place}]") for place, each in enumerate(wish.inputs)]
        options = {name: named(each, f"options.{name}") for name, each in wish.options.items()}
        return wish.model_copy(update={"inputs": inputs, "options": options})


def _said(error: Exception) -> dict[str, Any]:
    if isinstance(error, ConjureError):
        error = told(error)
    if not isinstance(error, ApiError):
        LOG.error("a job failed", exc_info=error)
        error = ApiError(500, "the server failed; its log says why", code="internal_error")
    return error.body()["error"]


# -- over HTTP --------------------------------------------------------------------------------------------------------


@router.post("/v1/jobs")
def add(wish: Wish, request: Request) -> Json:
    """A job for the wish, which is done whether or not its client waits, and after a restart too."""
    return Json(shown(server(request).jobs.add(wish)), 202)


@router.get("/v1/jobs")
def listed(request: Request, limit: int = Query(default=20, ge=1, le=200)) -> dict[str, Any]:
    """The latest jobs first."""
    return {"object": "list", "data": [shown(job) for job in server(request).jobs.recent(limit)]}


@router.get("/v1/jobs/{name}")
def one(name: str, request: Request) -> dict[str, Any]:
    """How a job stands, and where its results are."""
    return shown(server(request).jobs.get(name))


@router.get("/v1/jobs/{name}/events", response_class=StreamingResponse,
            responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip
async def events(name: str, request: Request, previews: bool = False) -> StreamingResponse:
    """What happens to a job from now on, as server-sent events; "finished" is the last, and says how it stands."""
    jobs = server(request).jobs
    await asyncio.to_thread(jobs.get, name)
    return StreamingResponse(_told(jobs, name, previews), media_type="text/event-stream", headers=STREAM)


@router.post("/v1/jobs/{name}/cancel")
def cancel(name: str, request: Request) -> dict[str, Any]:
    """Ends a job before its next step; one that has ended stays as it is."""
    return shown(server(request).jobs.cancel(name))


@router.delete("/v1/jobs/{name}")
def delete(name: str, request: Request) -> dict[str, Any]:
    """Forgets a job and its inputs, cancelled first. Its results stay in the history."""
    server(request).jobs.delete(name)
    return {"id": name, "object": "job.deleted", "deleted": True}


async def _told(jobs: Jobs, name: str, previews: bool) -> AsyncIterator[str]:
    try:
        async with aclosing(jobs.follow(name, PING, previews=previews)) as came:
            async for event in came:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Finished):
                    yield sse("finished", shown(event.job))
                elif isinstance(event, Preview):
                    yield sse("preview", await asyncio.to_thread(plain, event))
                else:
                    yield sse(event_name(event), plain(event))
    except ApiError as error:  # it was deleted meanwhile
        yield sse("error", error.body())


def shown(job: Job) -> dict[str, Any]:
    """A job as plain values."""
    contents = [f"/v1/history/{number}/content" for number in job.results] or [f"/media/{each}" for each in job.links]
    return {"id": job.id, "object": "job", "state": job.state, "created": _when(job.created),
            "started": _when(job.started), "ended": _when(job.ended), "progress": job.progress,
            "attempts": job.attempts, "error": job.error, "results": list(job.results), "contents": contents,
            "wish": job.wish.model_dump(exclude={"stream", "previews"})}  # fmt: skip


def _when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
