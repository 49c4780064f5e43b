from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.provenance import Record
from conjure.media import text as text_file
from conjure.media.text import Text

RECORD = Record(
    version="0.1.0",
    task="text_to_text",
    model="starter/story",
    weights="sha256:ab",
    inputs=({"kind": "text", "text": "Once\u2028upon \x7f a 🍎: 'time' \\ \"#", "digest": "sha256:00"},),
    options={"temperature": 0.8, "stop": ["---\n"]},
    seeds=(3,),
)


def test_digest_is_that_of_the_bytes() -> None:
    assert Text("").digest().endswith("b855")
    assert Text("ä").digest() != Text("a").digest()
    assert Text("a").kind == "text"
    assert str(Text("a")) == "a"


def test_stray_bytes_are_refused() -> None:
    with pytest.raises(ConjureError, match="stray bytes"):
        Text("caf\udce9")


@pytest.mark.parametrize("suffix", [".txt", ".md"])
@pytest.mark.parametrize("content", ["", "a\n", "a\r\nb\rc", "ä🍎\u2028", "---\n", "\n---\nx: 1\n---\n"])
def test_read_gives_what_was_written(tmp_path: Path, suffix: str, content: str) -> None:
    for record in (None, RECORD):
        path = media.write(Text(content), tmp_path / f"a{suffix}", record)
        assert media.read(path) == Text(content)
        assert media.read_provenance(path) == record


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert media.read(tmp_path / "a.txt") == Text("hello")


# -- front matter -----------------------------------------------------------------------------------------


def front_matter(content: str) -> dict:
    """As any other program reads it."""
    _, front, _ = content.split("---\n", 2)
    return yaml.safe_load(front)


def test_front_matter_is_made(tmp_path: Path) -> None:
    path = media.write(Text("Once upon\n"), tmp_path / "a.md", RECORD)
    content = path.read_text(encoding="utf-8")
    assert content.endswith("}\n---\nOnce upon\n")
    assert front_matter(content) == {"conjure": json.loads(RECORD.to_json())}
    assert os.listdir(tmp_path) == ["a.md"]


def test_front_matter_is_merged_and_comes_back_as_it_was(tmp_path: Path) -> None:
    original = "---\ntitle: Frogs   # mine\ntags:\n- a\n---\n\nOnce upon\n"
    path = media.write(Text(original), tmp_path / "a.md", RECORD)
    expected = {"title": "Frogs", "tags": ["a"], "conjure": json.loads(RECORD.to_json())}
    assert front_matter(path.read_text(encoding="utf-8")) == expected
    assert media.read(path) == Text(original)
    again = media.write(media.read(path), tmp_path / "b.md", dataclasses.replace(RECORD, seeds=(4,)))
    assert media.read_provenance(again) == dataclasses.replace(RECORD, seeds=(4,))
    assert media.read(again) == Text(original)


@pytest.mark.parametrize(
    "original",
    [
        "---\njust a line between rules\n---\n",
        "---\n---\n",
        "---\n# a comment\n---\nx",
        "---\ntitle: [\n---\nx",
        "---\ntitle: &a b\nmore: *a\n---\nx",
        "---\n{title: x}\n---\n",
        "---\nconjure: mine\n---\nx",
        "---\n  title: x\n---\nx",
        "---\r\ntitle: x\r\n---\r\nx",
        "---\ntext: |\n  a\n  b\n---\nx",
        "---\ntitle: x\n...\nx",
        "---\ntitle: x\n",
        "--- \ntitle: x\n---",
        "----\ntitle: x\n---\n",
    ],
)
def test_odd_front_matter_survives(tmp_path: Path, original: str) -> None:
    path = media.write(Text(original), tmp_path / "a.md", RECORD)
    assert media.read(path) == Text(original)
    assert media.read_provenance(path) == RECORD
    front = text_file._FRONT.match(path.read_text(encoding="utf-8"))
    assert front is not None
    assert yaml.safe_load(front["body"])["conjure"]["task"] == "text_to_text"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="-\n.:ac# {}'\r") | st.text())
@example("---\nconjure: {}\n---\n")
def test_any_text_survives_front_matter(content: str) -> None:
    data = text_file.encode(Text(content), ".md", RECORD)
    again = text_file.decode(data, "a.md")
    assert text_file.without_record(again) == Text(content)
    assert text_file._split(again.text)[1] is not None


@pytest.mark.parametrize(
    "line", ["{}", '{"task": 5}', "{broken", '{"a": {' * 30_000, "{" + "x" * 2_000_000 + "}"]
)
def test_a_hostile_line_is_text_when_read_and_an_error_when_asked_for(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"---\nconjure: {line}\n---\nhello")
    content = media.read(path)
    assert str(content).startswith("---\nconjure: ")
    try:
        assert media.read_provenance(path) is None
    except ConjureError as error:
        assert len(str(error)) < 1000


# -- sidecar ----------------------------------------------------------------------------------------------


def test_plain_text_has_a_sidecar(tmp_path: Path) -> None:
    path = media.write(Text("hello"), tmp_path / "a.txt", RECORD)
    assert path.read_text() == "hello"
    beside = tmp_path / "a.txt.provenance.json"
    assert json.loads(beside.read_text()) == json.loads(RECORD.to_json())
    assert media.read_provenance(path) == RECORD


def test_an_old_sidecar_does_not_describe_a_new_text(tmp_path: Path) -> None:
    path = media.write(Text("one"), tmp_path / "a.txt", RECORD)
    media.write(Text("two"), path)
    assert media.read_provenance(path) is None
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b" " * 5_000_000])
def test_a_hostile_sidecar_is_refused_plainly(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.txt.provenance.json").write_bytes(content)
    with pytest.raises(ConjureError):
        media.read_provenance(tmp_path / "a.txt")


# -- bounds and bad files ---------------------------------------------------------------------------------


def test_the_bound_is_named_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0123456789")
    monkeypatch.setenv("CONJURE_MAX_TEXT_BYTES", "9")
    for attempt in (lambda: media.read(path), lambda: media.read(b"0123456789", kind="text")):
        with pytest.raises(ConjureError, match="at most 9 bytes of text") as caught:
            attempt()
        assert "CONJURE_MAX_TEXT_BYTES" in caught.value.hint
    monkeypatch.setenv("CONJURE_MAX_TEXT_BYTES", "10")
    assert media.read(path) == Text("0123456789")


def test_the_default_bound_is_64_mebibytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with open(path, "wb") as file:
        file.truncate((64 << 20) + 1)  # a sparse file: no disk, no time
    with pytest.raises(ConjureError, match="67,108,864"):
        media.read(path)


def test_endless_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_MAX_TEXT_BYTES", "1000")
    (tmp_path / "a.txt").symlink_to("/dev/zero")
    with pytest.raises(ConjureError, match="at most 1,000"):
        media.read(tmp_path / "a.txt")


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "9" * 30])
def test_a_bound_must_be_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setenv("CONJURE_MAX_TEXT_BYTES", value)
    with pytest.raises(ConjureError, match="expected a whole number"):
        media.read(tmp_path / "a.txt")


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ConjureError, match="byte 3 is 0xe9") as caught:
        media.read(tmp_path / "a.txt")
    assert "iconv" in caught.value.hint


def test_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(ConjureError, match="this is a folder"):
        media.read(tmp_path / "d.txt")
    for ask in (media.read, media.read_provenance):
        with pytest.raises(ConjureError, match="no such file"):
            ask(tmp_path / "none.txt")
