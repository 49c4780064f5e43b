from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

from conjure.train.loop import Training, train
from conjure.train.report import duration, keep_until
from conjure.train.toy import Toy


def test_metrics_after_the_checkpoint_and_half_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30}\n{"ste')
    keep_until(path, 20, 40)
    assert path.read_text() == '{"step": 10}\n{"step": 20}\n'
    keep_until(tmp_path / "none.jsonl", 20, 40)
    assert not (tmp_path / "none.jsonl").exists()


def test_figures_of_the_last_step_are_recorded_again_and_those_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = '{"step": 10, "evaluation/loss": 2.0}\n{"step": 20, "loss": 1.5}\n'
    path.write_text(rows + '{"step": 20, "evaluation/loss": 1.0}\n')
    keep_until(path, 20, 20)
    assert path.read_text() == rows


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.6, "1 min 00 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def pretend(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    """As if tensorboard were installed, or not."""
    really = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: spec if name == "tensorboard" else really(name, *rest)
    )


def test_curves_go_to_tensorboard_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (Path(folder), purge_step) == (tmp_path / "tensorboard", 1)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    pretend(monkeypatch, object())
    result = train(Toy(0), Training(steps=2, batch=4, log_every=1), tmp_path)
    assert [step for name, _, step in written if name == "loss"] == [1, 2]
    assert ("loss", result["train_loss"], 2) in written and ("evaluation/loss", result["loss"], 2) in written
    assert written[-1][0] == "closed"
    assert "not installed" not in capsys.readouterr().err


def test_a_missing_tensorboard_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, None)
    train(Toy(0), Training(steps=2, batch=4, log_every=1), tmp_path)
    assert capsys.readouterr().err.count("tensorboard is not installed") == 1
