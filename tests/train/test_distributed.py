from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conjure.core.errors import ConjureError
from conjure.train.distributed import World
from conjure.train.loop import train
from conjure.train.run import begin
from conjure.train.toy import Toy

DRIVER = Path(__file__).with_name("torchrun_driver.py")
_spec = importlib.util.spec_from_file_location("torchrun_driver", DRIVER)
assert _spec is not None and _spec.loader is not None
_driver = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_driver)
CONFIG = _driver.CONFIG


def back_to_half(folder: Path) -> None:
    """As if the run had been killed after step 4."""
    shutil.rmtree(folder / "checkpoints/step-00000008")
    (folder / "model.safetensors").unlink()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, then two under torchrun; the latter also go on with what the former began."""
    folder = tmp_path_factory.mktemp("runs")
    train(Toy(0), CONFIG, folder / "single")
    for parallel in ("ddp", "fsdp"):
        shutil.copytree(folder / "single", folder / f"single-then-{parallel}")
        back_to_half(folder / f"single-then-{parallel}")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, str(DRIVER), str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def same_run(folder: Path, single: Path) -> None:
    """Equal within rounding, at every step and in the end."""
    curves = [
        [row["loss"] for row in map(json.loads, (each / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
        for each in (folder, single)
    ]
    assert len(curves[0]) == CONFIG.steps
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    expected = load_file(single / "model.safetensors")
    found = load_file(folder / "model.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-4 * float(tensor.abs().max()))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_reach_what_one_reaches(runs: Path, parallel: str) -> None:
    same_run(runs / parallel, runs / "single")
    assert (runs / parallel / "previews/step-00000008/continuation.txt").exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_checkpoint_of_one_process_goes_on_in_two(runs: Path, parallel: str) -> None:
    same_run(runs / f"single-then-{parallel}", runs / "single")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_processes_goes_on_in_one(runs: Path, tmp_path: Path, parallel: str) -> None:
    folder = tmp_path / "again"
    shutil.copytree(runs / parallel, folder)
    back_to_half(folder)
    train(Toy(0), CONFIG, folder, resume=True)
    same_run(folder, runs / "single")


def test_sharded_checkpoints_are_safetensors_cut_in_two(runs: Path) -> None:
    place = runs / "fsdp/checkpoints/step-00000008"
    assert {path.suffix for path in place.iterdir()} == {".safetensors", ".json"}
    shapes = [load_file(path)["network.embed.weight"].shape for path in sorted(place.glob("*.safetensors"))]
    assert shapes == [(8, 16), (8, 16)]


def test_a_batch_that_cannot_be_shared_is_an_error() -> None:
    with pytest.raises(ConjureError, match="multiple of the 3 processes, got 8"):
        begin(Toy(0), CONFIG, seed=0, device=torch.device("cpu"), world=World(0, 3, "ddp"))
