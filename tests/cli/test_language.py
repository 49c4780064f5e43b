"""`conjure make` with public models of language."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conjure.cli.main import call
from tests.tasks.small_models import decoder, marian


def test_a_file_and_an_instruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = marian(tmp_path / "m", source_lang="en", target_lang="es")
    Path("letter.txt").write_text("Alice wrote a letter .\n")
    line = ["make", "letter.txt", "translate to Spanish", "--model", str(folder), "-o", "out.json"]
    made = call([*line, "--tokens", "4"])
    assert made == 0
    found = json.loads(Path("out.json").read_text())
    assert found["task"] == "translate" and found["passages"][0]["source"] == "Alice wrote a letter ."


def test_stdout_json_and_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(decoder(tmp_path / "m"))
    assert call(["make", "the sea was", "--model", folder, "--tokens", "3", "--weights", "bf16", "--seed", "1"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("the sea was")
    line = ["make", "the sea was", "--model", folder, "--tokens", "3", "--weights", "bf16", "--seed", "1"]
    assert call([*line, "--to", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == text.rstrip("\n")


def test_too_much_on_stdin_is_refused_before_it_is_read(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert 0 <= size <= 2000, "more is asked for than may come"
            self.given += size
            return b"a" * size

    class Stdin:
        buffer = Endless()

        def isatty(self) -> bool:
            return False

    monkeypatch.setenv("CONJURE_MAX_TEXT_BYTES", "1000")
    monkeypatch.setattr(sys, "stdin", Stdin())
    assert "stdin: expected at most 1,000 bytes of text" in refused("make", "-")
    assert Stdin.buffer.given == 1001
