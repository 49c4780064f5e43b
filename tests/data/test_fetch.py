from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from conjure.core.files import folder_lock
from conjure.data import fetch
from conjure.data.archives import file
from conjure.data.catalogue import DataSet, Origin
from tests.data.stand_in import StandIn, serve

LONG = bytes(range(256)) * 1000  # several chunks
SHORT = b"a short file\n"


def origin(url: str, data: bytes, name: str = "") -> Origin:
    return Origin(url, hashlib.sha256(data).hexdigest(), len(data), name)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serve(
        {"long.bin": LONG, "two%20words.txt": SHORT, "packed.txt.gz": gzip.compress(LONG)}
    ) as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("CONJURE_DATA", "CONJURE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "data"


@pytest.fixture
def toy(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A set of three files, one in a folder of its own, one gzipped; the only one in the catalogue."""
    entry = DataSet(
        "toy", "a toy", "CC0", "nobody", ship=True, holds="three files",
        origins=(
            origin(server.url + "long.bin", LONG),
            origin(server.url + "two%20words.txt", SHORT, "folder/two words.txt"),
            origin(server.url + "packed.txt.gz", LONG),
        ),
    )  # fmt: skip
    monkeypatch.setattr(fetch, "find", lambda name: entry)
    return entry


def left_behind(cache: Path) -> int:
    """Bytes of the file whose download has begun."""
    return sum(part.stat().st_size for part in (cache / ".toy.part").glob("*.part"))


def test_a_set_arrives_whole_and_is_fetched_once(toy: DataSet, server: StandIn, cache: Path) -> None:
    seen: list[Progress] = []
    folder = fetch.get("toy", seen.append)
    assert folder == cache / "toy" == fetch.path("toy") == fetch.available("toy")
    assert (folder / "long.bin").read_bytes() == LONG == file(folder, "packed.txt")
    assert (folder / "folder" / "two words.txt").read_bytes() == SHORT
    assert [path.name for path in cache.iterdir()] == ["toy"]  # nothing half-done beside it
    steps = [progress.step for progress in seen]
    assert steps == sorted(steps) and steps[-1] == seen[-1].total == 2 * len(LONG) + len(SHORT)
    assert len(set(steps)) > 5 and {progress.unit for progress in seen} == {"byte"}
    asked = len(server.requests)
    assert fetch.get("toy") == folder and len(server.requests) == asked == 3


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(
    toy: DataSet, server: StandIn, cache: Path
) -> None:
    server.cut_after = 100_000
    with pytest.raises(ConjureError, match=r"cut off after 100,000 of 256,000 bytes") as caught:
        fetch.get("toy")
    assert "goes on where it stopped" in caught.value.hint
    assert left_behind(cache) == 100_000 and not (cache / "toy").exists()
    with pytest.raises(ConjureError, match=r"cut off after 200,000 of 256,000 bytes"):
        fetch.get("toy")
    server.cut_after = 0
    assert (fetch.get("toy") / "long.bin").read_bytes() == LONG
    assert [request[1:] for request in server.requests[:3]] == [
        ("", ""), ("bytes=100000-", '"v1"'), ("bytes=200000-", '"v1"'),
    ]  # fmt: skip


def test_files_that_came_whole_are_not_asked_for_again(toy: DataSet, server: StandIn) -> None:
    kept = server.files.pop("packed.txt.gz")
    with pytest.raises(ConjureError, match="the server answered 404"):
        fetch.get("toy")
    server.files["packed.txt.gz"] = kept
    fetch.get("toy")
    assert [request[0] for request in server.requests].count("/long.bin") == 1


@pytest.mark.parametrize("change", ["new version", "no validator", "weak tag", "no ranges"])
def test_a_resumed_file_is_never_sewn_from_two(toy: DataSet, server: StandIn, change: str) -> None:
    old = bytes(reversed(LONG))
    server.files["long.bin"], server.cut_after = old, 100_000
    server.etag = {"no validator": "", "weak tag": 'W/"v1"'}.get(change, '"v1"')
    with pytest.raises(ConjureError, match="cut off"):
        fetch.get("toy")
    server.files["long.bin"], server.cut_after = LONG, 0
    server.ranges = change != "no ranges"
    if change == "new version":
        server.etag = '"v2"'
    assert (fetch.get("toy") / "long.bin").read_bytes() == LONG


def test_the_date_serves_where_the_tag_is_weak(toy: DataSet, server: StandIn) -> None:
    server.etag, server.modified, server.cut_after = 'W/"v1"', "Mon, 01 Jan 2024 00:00:00 GMT", 100_000
    with pytest.raises(ConjureError, match="cut off"):
        fetch.get("toy")
    server.cut_after = 0
    assert (fetch.get("toy") / "long.bin").read_bytes() == LONG
    assert server.requests[1][1:] == ("bytes=100000-", server.modified)


def test_a_wrong_checksum_throws_the_file_away(toy: DataSet, server: StandIn, cache: Path) -> None:
    server.files["long.bin"] = wrong = LONG[:-1] + b"!"
    with pytest.raises(ConjureError, match=r"the checksum differs") as caught:
        fetch.get("toy")
    assert hashlib.sha256(LONG).hexdigest() in caught.value.message
    assert hashlib.sha256(wrong).hexdigest() in caught.value.message
    assert left_behind(cache) == 0 and not (cache / "toy").exists() and not list(cache.rglob("long.bin"))
    server.files["long.bin"] = LONG
    assert (fetch.get("toy") / "long.bin").read_bytes() == LONG  # from its start, not after what was wrong


def test_a_broken_gzip_file_is_thrown_away(toy: DataSet, server: StandIn, cache: Path) -> None:
    server.files["packed.txt.gz"] = gzip.compress(LONG)[:-30]
    with pytest.raises(ConjureError, match="a broken gzip file"):
        fetch.get("toy")
    assert left_behind(cache) == 0 and not (cache / "toy").exists()


def test_a_file_that_never_ends_is_given_up(toy: DataSet, server: StandIn, cache: Path) -> None:
    server.files["long.bin"] = LONG * 3
    with pytest.raises(ConjureError, match="the server sends more"):
        fetch.get("toy")
    assert left_behind(cache) < 2 * len(LONG)


def test_what_is_too_long_to_go_on_with_is_begun_again(toy: DataSet, server: StandIn, cache: Path) -> None:
    server.cut_after = 100_000
    with pytest.raises(ConjureError, match="cut off"):
        fetch.get("toy")
    part = next((cache / ".toy.part").glob("*.part"))
    part.write_bytes(LONG + b"too long")
    server.cut_after = 0
    with pytest.raises(ConjureError, match="answered 416"):
        fetch.get("toy")
    assert (fetch.get("toy") / "long.bin").read_bytes() == LONG


def test_offline_is_honoured(toy: DataSet, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_OFFLINE", "1")
    with pytest.raises(ConjureError, match="fetching is switched off") as caught:
        fetch.get("toy")
    assert "CONJURE_DATA" in caught.value.hint and server.requests == []


def test_a_server_that_is_not_there(toy: DataSet, server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = DataSet("toy", "", "", "", True, "", origins=(origin("http://127.0.0.1:9/x", SHORT),))
    monkeypatch.setattr(fetch, "find", lambda name: gone)
    with pytest.raises(ConjureError, match="could not be fetched") as caught:
        fetch.get("toy")
    assert "check the connection" in caught.value.hint


def test_two_processes_do_not_fetch_one_set(toy: DataSet, server: StandIn, cache: Path) -> None:
    (cache / ".toy.part").mkdir(parents=True)
    with folder_lock(cache / ".toy.part"), pytest.raises(ConjureError, match=f"process {os.getpid()}"):
        fetch.get("toy")
    assert server.requests == []


def test_a_cache_that_cannot_be_written(
    toy: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConjureError, match="could not be written") as caught:
        fetch.get("toy")
    assert "CONJURE_CACHE" in caught.value.hint


def test_given_folders_come_first_and_in_order(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (two / "toy", one / "mnist", two / "mnist", cache / "toy", cache / "emoji"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("CONJURE_DATA", f"{one}{os.pathsep}{two}")
    assert fetch.folders() == [one, two, cache]
    assert fetch.path("mnist") == one / "mnist"
    assert fetch.get("toy") == two / "toy"  # also a set the catalogue does not know
    assert fetch.path("emoji") == cache / "emoji"


def test_what_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(ConjureError, match="'mnist' is not on this machine") as caught:
        fetch.path("mnist")
    assert caught.value.hint == "conjure data get mnist"
    with pytest.raises(ConjureError, match="no origin to fetch it from") as caught:
        fetch.get("emoji")
    assert "conjure data get noto_emoji" in caught.value.hint


@pytest.mark.parametrize("name", ["../one", "/etc", ".", "..", "", "one/two", ".toy.part"])
def test_a_path_is_no_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "one" / "two").mkdir(parents=True)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data" / "one"))
    assert fetch.available(name) is None
    with pytest.raises(ConjureError, match="no data set is called"):
        fetch.get(name)
