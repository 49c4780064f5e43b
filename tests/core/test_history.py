from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conjure.core import history as module
from conjure.core.errors import ConjureError
from conjure.core.history import History
from conjure.core.provenance import Record

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from conjure.core.history import History
from conjure.core.provenance import Record
history = History(Path(sys.argv[1]))
print("ready", flush=True)
for k in range(int(sys.argv[3])):
    text = f"{sys.argv[2]} {k}"
    record = Record("1", "draw", "starter/x", "sha256:0", ({"kind": "text", "text": text},), seeds=(k,))
    history.add(text.encode() * 5000, ".txt", "text", record, inputs=[(f"from {text}".encode() * 3000, ".png")])
"""


def record(prompt: str, **changes: object) -> Record:
    values = {"version": "1", "task": "draw", "model": "starter/x", "weights": "sha256:0", "seeds": (3,)}
    return Record(inputs=({"kind": "text", "text": prompt},), **(values | changes))  # type: ignore[arg-type]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("files/*/*")}


def whole(folder: Path) -> list[int]:
    """The numbers of all results, each of which has its files with the right content, and nothing else lies there."""
    with History(folder) as history:
        history.sweep()
        entries = history.search(limit=-1)
        expected = set()
        for each in entries:
            for path in (history.file(each), *history.sources(each.id)):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
                expected.add(path.name)
            assert [found.id for found in history.search(each.prompt) if found.id == each.id] == [each.id]
    assert files(folder) == expected
    with sqlite3.connect(folder / "history.sqlite3") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (rows,) = db.execute("SELECT count(*) FROM words").fetchone()
    db.close()
    assert rows == len(entries)
    return [each.id for each in entries]


def test_a_result_is_found_by_its_words_and_comes_back_whole(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        first = history.add(b"one", ".png", "image", record("a red apple"), path="/home/x/apple.png", seconds=0.5)
        second = history.add(b"two", ".txt", "text", record('say "hi" to* the -cat', task="chat"), source="server")
        third = history.add(b"three", ".png", "image", record("a green apple", model="org/name"))
        found = [each.id for each in history.search("app")]
        assert found == [third, first] and [each.id for each in history.search("apple red")] == [first]
        assert [each.id for each in history.search('"hi" to* -cat')] == [second] and history.search("NOT apple") == []
        assert [each.id for each in history.search(kind="image", model="org/name")] == [third]
        assert [each.id for each in history.search(limit=2)] == [third, second]
        assert [each.id for each in history.search(before=third, limit=1)] == [second]
        entry = history.get(first)
        assert (entry.bytes, entry.path, entry.seconds, entry.source) == (3, "/home/x/apple.png", 0.5, "cli")
        assert entry.record == record("a red apple") and history.file(entry).read_bytes() == b"one"
        with pytest.raises(ConjureError, match="no result 99"):
            history.get(99)


def test_deleting_deletes_bytes_words_and_lonely_inputs(tmp_path: Path) -> None:
    photo, other = (b"photo" * 100, ".png"), (b"other" * 100, ".png")
    with History(tmp_path) as history:
        for k in range(30):
            history.add(b"%d" % k, ".txt", "text", record(f"filler {k} {'x' * 300}"))
        secret = history.add(b"secret bytes", ".png", "image", record("quixotic zebra"), inputs=[photo, other])
        kept = history.add(b"kept", ".png", "image", record("plain"), inputs=[photo])
        assert history.delete([secret, 10_000]) == 1
        assert [path.read_bytes() for path in history.sources(kept)] == [photo[0]] and history.search("zebra") == []
        names = files(tmp_path)
        assert hashlib.sha256(b"secret bytes").hexdigest() + ".png" not in names
        assert hashlib.sha256(other[0]).hexdigest() + ".png" not in names
        traces = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"quixotic" not in traces and b"zebra" not in traces and b"filler 3 " in traces
        assert history.add(b"new", ".txt", "text", record("new")) > kept  # numbers are not used twice
    whole(tmp_path)


def test_equal_content_is_kept_once(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        one, two = (history.add(b"same", ".txt", "text", record(p)) for p in ("a", "b"))
        assert len(files(tmp_path)) == 1
        history.delete([one])
        assert history.file(history.get(two)).read_bytes() == b"same"


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    children = [subprocess.Popen([*command, name, "15"], cwd=ROOT, stdout=subprocess.DEVNULL) for name in ("a", "b")]
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(whole(tmp_path)) == 30


def test_a_kill_leaves_all_of_a_result_or_nothing(tmp_path: Path) -> None:
    draw = random.Random(0)
    seen: list[int] = []
    for attempt in range(8):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"run{attempt}", "10000"], cwd=ROOT,
                                 stdout=subprocess.PIPE)  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.02, 0.2))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        now = whole(tmp_path)
        assert set(seen) <= set(now)
        seen = now
    assert len(seen) > 8


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        history.add(b"before", ".txt", "text", record("before"))
    limited = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from pathlib import Path
from conjure.core.errors import ConjureError
from conjure.core.history import History
from conjure.core.provenance import Record
record = Record("1", "draw", "m", "w", ({{"kind": "text", "text": "y" * 200}},))
said = []
with History(Path({str(tmp_path)!r})) as history:
    for data in (b"x" * 500_000, b"small", *(b"%d" % k * 10 for k in range(600))):
        try:
            history.add(data, ".txt", "text", record)
        except ConjureError as error:
            said.append(str(error))
print(len(said), said[0])
"""
    done = subprocess.run([sys.executable, "-c", limited], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 1 and "could not be written" in done.stdout
    assert len(whole(tmp_path)) >= 2


def test_a_full_database_is_undone(tmp_path: Path) -> None:
    with History(tmp_path) as history:
        first = history.add(b"one", ".txt", "text", record("one"))
        (pages,) = history._db.execute("PRAGMA page_count").fetchone()
        history._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ConjureError, match="full") as caught:
            history.add(b"two", ".txt", "text", record("two " * 20_000))
        assert "free some space" in caught.value.hint
        assert [each.id for each in history.search()] == [first]
    assert whole(tmp_path) == [first]


def test_forms_old_new_and_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with History(tmp_path) as history:
        history.add(b"one", ".txt", "text", record("one"))
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, "ALTER TABLE results ADD COLUMN star INTEGER"))
    with History(tmp_path) as history:
        assert len(history.search()) == 1
        assert history._db.execute("PRAGMA user_version").fetchone() == (2,)
    monkeypatch.undo()
    with pytest.raises(ConjureError, match="newer conjure"):
        History(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "history.sqlite3").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ConjureError, match="not a database"):
        History(tmp_path / "broken")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConjureError, match="could not be opened"):
        History(tmp_path / "file")
