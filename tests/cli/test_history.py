from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from conjure.cli.main import call
from conjure.media.image import Image
from conjure.tasks import table
from conjure.tasks.table import Edge


@pytest.fixture
def kept(tmp_path: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_HISTORY", str(tmp_path / "history"))
    return tmp_path / "history"


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert call(["history", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_make_makes_is_found_shown_remade_and_deleted(
    kept: Path, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["make", "a red apple", "-o", "apple.png", "--seed", "4"]) == 0
    assert call(["make", "something else", "--to", "text", "--seed", "5"]) == 0
    assert call(["make", "not kept", "-o", "no.png", "--no-history"]) == 0
    (only,) = listed(capsys, "app")
    assert only["prompt"] == "a red apple" and only["path"] == str(workshop / "apple.png") and only["obstacle"] == ""
    assert Path(str(only["file"])).read_bytes() == (workshop / "apple.png").read_bytes()
    assert [each["kind"] for each in listed(capsys)] == ["text", "image"]
    assert call(["history"]) == 0
    shown = capsys.readouterr().out
    assert "a red apple" in shown and "apple.png" in shown and "not kept" not in shown
    assert call(["history", "show", "1"]) == 0 and "can be remade  yes" in capsys.readouterr().out
    assert call(["history", "remake", "1", "-o", "again.png"]) == 0
    assert "byte for byte" in capsys.readouterr().err
    assert (workshop / "again.png").read_bytes() == (workshop / "apple.png").read_bytes()
    assert call(["history", "export", "1", "last", "-o", "out"]) == 0
    assert sorted(path.name for path in (workshop / "out").iterdir()) == ["1-apple.png", "2-continue.txt"]
    assert call(["history", "delete", "1", "-y"]) == 0 and len(listed(capsys)) == 1
    assert not Path(str(only["file"])).exists() and (workshop / "apple.png").exists()
    assert call(["history", "delete", "--all", "-y"]) == 0 and listed(capsys) == []


def test_inputs_are_kept_for_making_it_again(
    kept: Path, workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.full((20, 20, 3), 240, np.uint8)
    pixels[6:14, 6:14] = (200, 30, 40)
    Image(pixels).save(workshop / "photo.png")
    edge = Edge(("image",), "image", "cutout", "conjure.tasks.cut_out:CutOut", "", "cuts", by_rule=True)
    monkeypatch.setattr(table, "TABLE", (edge,))
    assert call(["make", "photo.png", "--task", "cutout", "-o", "cut.png"]) == 0
    (workshop / "photo.png").unlink()
    assert call(["history", "remake", "last", "-o", "again.png"]) == 0
    assert (workshop / "again.png").read_bytes() == (workshop / "cut.png").read_bytes()
    (entry,) = listed(capsys)
    for path in kept.glob("files/??/*.png"):
        if path != Path(str(entry["file"])):
            path.unlink()
    assert "are gone" in str(listed(capsys)[0]["obstacle"])


def test_what_stands_in_the_way_spoils_nothing(
    kept: Path, workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write_text("a file where the folder should be")
    assert call(["make", "a red apple", "-o", "apple.png"]) == 0
    assert "not kept in the history" in capsys.readouterr().err and (workshop / "apple.png").exists()
    monkeypatch.setenv("CONJURE_HISTORY", "off")
    assert call(["make", "a red apple", "-o", "b.png"]) == 0 and "history" not in capsys.readouterr().err
    assert call(["history"]) == 2 and "switched off" in capsys.readouterr().err


def test_clear_refusals(kept: Path, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["show", "last"], "nothing has been made yet"), (["show", "seven"], "expected the number"),
        (["show", "7"], "no result 7"), (["delete"], "delete what?"), (["delete", "1", "--all"], "delete what?"),
    ):  # fmt: skip
        assert call(["history", *words]) == 2 and said in capsys.readouterr().err
    assert call(["make", "a red apple", "-o", "apple.png"]) == 0
    assert call(["history", "delete", "1"]) == 2 and "-y deletes them" in capsys.readouterr().err
    assert call(["history", "remake", "1", "-o", "x.txt"]) == 2
    assert "expected a name for image" in capsys.readouterr().err


def test_open_hands_the_kept_file_to_the_desktop(
    kept: Path, workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(["make", "a red apple", "-o", "apple.png"]) == 0
    (entry,) = listed(capsys)
    programs = workshop / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    assert call(["history", "open", "last"]) == 2
    assert f"there is no {opener}" in (said := capsys.readouterr().err) and str(entry["file"]) in said
    (programs / opener).write_text(f'#!/bin/sh\nprintf %s "$1" > "{workshop}/opened"\n')
    (programs / opener).chmod(0o755)
    assert call(["history", "open", "1"]) == 0
    assert (workshop / "opened").read_text() == entry["file"]
