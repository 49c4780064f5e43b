"""Rows and files that belong together. Kills, full disks and several processes: `test_history.py`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.core.store import Store

FORMS = ("CREATE TABLE things (name TEXT UNIQUE)",)


def made(folder: Path) -> Store:
    return Store(folder, "things.sqlite3", FORMS, "go elsewhere")


def names(store: Store) -> list[str]:
    return [name for (name,) in store.db.execute("SELECT name FROM things ORDER BY name")]


def test_what_fails_is_undone_and_a_fault_of_the_database_is_told(tmp_path: Path) -> None:
    store = made(tmp_path / "new" / "folder")
    with store.writing():
        store.db.execute("INSERT INTO things VALUES ('kept')")
    with pytest.raises(ConjureError, match="UNIQUE") as caught, store.writing():
        store.db.execute("INSERT INTO things VALUES ('undone')")
        store.db.execute("INSERT INTO things VALUES ('kept')")
    assert caught.value.hint == "go elsewhere" and names(store) == ["kept"]
    with pytest.raises(KeyError), store.writing():
        store.db.execute("INSERT INTO things VALUES ('undone')")
        raise KeyError
    assert names(store) == ["kept"]
    store.close()
    assert (tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0


def test_files_are_kept_once_and_swept_when_nobody_names_them(tmp_path: Path) -> None:
    store = made(tmp_path)
    for name, data in (("aa11.png", b"one"), ("bb22", b"two"), ("bb22", b"two")):
        store.keep(name, data)
    assert store.place("aa11.png") == tmp_path / "files" / "aa" / "aa11.png"
    assert store.sweep({"bb22"}) == 1 and store.sweep({"bb22"}) == 0
    assert not store.place("aa11.png").exists() and store.place("bb22").read_bytes() == b"two"
    store.close()


def test_threads_share_one(tmp_path: Path) -> None:
    store = made(tmp_path)

    def write(who: int) -> None:
        for k in range(20):
            with store.writing():
                store.db.execute("INSERT INTO things VALUES (?)", (f"{who} {k}",))

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(names(store)) == 80
    store.close()
    again = made(tmp_path)  # a second opening changes nothing
    assert len(names(again)) == 80
    again.close()
