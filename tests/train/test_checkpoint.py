from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.train import checkpoint
from conjure.train.distributed import World
from conjure.train.loop import Training
from conjure.train.run import Run, begin
from conjure.train.toy import Toy

CONFIG = Training(steps=8, batch=4, optimizer="muon", ema=0.9)


def run_of(toy: Toy, config: Training = CONFIG) -> Run:
    return begin(toy, config, seed=0, device=torch.device("cpu"), world=World())


def save(folder: Path, run: Run, keep: int = 2) -> Path:
    facts = {"settings": {"seed": 0, "model": {"dim": 16}}, "losses": [1.5]}
    return checkpoint.save(folder, run.state, facts, world=World(), keep=keep)


def load(place: Path, run: Run, **settings: object) -> dict[str, object]:
    return checkpoint.load(place, run.state, {"seed": 0, "model": {"dim": 16}} | settings, world=World())


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    run, other = run_of(Toy(0)), run_of(Toy(1))
    for step in range(2):
        run.step([(range(4), run.task.batch(range(4 * step, 4 * step + 4)))])
    facts = load(save(tmp_path, run), other)
    assert facts["losses"] == [1.5] and other.state.step == 2
    stored = run.state.tensors()
    assert {name.split(".")[0] for name in stored} == {"network", "optimizer", "average"}
    for name, tensor in other.state.tensors().items():
        assert torch.equal(tensor, stored[name]), name


def test_only_the_newest_are_kept_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    run = run_of(Toy(0))
    assert checkpoint.latest(tmp_path) is None
    for step in (5, 10, 15):
        run.state.step = step
        save(tmp_path, run)
    (tmp_path / "checkpoints" / ".step-00000020.partial").mkdir()
    assert [place.name for place in checkpoint.found(tmp_path)] == ["step-00000010", "step-00000015"]
    checkpoint.clear(tmp_path)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"step-00000010", "step-00000015"}


def test_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    run = run_of(Toy(0))
    place = save(tmp_path, run)
    with pytest.raises(ConjureError, match=r"model\.dim was 16, is 32"):
        load(place, run, model={"dim": 32})
    with pytest.raises(ConjureError, match=r"extra was None, is 1"):
        load(place, run, extra=1)


@pytest.mark.parametrize(
    ("toy", "config", "message"),
    [
        (Toy(0, dim=8), CONFIG, r"misshapen: average\.blocks\.0\.mix\.bias"),
        (Toy(0, depth=1), CONFIG, r"unexpected: average\.blocks\.1\.mix\.bias"),
        (Toy(0, depth=3), CONFIG, r"missing: average\.blocks\.2\.mix\.bias"),
        (Toy(0), replace(CONFIG, ema=0.0), r"unexpected: average\."),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, toy: Toy, config: Training, message: str) -> None:
    place, other = save(tmp_path, run_of(Toy(0))), run_of(toy, config)
    before = {name: tensor.clone() for name, tensor in other.state.tensors().items()}
    with pytest.raises(ConjureError, match=message):
        load(place, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state.tensors().items())


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    run = run_of(Toy(0))
    place = save(tmp_path, run)
    path = place / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConjureError, match="not a whole safetensors file"):
        load(place, run)


def test_a_broken_fact_file_is_an_error(tmp_path: Path) -> None:
    run = run_of(Toy(0))
    place = save(tmp_path, run)
    (place / "state.json").write_text("{")
    with pytest.raises(ConjureError, match="not readable"):
        load(place, run)
