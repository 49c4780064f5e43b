"""What was made: one SQLite file with full-text search, and a folder of files named by their content.

    with History(paths.history_dir()) as history:
        history.add(data, ".png", "image", record, seconds=0.6)
        history.search("red apple")

`core/store.py` keeps it whole. Deleting removes the files no other result needs and the words from the index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record
from conjure.core.store import Store

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE results (
        id INTEGER PRIMARY KEY AUTOINCREMENT, made TEXT NOT NULL, kind TEXT NOT NULL, suffix TEXT NOT NULL,
        digest TEXT NOT NULL, bytes INTEGER NOT NULL, task TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL,
        record TEXT NOT NULL, path TEXT NOT NULL, seconds REAL, source TEXT NOT NULL
    );
    CREATE INDEX results_by_digest ON results (digest);
    CREATE TABLE inputs (
        result INTEGER NOT NULL REFERENCES results (id) ON DELETE CASCADE, place INTEGER NOT NULL,
        digest TEXT NOT NULL, suffix TEXT NOT NULL, PRIMARY KEY (result, place)
    );
    CREATE INDEX inputs_by_digest ON inputs (digest);
    CREATE VIRTUAL TABLE words USING fts5 (prompt, task, model, kind, path);
    """,
)
"""Never change one: add one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One result. `made` is UTC, ISO 8601; `path` is where it was written, "" for nowhere; `source` says which program
    asked ("cli", "server")."""

    id: int
    made: str
    kind: str
    suffix: str
    digest: str
    bytes: int
    task: str
    model: str
    prompt: str
    record: Record
    path: str
    seconds: float | None
    source: str


_COLUMNS = "id, made, kind, suffix, digest, bytes, task, model, prompt, record, path, seconds, source"


class History:
    """The history in a folder, which is made where it is missing. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = Store(folder, "history.sqlite3", MIGRATIONS, _ELSEWHERE)
        self._db = self._store.db

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; nothing else works afterwards."""
        self._store.close()

    # ---------------------------------------------------------------- writing
    def add(
        self, data: bytes, suffix: str, kind: str, record: Record, *, inputs: Sequence[tuple[bytes, str]] = (),
        path: str = "", seconds: float | None = None, source: str = "cli",
    ) -> int:  # fmt: skip
        """Keeps a result, given as a file's bytes, with the files (bytes, suffix) it was made from; returns its number.

        `ConjureError` where it could not be kept, on a full disk say; then nothing of it is there.
        """
        files = [(data, suffix), *inputs]
        (digest, *sources) = [hashlib.sha256(each).hexdigest() for each, _ in files]
        made = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = (made, kind, suffix, digest, len(data), record.task, record.model, record.prompt, record.to_json(), path,
               seconds, source)  # fmt: skip
        with self._store.writing():
            columns = _COLUMNS.removeprefix("id, ")
            marks = ", ".join("?" * len(row))
            number = self._db.execute(f"INSERT INTO results ({columns}) VALUES ({marks})", row).lastrowid
            assert number is not None
            searched = (number, record.prompt, record.task, record.model, kind, path)
            self._db.execute("INSERT INTO words (rowid, prompt, task, model, kind, path) VALUES (?, ?, ?, ?, ?, ?)",
                             searched)  # fmt: skip
            self._db.executemany(
                "INSERT INTO inputs (result, place, digest, suffix) VALUES (?, ?, ?, ?)",
                [(number, place, its, end) for place, (its, (_, end)) in enumerate(zip(sources, inputs, strict=True))],
            )
            for its, (content, end) in zip((digest, *sources), files, strict=True):
                self._store.keep(its + end, content)
        return number

    def delete(self, numbers: Sequence[int]) -> int:
        """Forgets results, their words and their files; returns how many there were."""
        with self._store.writing():
            gone = sum(self._db.execute("DELETE FROM results WHERE id = ?", (n,)).rowcount for n in numbers)
            self._db.executemany("DELETE FROM words WHERE rowid = ?", [(n,) for n in numbers])
            # Deleted words stay in the index's older segments until these are merged.
            self._db.execute("INSERT INTO words (words) VALUES ('optimize')")
        self.sweep()
        with self._store.errors():
            self._db.execute("PRAGMA wal_checkpoint (TRUNCATE)")  # or the log still holds what the file does not
        return gone

    def sweep(self) -> int:
        """Removes files that no result names, which killed processes and deletions leave; returns how many."""
        with self._store.writing():
            rows = self._db.execute("SELECT digest || suffix FROM results UNION SELECT digest || suffix FROM inputs")
            return self._store.sweep({name for (name,) in rows})

    # ---------------------------------------------------------------- reading
    def search(
        self, words: str = "", *, kind: str = "", model: str = "", limit: int = 20, before: int | None = None
    ) -> list[Entry]:
        """The latest results first, those that have every word (or its beginning) in prompt, task, model or path.

        `before` goes on after a page: only results with smaller numbers.
        """
        terms = " ".join('"' + word.replace('"', '""') + '"*' for word in words.split())
        tests = [
            ("id IN (SELECT rowid FROM words WHERE words MATCH ?)", terms), ("kind = ?", kind), ("model = ?", model),
            ("id < ?", before),
        ]  # fmt: skip
        used = [(test, value) for test, value in tests if value not in ("", None)]
        where = " AND ".join(test for test, _ in used) or "1"
        query = f"SELECT {_COLUMNS} FROM results WHERE {where} ORDER BY id DESC LIMIT ?"
        with self._store.errors():
            return [_entry(row) for row in self._db.execute(query, (*(value for _, value in used), limit))]

    def get(self, number: int) -> Entry:
        """One result; `ConjureError` where there is none of that number."""
        with self._store.errors():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM results WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise ConjureError(f"the history has no result {number}", hint="`conjure history` lists them")
        return _entry(row)

    def file(self, entry: Entry) -> Path:
        """Where the bytes of a result lie."""
        return self._store.place(entry.digest + entry.suffix)

    def sources(self, number: int) -> list[Path]:
        """The files that a result was made from, in their order."""
        with self._store.errors():
            rows = self._db.execute("SELECT digest || suffix FROM inputs WHERE result = ? ORDER BY place", (number,))
            return [self._store.place(name) for (name,) in rows]


_ELSEWHERE = "CONJURE_HISTORY names another folder; --no-history keeps nothing"


def _entry(row: Sequence[object]) -> Entry:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    record = Record.from_data(json.loads(str(values.pop("record"))))
    return Entry(record=record, **values)  # type: ignore[arg-type]
