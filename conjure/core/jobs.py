"""Jobs that outlive the process which took them: one SQLite file, and a folder of the files they came with.

    with Jobs(folder) as jobs:
        jobs.add("job_1", wish="{}", files={digest: data})
        jobs.begin("job_1")
        jobs.end("job_1", "done", results=[7])

Several processes may share a folder. A job belongs to the process that took it, which holds a lock for as long as it
lives, however it ends; `adopt` takes over the jobs of processes that are gone. A job that was at work then waits again,
unless it was tried often enough.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from conjure.core.errors import ConjureError
from conjure.core.store import Store

ATTEMPTS = 2
"""A job whose process ended so often while it was at work is not tried again: it may be what ended the process."""
LIVING = ("queued", "running")
ENDS = ("done", "failed", "cancelled")
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, state TEXT NOT NULL,
        wish TEXT NOT NULL, created REAL NOT NULL, started REAL, ended REAL, attempts INTEGER NOT NULL DEFAULT 0,
        error TEXT, results TEXT NOT NULL DEFAULT '[]', links TEXT NOT NULL DEFAULT '[]'
    );
    CREATE INDEX jobs_by_state ON jobs (state);
    CREATE TABLE files (
        job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE, digest TEXT NOT NULL,
        PRIMARY KEY (job, digest)
    );
    """,
)
"""Never change one: add one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One job as it is stored. Times are seconds since 1970; `wish` is JSON that the owner understands; `results` are
    numbers of the history, `links` names under which results lie elsewhere."""

    id: str
    owner: str
    state: str
    wish: str
    created: float
    started: float | None
    ended: float | None
    attempts: int
    error: dict[str, Any] | None
    results: tuple[int, ...]
    links: tuple[str, ...]


_COLUMNS = "id, owner, state, wish, created, started, ended, attempts, error, results, links"


class Jobs:
    """The jobs in a folder, which is made where it is missing. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = Store(folder, "jobs.sqlite3", MIGRATIONS, _ELSEWHERE)
        self._db = self._store.db
        self.owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        path = self._owned(self.owner)
        try:
            path.parent.mkdir(exist_ok=True)
            self._held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX)
        except OSError as error:
            self._store.close()
            raise ConjureError(f"{path}: could not be locked: {error.strerror or error}", hint=_ELSEWHERE) from None

    def __enter__(self) -> Jobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and gives the jobs that are not done up for adoption."""
        self._store.close()
        with contextlib.suppress(OSError):
            os.unlink(self._owned(self.owner))
        os.close(self._held)

    # ---------------------------------------------------------------- writing
    def add(self, name: str, wish: str, files: Mapping[str, bytes]) -> Entry:
        """A job that waits, with the files (digest -> bytes) that its wish names."""
        with self._store.writing():
            number = self._db.execute("INSERT INTO jobs (id, owner, state, wish, created) VALUES (?, ?, ?, ?, ?)",
                                      (name, self.owner, "queued", wish, time.time())).lastrowid  # fmt: skip
            self._db.executemany("INSERT INTO files (job, digest) VALUES (?, ?)", [(number, each) for each in files])
            for digest, data in files.items():
                self._store.keep(digest, data)
        found = self.get(name)
        assert found is not None
        return found

    def begin(self, name: str) -> bool:
        """Whether the job waited; now it is at work, and that counts as an attempt."""
        with self._store.writing():
            return self._db.execute(
                "UPDATE jobs SET state = 'running', started = ?, attempts = attempts + 1 "
                "WHERE id = ? AND owner = ? AND state = 'queued'", (time.time(), name, self.owner)
            ).rowcount == 1  # fmt: skip

    def end(
        self, name: str, state: str, *, error: Mapping[str, Any] | None = None, results: Sequence[int] = (),
        links: Sequence[str] = (),
    ) -> bool:  # fmt: skip
        """Whether the job had not ended yet; now it has, as "done", "failed" or "cancelled"."""
        assert state in ENDS
        values = (state, time.time(), json.dumps(error) if error else None, json.dumps(list(results)),
                  json.dumps(list(links)), name)  # fmt: skip
        with self._store.writing():
            return self._db.execute(
                "UPDATE jobs SET state = ?, ended = ?, error = ?, results = ?, links = ? "
                "WHERE id = ? AND state IN ('queued', 'running')", values
            ).rowcount == 1  # fmt: skip

    def release(self) -> None:
        """What is at work waits again, and the attempt does not count: the process ends in peace."""
        with self._store.writing():
            self._db.execute("UPDATE jobs SET state = 'queued', started = NULL, attempts = attempts - 1 "
                             "WHERE owner = ? AND state = 'running'", (self.owner,))  # fmt: skip

    def adopt(self) -> list[str]:
        """Takes over what processes that are gone have left; the ids of all jobs that wait here, the oldest first."""
        with self._store.writing():
            owners = {row[0] for row in self._db.execute("SELECT DISTINCT owner FROM jobs WHERE state IN "
                                                         "('queued', 'running')")} - {self.owner}  # fmt: skip
            for gone in filter(self._gone, owners):
                said = {"message": f"the server ended {ATTEMPTS} times while it was at work on this: it is not tried "
                                   "again", "type": "server_error", "param": None, "code": "interrupted"}  # fmt: skip
                self._db.execute("UPDATE jobs SET state = 'failed', ended = ?, error = ? WHERE owner = ? AND "
                                 "state = 'running' AND attempts >= ?",
                                 (time.time(), json.dumps(said), gone, ATTEMPTS))  # fmt: skip
                self._db.execute("UPDATE jobs SET state = 'queued', owner = ? WHERE owner = ? AND state IN "
                                 "('queued', 'running')", (self.owner, gone))  # fmt: skip
            rows = self._db.execute("SELECT id FROM jobs WHERE owner = ? AND state = 'queued' ORDER BY number",
                                    (self.owner,)).fetchall()  # fmt: skip
        return [row[0] for row in rows]

    def delete(self, name: str) -> bool:
        """Forgets a job, and the files that no other one came with; whether there was one."""
        with self._store.writing():
            gone = self._db.execute("DELETE FROM jobs WHERE id = ?", (name,)).rowcount == 1
            self._sweep()
        return gone

    def prune(self, keep: int, seconds: float) -> None:
        """Forgets what has ended, but for the latest `keep` of the last `seconds`."""
        with self._store.writing():
            gone = self._db.execute(
                "DELETE FROM jobs WHERE ended IS NOT NULL AND (ended < ? OR number NOT IN "
                "(SELECT number FROM jobs WHERE ended IS NOT NULL ORDER BY number DESC LIMIT ?))",
                (time.time() - seconds, keep),
            ).rowcount
            if gone:
                self._sweep()

    # ---------------------------------------------------------------- reading
    def get(self, name: str) -> Entry | None:
        """One job; None where there is none of that name."""
        with self._store.errors():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (name,)).fetchone()
        return None if row is None else _entry(row)

    def latest(self, limit: int) -> list[Entry]:
        """The latest first."""
        with self._store.errors():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_entry(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many are in each state."""
        with self._store.errors():
            found = dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in (*LIVING, *ENDS)}

    def file(self, digest: str) -> bytes:
        """The bytes of a file that a job came with."""
        try:
            return self._store.place(digest).read_bytes()
        except OSError as error:
            raise ConjureError(f"an input of this job is gone: {error.strerror or error}") from None

    # ---------------------------------------------------------------- inside
    def _owned(self, owner: str) -> Path:
        return self.folder / "owners" / owner

    def _gone(self, owner: str) -> bool:
        """Whether the process is: it held the lock on its file for as long as it lived."""
        path = self._owned(owner)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise ConjureError(f"{path}: could not be opened: {error.strerror or error}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise ConjureError(f"{path}: could not be locked: {error.strerror or error}") from None
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return True
        finally:
            os.close(handle)

    def _sweep(self) -> None:
        self._store.sweep({name for (name,) in self._db.execute("SELECT DISTINCT digest FROM files")})


_ELSEWHERE = "CONJURE_HISTORY names another folder; --no-history keeps jobs for as long as the server lives"


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    values["error"] = json.loads(values["error"]) if values["error"] else None
    for name in ("results", "links"):
        values[name] = tuple(json.loads(values[name]))
    return Entry(**values)
