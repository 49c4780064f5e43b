from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from conjure import media
from conjure.cli.main import call

Capture = pytest.CaptureFixture[str]


def test_a_picture_is_written_where_o_says(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "a red apple", "-o", "apple.png", "--seed", "7"]) == 0
    assert media.read("apple.png").pixels.shape == (8, 8 + len("a red apple"), 3)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "note: wrote apple.png (starter/daub, seed 7)\n"


def test_a_text_is_streamed_with_its_prompt_and_one_line_end(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "Once upon", "--seed", "5", "--tokens", "2"]) == 0
    assert capsys.readouterr().out == "Once upon 5 5\n"


def test_the_file_of_a_text_holds_prompt_and_continuation(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "Once upon", "--seed", "5", "-o", "story.md"]) == 0
    assert str(media.read("story.md")) == "Once upon 5 5 5"
    assert capsys.readouterr().out == ""


def test_count_numbers_the_files_and_the_seeds(workshop: Path) -> None:
    assert call(["make", "x", "-o", "a.png", "--count", "3", "--seed", "10"]) == 0
    assert sorted(path.name for path in workshop.iterdir()) == ["a-1.png", "a-2.png", "a-3.png"]
    assert [media.read(f"a-{k}.png").pixels[0, 0, 0] for k in (1, 2, 3)] == [10, 11, 12]
    assert [media.read_provenance(f"a-{k}.png").seed for k in (1, 2, 3)] == [10, 11, 12]


def test_sample_k_can_be_drawn_again_alone(workshop: Path) -> None:
    call(["make", "x", "-o", "a.png", "--count", "3", "--seed", "10"])
    call(["make", "x", "-o", "alone.png", "--seed", "12"])
    assert (media.read("a-3.png").pixels == media.read("alone.png").pixels).all()


def test_grid_is_one_picture(workshop: Path) -> None:
    assert call(["make", "x", "-o", "a.png", "--count", "4", "--grid"]) == 0
    assert [path.name for path in workshop.iterdir()] == ["a.png"]
    assert media.read("a.png").pixels.shape[0] >= 16


def test_without_a_seed_one_is_drawn_and_recorded(workshop: Path) -> None:
    for name in ("a.png", "b.png"):
        call(["make", "x", "-o", name])
    first, second = (media.read_provenance(name).seeds for name in ("a.png", "b.png"))
    assert first != second  # two draws of 32 bits
    assert media.read("a.png").pixels[0, 0, 0] == first[0] % 256


def test_no_provenance(workshop: Path) -> None:
    call(["make", "x", "-o", "a.png", "--no-provenance"])
    assert media.read_provenance("a.png") is None


def test_options_of_the_edge_in_any_place(workshop: Path) -> None:
    for name, line in {
        "a.png": ["--steps", "5", "x", "-o", "a.png"],
        "b.png": ["x", "--steps=5", "-o", "b.png"],
        "c.png": ["-o", "c.png", "x", "--steps", "5", "--sampler", "heun"],
    }.items():
        assert call(["make", *line]) == 0
        assert media.read_provenance(name).options["steps"] == 5
    assert media.read_provenance("c.png").options == {"steps": 5, "guidance": 1.0, "sampler": "heun"}


def test_switches_and_repeated_options(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "--loud", "x", "--tokens", "1", "--stop", "a", "--stop", "b", "--json", "--seed", "1"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert options == {"tokens": 1, "top_p": 1.0, "stop": ["a", "b"], "loud": True}
    assert call(["make", "x", "--no-loud", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["loud"] is False


def test_behind_two_dashes_everything_is_input(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "--tokens", "1", "--seed", "3", "--", "--tokens"]) == 0
    assert capsys.readouterr().out == "--tokens 3\n"


def test_stdin_and_stdout(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a blue fish\n")))
    assert call(["make", "-", "-o", "-", "--to", "png", "--seed", "9"]) == 0
    with PillowImage.open(io.BytesIO(capsysbinary.readouterr().out)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (8 + len("a blue fish"), 8)


def test_to_decides_the_format_on_stdout(workshop: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert call(["make", "x", "-o", "-", "--to", "jpg"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"\xff\xd8\xff")


def test_an_existing_file_is_that_file_and_text_is_text(workshop: Path, capsys: Capture) -> None:
    Path("start.txt").write_text("In the sea\n")
    assert call(["make", "start.txt", "--seed", "1", "--tokens", "1"]) == 0
    assert call(["make", "text:start.txt", "--seed", "1", "--tokens", "1"]) == 0
    assert capsys.readouterr().out == "In the sea 1\nstart.txt 1\n"


def test_a_picture_in_a_picture_out(workshop: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    media.write(media.Image(pixels), "in.png")
    assert call(["make", "in.png", "-o", "out.png"]) == 0
    assert (media.read("out.png").pixels == pixels[:, ::-1]).all()
    (kept,) = media.read_provenance("out.png").inputs
    assert kept == {"kind": "image", "name": "in.png", "digest": media.read("in.png").digest()}


def test_json_says_what_was_made(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "x", "-o", "a.png", "--json", "--seed", "4", "--count", "2"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["a-1.png", "a-2.png"] and said["seeds"] == [4, 5]
    assert said["model"] == "starter/daub" and said["digest"].startswith("sha256:")
    assert said["digests"][0].startswith("sha256:") and said["seconds"] >= 0
    assert (said["task"], said["from"], said["to"]) == ("draw", ["text"], "image")


def test_plan_makes_nothing(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "x", "-o", "a.png", "--plan", "--steps", "4"]) == 0
    said = capsys.readouterr().out
    assert list(workshop.iterdir()) == []
    for part in ("text -> image (draw)", "starter/daub", "steps 4", "at least 2 s", "a.png"):
        assert part in said
    assert call(["make", "x", "-o", "a.png", "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["seconds"] == 1.0


def test_a_path_is_announced_and_taken(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "abc", "--task", "mirror", "-o", "a.png", "--seed", "3"]) == 0
    assert "going text -> image (draw, starter/daub) -> image (mirror, starter/daub)" in capsys.readouterr().err
    assert media.read("a.png").pixels.shape == (8, 11, 3)


def test_overwriting_needs_a_yes(workshop: Path) -> None:
    assert call(["make", "x", "-o", "a.png", "--seed", "1"]) == 0
    before = Path("a.png").read_bytes()
    assert call(["make", "x", "-o", "a.png", "--seed", "2"]) == 2
    assert call(["make", "x", "-o", "a.png", "--seed", "2", "-n"]) == 2
    assert Path("a.png").read_bytes() == before
    assert call(["make", "x", "-o", "a.png", "--seed", "2", "-y"]) == 0
    assert Path("a.png").read_bytes() != before


def test_warnings_are_notes_on_stderr(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "a zyx", "-o", "a.png"]) == 0
    assert "note: this model has not learnt 'zyx'\n" in capsys.readouterr().err


def test_help_with_inputs_shows_that_edge(workshop: Path, capsys: Capture) -> None:
    assert call(["make", "-h", "x", "-o", "y.png"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--steps N steps of the sampler; a whole number from 1 to 1000 [default: 2]" in said
    assert "--sampler NAME how the noise is removed; one of euler, heun [default: euler]" in said
    assert "--tokens" not in said
    assert call(["make", "-h", "x"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--top-p X share of the probability to draw from; a number above 0 and at most 1 [default: 1.0]" in said
    assert "--loud write in capitals; on or off [default: off]" in said


@pytest.mark.parametrize("line", [["interrupt me", "-o", "a.png"], ["interrupt me"], ["interrupt", "-o", "a.md"]])
def test_ctrl_c_ends_with_130_and_writes_nothing(workshop: Path, capsys: Capture, line: list[str]) -> None:
    assert call(["make", *line]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert list(workshop.iterdir()) == []
