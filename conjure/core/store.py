"""One SQLite file, and beside it a folder of files named by their content: where the history and the jobs lie.

Several processes may write at once. Files are written inside the transaction that adds the rows which name them, under
the database's own lock, so a process that is killed leaves either all of an entry or nothing that can be seen; what it
left unseen is swept away later (`sweep`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic

WAIT = 30.0  # seconds that a writer waits for another one
HINTS = {
    "disk is full": "free some space; the result itself is not touched",
    "disk I/O error": "free some space, or look at the disk; the result itself is not touched",
    "locked": "another process writes to it and does not come to an end",
    "not a database": "move that file away: a new one is begun",
    "malformed": "move that file away: a new one is begun",
}


class Store:
    """`folder` is made where it is missing. `migrations` are applied in order and once (`PRAGMA user_version` counts
    those that were); `elsewhere` says what to do about a place that cannot be used. Threads may share one."""

    def __init__(self, folder: Path, name: str, migrations: Sequence[str], elsewhere: str) -> None:
        self.folder, self.path, self._elsewhere = folder, folder / name, elsewhere
        self._lock = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts are nobody else's business
            self.db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ConjureError(f"{self.path}: could not be opened: {error}", hint=elsewhere) from None
        try:
            with self.errors():
                for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
                    self.db.execute(f"PRAGMA {pragma}")
                self._migrate(migrations)
        except ConjureError:
            self.db.close()
            raise

    def close(self) -> None:
        """Ends the connection; nothing else works afterwards."""
        with self._lock:
            self.db.close()

    def place(self, name: str) -> Path:
        """Where the file of that name lies: the digest of its content, with a suffix or without."""
        return self.folder / "files" / name[:2] / name

    def keep(self, name: str, data: bytes) -> None:
        """Writes a file, unless it is there. Called while `writing`."""
        path = self.place(name)
        if path.is_file() and path.stat().st_size == len(data):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConjureError(f"{path}: could not be written: {error.strerror or error}") from None
        write_atomic(path, data)

    def sweep(self, named: set[str]) -> int:
        """Removes all files but those; how many there were. Called while `writing`."""
        stray = [path for path in self.folder.glob("files/??/*") if path.name not in named]
        for path in stray:
            path.unlink(missing_ok=True)
        return len(stray)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that no other writer interrupts; undone where anything fails."""
        with self.errors():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # a full disk may have ended it already
                    self.db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """One thread at a time, and the database's complaints in words."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                said = str(error)
                hint = HINTS.get(next((key for key in HINTS if key in said), ""), self._elsewhere)
                raise ConjureError(f"{self.path}: {said}", hint=hint) from None

    def _migrate(self, migrations: Sequence[str]) -> None:
        (done,) = self.db.execute("PRAGMA user_version").fetchone()
        if done > len(migrations):
            said = f"was written by a newer conjure (form {done}, known are {len(migrations)})"
            raise ConjureError(f"{self.path}: {said}", hint=f"update conjure; or {self._elsewhere}")
        if done == len(migrations):
            return
        with self.writing():
            (done,) = self.db.execute("PRAGMA user_version").fetchone()  # another process may have been first
            for step in migrations[done:]:
                for statement in filter(str.strip, step.split(";")):
                    self.db.execute(statement)
            self.db.execute(f"PRAGMA user_version = {len(migrations)}")
