from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from conjure import media
from conjure.core.history import History
from conjure.tasks.keeping import keep, obstacle
from conjure.tasks.make import Plan, finished, make, plan, record, run, signed
from tests.conftest import write_model


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with History(tmp_path / "history") as made:
        yield made


def made(count: int = 1) -> tuple[Plan, list[Any]]:
    planned = plan("a red apple", to="image", seed=4, count=count)
    return planned, list(finished(run(planned)).media)


def test_a_file_is_kept_as_it_stands_and_is_not_made_again(
    workshop: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, pictures = made(2)
    paths = [workshop / "a.JPG", workshop / "b.png"]
    for index, path in enumerate(paths):
        media.write(pictures[index], path, record(planned, index) if index else None)
    monkeypatch.setattr(media, "encode", None)
    first, second = keep(history, planned, pictures, paths, 3.0)
    for number, path in ((first, paths[0]), (second, paths[1])):
        entry = history.get(number)
        assert history.file(entry).read_bytes() == path.read_bytes() and entry.path == str(path)
        assert entry.suffix == path.suffix.lower() and entry.seconds == 1.5 and entry.source == "cli"
    assert [history.get(number).record.index for number in (first, second)] == [0, 1]


def test_what_lies_in_no_file_is_encoded_once(
    workshop: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, pictures = made()
    os.mkfifo(workshop / "pipe.png")  # reading it would never end
    calls: list[str] = []
    encode = media.encode
    monkeypatch.setattr(media, "encode", lambda *given: (calls.append(given[1]), encode(*given))[1])
    numbers = [keep(history, planned, pictures, paths, 1.0, source="server")[0]
               for paths in ([], [Path("gone.png")], [Path("pipe.png")])]  # fmt: skip
    assert calls == [".png"] * 3
    entries = [history.get(number) for number in numbers]
    wanted = encode(signed(pictures[0], record(planned, 0)), ".png", record(planned, 0))
    assert [history.file(each).read_bytes() for each in entries] == [wanted] * 3
    assert [each.path for each in entries] == ["", str(workshop / "gone.png"), str(workshop / "pipe.png")]
    assert entries[0].source == "server"


def test_what_stands_in_the_way_of_making_it_again(workshop: Path, history: History) -> None:
    planned, pictures = made()
    (number,) = keep(history, planned, pictures, [], 1.0)
    assert obstacle(history, history.get(number)) == ""
    write_model(workshop.parent / "starters" / "daub", task="draw", value=2.0)
    assert "other weights" in obstacle(history, history.get(number))
    seen = plan(make("a red apple", to="image", seed=4), to="image", task="mirror")
    (number,) = keep(history, seen, finished(run(seen)).media, [], 1.0)
    (source,) = history.sources(number)
    assert obstacle(history, history.get(number)) == ""
    source.unlink()
    assert obstacle(history, history.get(number)) == "1 of the files it was made from are gone"
