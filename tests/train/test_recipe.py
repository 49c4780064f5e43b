from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.train import recipe
from conjure.train.recipe import header, load_recipe

TEXT = """\
# about: a toy
#   on two lines
# minutes: 3
# result: loss 0.1
task: toy
seed: 7
model: {dim: 16}
data: {length: 12}
train: {steps: 10, batch: 4, lr: 3e-4, betas: [0.9, 0.99], adam_lr: 1}
# key: not in the header
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    dim: int
    depth: int = 2


@dataclass(frozen=True, kw_only=True)
class Data:
    length: int = 8


class Task:
    ModelConfig = Model
    DataConfig = Data


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "toy-run.yaml").write_text(TEXT)
    monkeypatch.setattr(recipe, "recipes_dir", lambda: folder)
    return folder


def test_a_recipe_by_name_and_by_path(shelf: Path) -> None:
    read = load_recipe("toy-run")
    assert read == load_recipe(shelf / "toy-run.yaml") == load_recipe(str(shelf / "toy-run.yaml"))
    assert (read.task, read.seed) == ("toy", 7)
    assert (read.train.lr, read.train.adam_lr, read.train.betas) == (3e-4, 1.0, (0.9, 0.99))
    assert read.resolve(Task) == (Model(dim=16), Data(length=12))
    assert read.settings() == {"task": "toy", "model": {"dim": 16}, "data": {"length": 12}}


def test_overrides_pass_the_same_check(shelf: Path) -> None:
    read = load_recipe("toy-run", ["train.steps=20", "model.depth=4", "train.lr=1e-2"])
    assert (read.train.steps, read.train.lr, read.resolve(Task)[0]) == (20, 0.01, Model(dim=16, depth=4))
    with pytest.raises(ConjureError, match=r"train\.steps"):
        load_recipe("toy-run", ["train.steps=many"])


@pytest.mark.parametrize(
    ("wrong", "key", "near"),
    [
        ("steps: 10", "train.stepz", "steps"),
        ("task: toy", "tusk", "task"),
    ],
)
def test_a_misspelt_key_names_the_nearest(shelf: Path, wrong: str, key: str, near: str) -> None:
    bad = wrong.replace(near, key.rpartition(".")[2])
    (shelf / "bad.yaml").write_text(TEXT.replace(wrong, bad))
    with pytest.raises(ConjureError, match=f"`{key}`") as caught:
        load_recipe("bad")
    assert f"'{near}'" in caught.value.hint


def test_a_misspelt_model_key_is_named_with_its_section(shelf: Path) -> None:
    with pytest.raises(ConjureError, match=r"`model\.dimm`") as caught:
        load_recipe("toy-run", ["model.dimm=3"]).resolve(Task)
    assert "'dim'" in caught.value.hint


def test_an_unknown_recipe_names_the_nearest(shelf: Path) -> None:
    with pytest.raises(ConjureError, match="'toy-rum'") as caught:
        load_recipe("toy-rum")
    assert "'toy-run'" in caught.value.hint


def test_header(shelf: Path) -> None:
    assert header(shelf / "toy-run.yaml") == {
        "about": "a toy on two lines",
        "minutes": "3",
        "result": "loss 0.1",
    }
