from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from conjure.cli.main import call
from conjure.core.files import folder_lock
from conjure.tasks import table
from conjure.tasks.table import Edge
from conjure.train.toy import Toy

Refused = Callable[..., str]
RECIPE = """\
# about: learns to count
task: count
seed: 1
model: {dim: 8}
data: {length: 8}
train: {steps: 6, batch: 4, lr: 3e-4, checkpoint_every: 2, threads: 1, log_every: 3}
"""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    dim: int = 16


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    length: int = 12
    interrupt: int = -1
    """The example at which Ctrl-C is pressed, once."""


class Counting(Toy):
    ModelConfig = ModelConfig
    DataConfig = DataConfig
    interrupt = -1
    sets = ()

    @classmethod
    def create(cls, model: ModelConfig, data: DataConfig, seed: int) -> Counting:
        made = cls(seed, dim=model.dim, length=data.length)
        made.interrupt = data.interrupt
        return made

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        if self.interrupt in indices and not Path("pressed").exists():
            Path("pressed").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return super().batch(indices)


@pytest.fixture(autouse=True)
def counting(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Edge(("text",), "text", "count", f"{__name__}:Counting", "starter/parrot", "counts")
    monkeypatch.setattr(table, "TABLE", (edge,))
    monkeypatch.setattr("conjure.train.report.matmul_rate", lambda *args, **kwargs: 1e9)
    (workshop / "toy.yaml").write_text(RECIPE)


def weights(folder: str) -> bytes:
    return (Path(folder) / "model.safetensors").read_bytes()


def test_a_recipe_is_trained_into_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "toy.yaml", "train.log_every=1"]) == 0
    said = capsys.readouterr()
    figures = json.loads(said.out)
    assert figures["folder"] == "runs/toy" and figures["loss"] > 0
    assert (Path("runs/toy") / "config.json").is_file()
    assert "step 6/6" in said.err


def test_ctrl_c_saves_and_resume_ends_with_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "toy.yaml", "-o", "whole"]) == 0
    assert call(["train", "toy.yaml", "data.interrupt=13", "-o", "broken"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (Path("broken") / "model.safetensors").exists()
    assert call(["train", "toy.yaml", "data.interrupt=13", "-o", "broken", "--resume"]) == 0
    assert weights("broken") == weights("whole")


def test_check_audits_and_trains_nothing(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "toy.yaml", "train.lr=0.01", "--check"]) == 0
    said = capsys.readouterr().out
    assert "PASS" in said and "FAIL" not in said
    assert [path.name for path in workshop.iterdir()] == ["toy.yaml"]


def test_check_that_fails_says_which(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def mean(self: Counting, batch: dict[str, Tensor], network: Any = None) -> tuple[Tensor, Tensor]:
        total, count = Toy.loss(self, batch, network)
        return total / count, count * 0 + 1

    monkeypatch.setattr(Counting, "loss", mean)
    assert call(["train", "toy.yaml", "train.lr=0.01", "--check"]) == 2
    said = capsys.readouterr()
    assert "FAIL" in said.out and "checks failed" in said.err and "hint: " in said.err


@pytest.mark.parametrize(
    ("assignments", "message", "hint"),
    [
        (["train.step=5"], "train.step", "steps"),
        (["modle.dim=5"], "modle", "model"),
        (["model.dim=wide"], "model.dim", ""),
        (["train.lr"], "expected key=value", "train.lr=3e-4"),
        (["task=cuont"], "no task is called 'cuont'", "did you mean 'count'?"),
        (["train.steps=0"], "train.steps: expected at least 1, got 0", ""),
    ],
)
def test_a_recipe_with_a_mistake(refused: Refused, assignments: list[str], message: str, hint: str) -> None:
    said = refused("train", "toy.yaml", *assignments)
    assert message in said and hint in said.partition("hint: ")[2]


def test_an_unknown_recipe(refused: Refused) -> None:
    assert "expected the name or the path of a recipe, got 'shakespear'" in refused("train", "shakespear")


def test_three_e_minus_four_is_a_number(workshop: Path) -> None:
    from conjure.tasks.training import prepare

    assert prepare("toy.yaml")[0].train.lr == 3e-4
    assert prepare("toy.yaml", ["train.lr=1e-3"])[0].train.lr == 1e-3


def test_two_processes_in_one_folder(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workshop / "run").mkdir()
    with folder_lock(workshop / "run"):
        assert call(["train", "toy.yaml", "-o", "run"]) == 2
    assert f"process {os.getpid()} is already working in this folder" in capsys.readouterr().err
    assert [path.name for path in (workshop / "run").iterdir()] == [".lock"]


def test_a_run_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "toy.yaml"]) == 0
    before = weights("runs/toy")
    assert call(["train", "toy.yaml", "seed=2"]) == 2
    assert "--resume, or another folder" in capsys.readouterr().err
    assert weights("runs/toy") == before
