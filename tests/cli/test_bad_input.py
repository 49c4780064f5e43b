"""Whatever users can get wrong ends with exit code 2, one message with a hint, no traceback, and nothing written."""

from __future__ import annotations

import errno
import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from conjure.cli.main import call
from conjure.core import files
from tests.conftest import write_model

Refused = Callable[..., str]


@pytest.mark.parametrize("prompt", ["", "   ", "text:", "\n"])
def test_empty_prompt(refused: Refused, prompt: str) -> None:
    assert "expected a prompt, got an empty text" in refused("make", prompt, "-o", "a.png")


def test_empty_stdin(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert "empty text" in refused("make", "-", "-o", "a.png")


def test_no_input_at_all(refused: Refused) -> None:
    assert "nothing to make it from" in refused("make", "-o", "a.png")


def test_unknown_suffix_suggests_the_nearest(refused: Refused) -> None:
    assert "did you mean '.png'?" in refused("make", "x", "-o", "a.pgn")
    assert "a name without suffix" in refused("make", "x", "-o", "apple")


def test_a_suffix_that_can_only_be_read(refused: Refused) -> None:
    assert "image cannot be written as .gif" in refused("make", "x", "-o", "a.gif")


def test_missing_output_folder(refused: Refused) -> None:
    assert "hint: mkdir -p no/such" in refused("make", "x", "-o", "no/such/a.png")


def test_output_folder_without_permission(refused: Refused, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workshop / "closed").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and real(path, mode))  # even root
    assert "you may not write in closed" in refused("make", "x", "-o", "closed/a.png")


def test_output_is_a_folder(refused: Refused, workshop: Path) -> None:
    (workshop / "a.png").mkdir()
    assert "expected a file, this is a folder" in refused("make", "x", "-o", "a.png")


def test_disk_full(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    assert "the disk is full" in refused("make", "x", "-o", "a.png")


def test_option_of_another_edge(refused: Refused) -> None:
    said = refused("make", "Once upon a time", "--steps", "5")
    assert "continue (text -> text) has no option --steps; --steps belongs to draw (text -> image)" in said
    assert "options of continue: --tokens, --top-p, --stop, --loud" in said


def test_misspelt_option(refused: Refused) -> None:
    assert "did you mean --guidance?" in refused("make", "x", "-o", "a.png", "--guidence", "2")
    assert "no option -q" in refused("make", "x", "-o", "a.png", "-q")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--steps", "5000"], "--steps: expected a whole number from 1 to 1000, got 5000"),
        (["--steps", "0"], "--steps: expected a whole number from 1 to 1000, got 0"),
        (["--steps", "many"], "--steps: expected a whole number from 1 to 1000, got 'many'"),
        (["--guidance", "-1"], "--guidance: expected a number from 0 to 30, got -1"),
        (["--guidance", "nan"], "--guidance: expected a number from 0 to 30, got nan"),
        (["--sampler", "eular"], "--sampler: expected one of euler, heun, got 'eular'"),
        (["--count", "0"], "count: expected a whole number from 1 to 1000, got 0"),
        (["--seed", "-3"], "seed: expected a whole number from 0"),
        (["--seed", "three"], "'three' is not a valid integer"),
        (["--steps"], "Option '--steps' requires an argument"),
    ],
)
def test_value_out_of_range(refused: Refused, line: list[str], said: str) -> None:
    assert said in refused("make", "x", "-o", "a.png", *line)


def test_unknown_model_or_near_miss(refused: Refused) -> None:
    assert "did you mean 'starter/daub'?" in refused("make", "x", "-o", "a.png", "--model", "starter/dab")
    assert "unknown model 'nobody/nothing'" in refused("make", "x", "-o", "a.png", "--model", "nobody/nothing")


def test_model_of_another_task(refused: Refused) -> None:
    said = refused("make", "x", "-o", "a.png", "--model", "starter/parrot")
    assert "starter/parrot is a model for continue, expected one for draw (text -> image)" in said
    assert "models for draw: starter/daub" in said


def test_model_folder_with_pickles_only(refused: Refused, workshop: Path) -> None:
    folder = workshop / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    said = refused("make", "x", "-o", "a.png", "--model", "old")
    assert "pickle" in said and "safetensors" in said


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": [1, 1]}, "missing bias"),
        ({"weight": [1, 1], "bias": [1], "wait": [2]}, "unexpected wait"),
        ({"weight": [1, 1], "bias": [3]}, "misshapen bias"),
    ],
)
def test_weights_that_do_not_fit(refused: Refused, workshop: Path, tensors: dict[str, list[int]], said: str) -> None:
    model = workshop / "odd"
    write_model(model, task="draw")
    save_file({name: np.ones(shape, np.float32) for name, shape in tensors.items()}, model / "model.safetensors")
    assert said in refused("make", "x", "-o", "a.png", "--model", "odd")


def test_truncated_weights(refused: Refused, workshop: Path) -> None:
    model = workshop / "cut"
    write_model(model, task="draw")
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-3])
    assert "model.safetensors" in refused("make", "x", "-o", "a.png", "--model", "cut")


def test_unknown_task_and_impossible_way(refused: Refused) -> None:
    assert "no task is called 'drew'" in refused("make", "x", "-o", "a.png", "--task", "drew")
    assert "does not lead from text to text" in refused("make", "x", "--task", "mirror", "--to", "text")
    assert "no way leads from text + text to image" in refused("make", "x", "y", "-o", "a.png")
    assert "'pictre' is no kind of medium" in refused("make", "x", "--to", "pictre")


def test_to_and_o_disagree(refused: Refused) -> None:
    assert "that suffix is for text, but --to image" in refused("make", "x", "--to", "image", "-o", "a.md")


def test_a_file_that_is_not_there(refused: Refused) -> None:
    assert "hint: if it is meant as text, write text:photo.png" in refused("make", "photo.png", "-o", "a.png")


def test_a_picture_needs_a_place(refused: Refused) -> None:
    assert "where should the image go?" in refused("make", "x", "--to", "image")
    assert "both write to stdout" in refused("make", "x", "--to", "image", "-o", "-", "--json")
    assert "only one image fits into stdout" in refused("make", "x", "--to", "image", "-o", "-", "--count", "2")
    assert "--grid: expected pictures" in refused("make", "x", "--grid", "--count", "2")


def test_no_picture_into_a_terminal(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "not writing image bytes to a terminal" in refused("make", "x", "--to", "image", "-o", "-")


def test_picture_of_60000_by_60000(refused: Refused, workshop: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    (workshop / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert "60,000" in refused("make", "big.png", "-o", "a.png")


def test_truncated_png(refused: Refused, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(["make", "x", "-o", "whole.png"])
    data = (workshop / "whole.png").read_bytes()
    (workshop / "half.png").write_bytes(data[: len(data) - 30])
    capsys.readouterr()
    assert "cut off or damaged" in refused("make", "half.png", "-o", "a.png")


def test_a_text_called_png(refused: Refused, workshop: Path) -> None:
    (workshop / "words.png").write_text("these are words")
    assert "words.png" in refused("make", "words.png", "-o", "a.png")


def test_text_that_is_not_utf8(refused: Refused, workshop: Path) -> None:
    (workshop / "old.txt").write_bytes(b"caf\xe9")
    assert "expected UTF-8" in refused("make", "old.txt")


def test_unknown_command(refused: Refused) -> None:
    assert "did you mean 'conjure make'?" in refused("mkae")
    assert 'conjure make "a red apple"' in refused("a red apple")
    assert "No such option '--colour'" in refused("list", "--colour")
    assert "Missing argument" in refused("show")
