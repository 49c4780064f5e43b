"""The benchmark of pictures: what both programs compute is the same, and the result counts right. Nothing is timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import pictures
from benchmarks.painters import conjure_painter, diffusers_painter
from benchmarks.painters.shapes import write
from benchmarks.painters.work import Task, Work


@pytest.mark.parametrize("task", ["unet", "decode", "dit", "loop"])
@torch.no_grad()
def test_both_programs_compute_the_same(task: Task, tmp_path: Path) -> None:
    work = Work(str(tmp_path), task, 8, threads=1, steps=2)
    torch.manual_seed(0)
    for part in (work.part, "scheduler"):
        write(tmp_path, "toy", part)
    ours, theirs = (painter.load(work)() for painter in (conjure_painter, diffusers_painter))
    assert ours.shape == theirs.shape and theirs.abs().max() > 0
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, "toy", "vae")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "vae").iterdir()}
    write(tmp_path, "toy", "vae")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "vae").iterdir()}


@pytest.mark.parametrize(("task", "giga"), [("unet", 1606.5), ("decode", 2514.5), ("dit", 474.5), ("loop", 32130.9)])
def test_operations_at_full_size(task: str, giga: float) -> None:
    side = 32 if task == "dit" else 64
    assert pictures.flops(task, side, "full", 20) / 1e9 == pytest.approx(giga, rel=1e-3)


def test_the_result() -> None:
    found = {
        "conjure": pictures.Measured([1.0, 2.0, 4.0], [1.0, 1.0, 1.0], 1 << 20, 3.0),
        "diffusers": pictures.Measured([2.0, 3.0, 4.0], [2.0, 2.0, 2.0], 2 << 20, 3.0),
    }
    said = pictures.speed_result("unet", found, 4e9, 8e9)
    assert "PASS  unet: speed / diffusers: 1.50 (at least 1.2)  1.50 (1.00-2.00)" in said
    assert "PASS  unet: peak memory / diffusers: 0.50 (at most 1)" in said
    assert "PASS  unet: difference of the sums: 0.0e+00" in said
    row = next(line for line in said.splitlines() if line.startswith("| conjure"))
    assert [cell.strip() for cell in row.split("|")][4:8] == ["2", "25%", "4", "1"]
    runs = {program: [{"interpreter": 0.1, "imports": 1.0, "load": load, "step": load + 1, "memory": 1 << 20}]
            for program, load in (("conjure", 2.0), ("diffusers", 5.0))}  # fmt: skip
    told = pictures.start_result(runs)
    assert "PASS  from nothing to the first step / diffusers: 0.40 (at most 0.5)" in told


def test_unknown_measurements_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pictures.parse(["--only", "unet,vae"])
    assert "vae" in capsys.readouterr().err
