"""`conjure make` on pictures: the options tell the task, files behind options travel in the record, remake works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conjure import media
from conjure.cli.main import call
from conjure.media.image import Image
from conjure.tasks import table
from conjure.tasks.table import Edge
from tests.media.test_image import noise
from tests.tasks.painters import painter

WAYS = (("image", "text"), ("image",))
EDGES = tuple(
    Edge(kinds, "image", task, f"conjure.tasks.{target}", "", f"{task}s", ("draw", "text_to_image"))
    for task, target in (("vary", "vary:Vary"), ("inpaint", "inpaint:Inpaint"), ("outpaint", "outpaint:Outpaint"))
    for kinds in WAYS
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(painter(tmp_path_factory.mktemp("cli")))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(table, "TABLE", EDGES)
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((64, 64, 1), np.uint8)
    mask[10:30, 10:30] = 255
    (tmp_path / "masks").mkdir()
    Image(mask).save(tmp_path / "masks" / "m.png")
    Image(noise(64, 64)).save(tmp_path / "p.png")
    return tmp_path


def test_a_mask_makes_it_inpainting_and_travels_in_the_record(
    work: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["make", "p.png", "a box", "--mask", "masks/m.png", "--steps=2", "-o", "out.png", "--seed", "3"]
    assert call([*line, "--model", model]) == 0, capsys.readouterr().err
    record = media.read_provenance(work / "out.png")
    assert record is not None and record.task == "inpaint" and record.options["mask"] == "m.png"
    assert [each.get("name", each.get("text")) for each in record.inputs] == ["p.png", "a box", "m.png"]
    mask = media.read(work / "masks" / "m.png")
    assert record.inputs[2]["option"] == "mask" and record.inputs[2]["digest"] == mask.digest()
    before, after = media.read(work / "p.png"), media.read(work / "out.png")
    assert isinstance(before, Image) and isinstance(after, Image) and isinstance(mask, Image)
    kept = mask.pixels[:, :, 0] == 0
    assert np.array_equal(before.pixels[kept], after.pixels[kept]) and not np.array_equal(before.pixels, after.pixels)

    again = ["remake", "out.png", "-o", "again.png", "--input", "masks/m.png"]
    assert call(again) == 0, capsys.readouterr().err
    assert (work / "again.png").read_bytes() == (work / "out.png").read_bytes()
    Image(255 - mask.pixels).save(work / "masks" / "m.png")
    assert call([*again, "-y"]) == 2
    assert "m.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, task", [((), "vary"), (("--strength", "0.5"), "vary"), (("--extend", "left=8"), "outpaint")]
)
def test_options_tell_the_task(work: Path, model: str, options: tuple[str, ...], task: str) -> None:
    assert call(["make", "p.png", "a box", *options, "--steps", "2", "-o", "out.png", "--model", model]) == 0
    record = media.read_provenance(work / "out.png")
    assert record is not None and record.task == task


def test_without_a_text(work: Path, model: str) -> None:
    line = ["make", "p.png", "-o", "out.png", "--model", model, "--steps", "2", "--mask", "masks/m.png"]
    assert call(line) == 0
    record = media.read_provenance(work / "out.png")
    assert record is not None and record.task == "inpaint" and len(record.inputs) == 2


@pytest.mark.parametrize(
    "options, said",
    [
        (("--mask", "n.png"), "n.png: no such file"),
        (("--mask", "p.txt"), "expected a picture, p.txt is text"),
        (("--mask", "m.png", "--task", "vary"), "has no option --mask"),
        (("--mask", "q.png"), "the mask is 30 x 20 pixels"),
        (("--task", "inpaint"), "nothing says what may change"),
        (("--extend", "up=3"), "expected sides and pixels"),
    ],
)
def test_what_cannot_be(
    work: Path, model: str, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    (work / "p.txt").write_text("white")
    Image(noise()).save(work / "q.png")
    assert call(["make", "p.png", "a box", *options, "-o", "out.png", "--model", model]) == 2
    error = capsys.readouterr().err
    assert said in error and "hint: " in error and not (work / "out.png").exists()


def test_help_shows_the_options_of_the_task(work: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["make", "-h", "p.png", "--mask", "m.png", "--model", model]) == 0
    said = capsys.readouterr().out
    assert said.startswith("inpaint: image -> image") and "--mask TEXT" in said and "--feather" in said
