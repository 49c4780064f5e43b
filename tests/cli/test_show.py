from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conjure import media
from conjure.cli.main import call
from tests.conftest import write_model

Capture = pytest.CaptureFixture[str]


def test_show_tells_how_a_file_was_made(workshop: Path, capsys: Capture) -> None:
    call(["make", "a red apple", "-o", "a.png", "--seed", "7", "--steps", "3"])
    capsys.readouterr()
    assert call(["show", "a.png"]) == 0
    said = capsys.readouterr().out
    for part in (
        "draw",
        "starter/daub",
        "a red apple",
        "steps     3",
        "seed        7",
        "trainedAlgorithmicMedia",
        "sha256:",
    ):
        assert part in said
    assert call(["show", "a.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["steps"] == 3


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.md", "a.txt"])
def test_remake_gives_the_same_bytes(workshop: Path, capsys: Capture, name: str) -> None:
    assert call(["make", "a red apple", "-o", name]) == 0
    again = f"again{Path(name).suffix}"
    assert call(["remake", name, "-o", again]) == 0
    assert Path(again).read_bytes() == Path(name).read_bytes()
    assert "byte for byte" in capsys.readouterr().err


def test_remake_of_one_of_several_and_of_a_grid(workshop: Path) -> None:
    call(["make", "x", "-o", "a.png", "--count", "3"])
    call(["make", "x", "-o", "grid.png", "--count", "3", "--grid"])
    for name in ("a-2.png", "grid.png"):
        assert call(["remake", name, "-o", "again.png", "-y"]) == 0
        assert Path("again.png").read_bytes() == Path(name).read_bytes()


def test_remake_from_a_file_that_moved(workshop: Path, refused: Callable[..., str], capsys: Capture) -> None:
    media.write(media.Image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)), "in.png")
    call(["make", "in.png", "-o", "out.png"])
    assert call(["remake", "out.png", "-o", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("out.png").read_bytes()
    Path("in.png").rename("moved.png")
    capsys.readouterr()
    assert "--input FILE" in refused("remake", "out.png", "-o", "third.png")
    assert call(["remake", "out.png", "-o", "third.png", "--input", "moved.png"]) == 0
    assert Path("third.png").read_bytes() == Path("out.png").read_bytes()


def test_remake_refuses_other_weights(workshop: Path, capsys: Capture) -> None:
    call(["make", "x", "-o", "a.png"])
    write_model(workshop.parent / "starters" / "daub", task="draw", value=2.0)
    capsys.readouterr()
    assert call(["remake", "a.png", "-o", "again.png"]) == 2
    said = capsys.readouterr().err
    assert "the one here is sha256:" in said and "hint: " in said
    assert not Path("again.png").exists()


def test_a_file_without_a_record(workshop: Path, refused: Callable[..., str]) -> None:
    media.write(media.Image(np.zeros((2, 2, 3), np.uint8)), "plain.png")
    assert "carries no record" in refused("show", "plain.png")
    assert "carries no record" in refused("remake", "plain.png", "-o", "again.png")
    assert "no such file" in refused("show", "nothing.png")
