from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.core.files import folder_lock
from conjure.train import checkpoint
from conjure.train.loop import Training, train
from conjure.train.toy import Toy

CONFIG = Training(steps=6, batch=8, lr=1e-2, log_every=2, checkpoint_every=3)


class Spoilt(Toy):
    """Something happens at the batch that holds one example."""

    def __init__(self, at: int) -> None:
        super().__init__(0)
        self.at = at

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        total, count = super().loss(batch, network)
        return (total * float("nan") if self.spoilt(batch) else total), count

    def spoilt(self, batch: dict[str, Tensor]) -> bool:
        return bool((batch["seeds"] == self.batch([self.at])["seeds"]).any())


class Interrupted(Spoilt):
    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        if network is not None and self.spoilt(batch):
            os.kill(os.getpid(), signal.SIGINT)
        return Toy.loss(self, batch, network)


def curve(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_micro_batches_and_threads_give_the_large_batch(tmp_path: Path) -> None:
    train(Toy(0), CONFIG, tmp_path / "large")
    train(Toy(0), replace(CONFIG, micro_batch=3, prefetch=0), tmp_path / "small")
    large, small = load_file(tmp_path / "large/model.safetensors"), load_file(tmp_path / "small/model.safetensors")
    for name, tensor in large.items():
        torch.testing.assert_close(small[name], tensor, rtol=1e-4, atol=1e-5)
    for (_, one), (_, other) in zip(curve(tmp_path / "large"), curve(tmp_path / "small"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_toy_learns(tmp_path: Path, optimizer: str) -> None:
    config = replace(CONFIG, steps=40, lr=2e-2, optimizer=optimizer, warmup=5)
    before = Toy(0).evaluate()["loss"]
    assert train(Toy(0), config, tmp_path)["loss"] < before / 2


def test_a_run_leaves_model_metrics_previews_and_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, ema=0.9, preview_every=4, evaluate_every=4)
    result = train(Toy(0), config, tmp_path)
    assert [step for step, _ in curve(tmp_path)] == [2, 4, 6]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "evaluation/loss" in row] == [4, 6]
    assert rows[-1]["evaluation/loss"] == result["loss"]
    assert sorted(p.parent.name for p in tmp_path.glob("previews/*/continuation.txt")) == [
        "step-00000004", "step-00000006"]  # fmt: skip
    stored = load_file(tmp_path / "checkpoints/step-00000006/state.safetensors")
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, stored[f"average.{name}"])
        assert not torch.equal(tensor, stored[f"network.{name}"])
    said = capsys.readouterr()
    assert said.out == ""
    assert "step 4/6  loss" in said.err and "tokens/s" in said.err and "of matmul rate" in said.err


def test_saved_dtype(tmp_path: Path) -> None:
    train(Toy(0), replace(CONFIG, save_dtype="bfloat16"), tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


def test_a_loss_that_is_no_number_names_the_examples_and_spares_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match=r"step 4: loss nan on examples 36\.\.39"):
        train(Spoilt(37), replace(CONFIG, micro_batch=4), tmp_path)
    place = checkpoint.latest(tmp_path)
    assert place is not None and place.name == "step-00000003"
    assert not (tmp_path / "model.safetensors").exists()
    assert all(tensor.isfinite().all() for tensor in load_file(place / "state.safetensors").values())


def test_ctrl_c_saves_and_the_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(Toy(0), CONFIG, tmp_path / "whole", seed=3)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(at=9), CONFIG, tmp_path / "cut", seed=3)
    assert signal.getsignal(signal.SIGINT) is handler
    assert "stopped at step 2, which is saved" in capsys.readouterr().err
    train(Toy(0), CONFIG, tmp_path / "cut", seed=3, resume=True)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_finished_run_resumed_is_only_saved_again(tmp_path: Path) -> None:
    first = train(Toy(0), CONFIG, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert train(Toy(0), CONFIG, tmp_path, resume=True) == first
    assert (tmp_path / "model.safetensors").exists()


def test_resuming_refuses_another_recipe_and_bears_other_logging(tmp_path: Path) -> None:
    train(Toy(0), CONFIG, tmp_path, recipe={"model": {"dim": 16}})
    with pytest.raises(ConjureError, match=r"train\.lr was 0\.01, is 0\.02"):
        train(Toy(0), replace(CONFIG, lr=2e-2), tmp_path, resume=True, recipe={"model": {"dim": 16}})
    with pytest.raises(ConjureError, match=r"recipe\.model\.dim was 16, is 8"):
        train(Toy(0), CONFIG, tmp_path, resume=True, recipe={"model": {"dim": 8}})
    with pytest.raises(ConjureError, match="seed was 0, is 1"):
        train(Toy(0), CONFIG, tmp_path, resume=True, seed=1, recipe={"model": {"dim": 16}})
    train(Toy(0), replace(CONFIG, log_every=1), tmp_path, resume=True, recipe={"model": {"dim": 16}})


def test_a_used_or_locked_folder_is_refused(tmp_path: Path) -> None:
    train(Toy(0), replace(CONFIG, steps=1), tmp_path)
    with pytest.raises(ConjureError, match="already holds a run") as caught:
        train(Toy(0), CONFIG, tmp_path)
    assert "--resume" in caught.value.hint
    with folder_lock(tmp_path), pytest.raises(ConjureError, match=f"process {os.getpid()}"):
        train(Toy(0), CONFIG, tmp_path, resume=True)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConjureError, match="taken"):
        train(Toy(0), CONFIG, tmp_path / "taken" / "run")


def test_a_full_disk_spares_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path) -> None:
        if "00000006" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ConjureError, match="No space left"):
        train(Toy(0), CONFIG, tmp_path)
    place = checkpoint.latest(tmp_path)
    assert place is not None and place.name == "step-00000003"
    monkeypatch.undo()
    train(Toy(0), CONFIG, tmp_path, resume=True)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000003", "step-00000006"]


class Silent(Toy):
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        made = super().batch(indices)
        return made | {"targets": torch.full_like(made["targets"], -100)}


def test_a_batch_without_targets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="step 0"):
        train(Silent(0), CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("steps", 0), ("batch", -1), ("lr", 0.0), ("ema", 1.0), ("min_lr", 2.0), ("warmup", -1)]
)
def test_settings_out_of_range(key: str, value: float) -> None:
    with pytest.raises(ConjureError, match=rf"train\.{key}"):
        replace(CONFIG, **{key: value})
