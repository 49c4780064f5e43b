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
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic

WAIT = 30.0  # seconds that a writer waits for another one
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
"""Applied in order and once; `PRAGMA user_version` counts those that were. Never change one: add one."""


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
        self.owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._lock = threading.RLock()
        try:
            (folder / "owners").mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held = os.open(self._owned(self.owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX)
            self._db = sqlite3.connect(self._file, timeout=WAIT, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ConjureError(f"{self._file}: could not be opened: {error}", hint=_ELSEWHERE) from None
        with self._errors():
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate()

    @property
    def _file(self) -> Path:
        return self.folder / "jobs.sqlite3"

    def __enter__(self) -> Jobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and gives the jobs that are not done up for adoption."""
        with self._lock:
            self._db.close()
            with contextlib.suppress(OSError):
                os.unlink(self._owned(self.owner))
            os.close(self._held)

    # ---------------------------------------------------------------- writing
    def add(self, name: str, wish: str, files: Mapping[str, bytes]) -> Entry:
        """A job that waits, with the files (digest -> bytes) that its wish names."""
        with self._writing():
            number = self._db.execute("INSERT INTO jobs (id, owner, state, wish, created) VALUES (?, ?, ?, ?, ?)",
                                      (name, self.owner, "queued", wish, time.time())).lastrowid  # fmt: skip
            self._db.executemany("INSERT INTO files (job, digest) VALUES (?, ?)", [(number, each) for each in files])
            for digest, data in files.items():
                self._keep(digest, data)
        found = self.get(name)
        assert found is not None
        return found

    def begin(self, name: str) -> bool:
        """Whether the job waited; now it is at work, and that counts as an attempt."""
        with self._writing():
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
        with self._writing():
            return self._db.execute(
                "UPDATE jobs SET state = ?, ended = ?, error = ?, results = ?, links = ? "
                "WHERE id = ? AND state IN ('queued', 'running')", values
            ).rowcount == 1  # fmt: skip

    def release(self) -> None:
        """What is at work waits again, and the attempt does not count: the process ends in peace."""
        with self._writing():
            self._db.execute("UPDATE jobs SET state = 'queued', started = NULL, attempts = attempts - 1 "
                             "WHERE owner = ? AND state = 'running'", (self.owner,))  # fmt: skip

    def adopt(self) -> list[str]:
        """Takes over what processes that are gone have left; the ids of all jobs that wait here, the oldest first."""
        with self._writing():
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
        with self._writing():
            gone = self._db.execute("DELETE FROM jobs WHERE id = ?", (name,)).rowcount == 1
            self._sweep()
        return gone

    def prune(self, keep: int, seconds: float) -> None:
        """Forgets what has ended, but for the latest `keep` of the last `seconds`."""
        with self._writing():
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
        with self._errors():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (name,)).fetchone()
        return None if row is None else _entry(row)

    def latest(self, limit: int) -> list[Entry]:
        """The latest first."""
        with self._errors():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [_entry(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many are in each state."""
        with self._errors():
            found = dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in (*LIVING, *ENDS)}

    def file(self, digest: str) -> bytes:
        """The bytes of a file that a job came with."""
        try:
            return self._place(digest).read_bytes()
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

    def _place(self, digest: str) -> Path:
        return self.folder / "files" / digest[:2] / digest

    def _keep(self, digest: str, data: bytes) -> None:
        path = self._place(digest)
        if path.is_file() and path.stat().st_size == len(data):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConjureError(f"{path}: could not be written: {error.strerror or error}") from None
        write_atomic(path, data)

    def _sweep(self) -> None:
        named = {row[0] for row in self._db.execute("SELECT DISTINCT digest FROM files")}
        stray: Iterable[Path] = (path for path in self.folder.glob("files/??/*") if path.name not in named)
        for path in stray:
            path.unlink(missing_ok=True)

    def _migrate(self) -> None:
        (done,) = self._db.execute("PRAGMA user_version").fetchone()
        if done > len(MIGRATIONS):
            said = f"was written by a newer conjure (form {done}, known are {len(MIGRATIONS)})"
            raise ConjureError(f"{self._file}: {said}", hint=f"update conjure; or {_ELSEWHERE}")
        with self._writing():
            (done,) = self._db.execute("PRAGMA user_version").fetchone()  # another process may have been first
            for step in MIGRATIONS[done:]:
                for statement in filter(str.strip, step.split(";")):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that no other writer interrupts; undone where anything fails."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """One thread at a time, and the database's complaints in words."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise ConjureError(f"{self._file}: {error}", hint=_ELSEWHERE) from None


_ELSEWHERE = "CONJURE_HISTORY names another folder; --no-history keeps jobs for as long as the server lives"


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    values["error"] = json.loads(values["error"]) if values["error"] else None
    for name in ("results", "links"):
        values[name] = tuple(json.loads(values[name]))
    return Entry(**values)
