from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.studio.runs import DONE, FAILED, RUNNING, STARTING, STOPPED, Facts, Runs, lacking, measures, needed, untold
from tests.conftest import write_model

SLOW = """#!/bin/sh
trap 'echo "stopped at step 3, which is saved: go on with --resume"; exit 130' INT
mkdir -p checkpoints/step-00000003
echo "step 3/10  loss 1.5  lr 1e-3  10 tokens/s  1.0% of matmul rate  2 min 05 s left"
while true; do sleep 0.05; done
"""


def written(runs: Runs, name: str, **facts: object) -> Path:
    folder = runs.place / name
    folder.mkdir(parents=True)
    plain = {"recipe": "shakespeare-char", "assignments": [], "pid": 0, "began": 0.0, "used": False, **facts}
    (folder / "run.json").write_text(json.dumps(plain))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "models")


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden", "a" * 80, "a b", "-o"])
def test_a_name_is_never_a_path(runs: Runs, name: str) -> None:
    with pytest.raises(ConjureError, match="expected a name"):
        runs.begin(name, "shakespeare-char", [])
    assert not runs.place.exists()


@pytest.mark.parametrize("recipe", ["/etc/passwd", "../recipes/story.yaml", "nothing"])
def test_a_recipe_is_one_of_those_that_come_along(runs: Runs, recipe: str) -> None:
    with pytest.raises(ConjureError, match="no recipe"):
        runs.begin("mine", recipe, [])


def test_a_mistake_in_the_recipe_is_said_before_anything_starts(runs: Runs) -> None:
    with pytest.raises(ConjureError, match=r"train\.step"):
        runs.begin("mine", "shakespeare-char", ["train.step=5"])
    assert runs.names() == []


def test_missing_data_are_named_with_what_to_do(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONJURE_DATA", raising=False)
    with pytest.raises(ConjureError, match=r"conjure data get tinyshakespeare.*CONJURE_DATA is not set"):
        runs.begin("mine", "shakespeare-char", [])
    (tmp_path / "data" / "tinyshakespeare").mkdir(parents=True)
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data"))
    assert lacking(["tinyshakespeare", "mnist"]) == ["mnist"]
    assert f"CONJURE_DATA is {tmp_path / 'data'}" in untold(["mnist"])


def test_what_a_recipe_reads() -> None:
    assert needed("chat") == ("instruct_small", "books_children", "books_general")
    assert needed("mnist-flow") == ("mnist",) and needed("mnist-vae") == ("mnist",)
    assert needed("shakespeare-char", ["data.sets=[books_children]"]) == ("books_children",)
    assert needed("pictograms-edit") == ("noto_emoji",)


def test_a_process_is_watched_stopped_and_outlives_the_one_who_began_it(runs: Runs, tmp_path: Path) -> None:
    script = tmp_path / "slow.sh"
    script.write_text(SLOW)
    folder = written(runs, "mine")
    with open(folder / "run.log", "wb") as log:
        command = ["/bin/sh", str(script), str(folder)]
        child = subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=log)
    (folder / "run.json").write_text(json.dumps({"recipe": "r", "assignments": [], "pid": child.pid, "began": 0.0}))
    until = time.monotonic() + 60
    while runs.seen("mine").step != 3 and time.monotonic() < until:
        time.sleep(0.02)
    other = Runs(runs.place)  # as after a restart of the server
    seen = other.seen("mine")
    assert (seen.state, seen.step, seen.steps, seen.left) == (STARTING, 3, 10, "2 min 05 s")
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n{"step": 3, "evaluation/loss": 1.25}\n{"step"')
    assert other.seen("mine").state == RUNNING and other.seen("mine").losses == ((3, 1.5),)
    with pytest.raises(ConjureError, match="it is running"):
        other.resume("mine")
    other.stop("mine")
    assert child.wait(60) == 130
    seen = other.seen("mine")
    assert seen.state == STOPPED and seen.said == "Step 3 is saved." and other.resumable("mine")


def test_a_number_that_another_process_has_now_is_not_the_training(runs: Runs) -> None:
    written(runs, "old", pid=os.getpid())
    assert not runs.running("old")


def test_how_a_run_ended(runs: Runs) -> None:
    folder = written(runs, "wrong")
    (folder / "run.log").write_text("step 1/9\nerror: train.lr: too large\nhint: train.lr=1e-3\n")
    seen = runs.seen("wrong")
    assert seen.state == FAILED and seen.said == "error: train.lr: too large hint: train.lr=1e-3"
    write_model(written(runs, "good"), task="draw")
    assert runs.seen("good").state == DONE and not runs.resumable("good")
    runs.used("good")
    assert runs.facts("good").used and not runs.facts("wrong").used
    assert sorted(runs.names()) == ["good", "wrong"]
    with pytest.raises(ConjureError, match="no such run"):
        runs.facts("never")


def test_previews_are_the_latest_first(runs: Runs) -> None:
    folder = written(runs, "mine")
    for step in (5, 10):
        place = folder / "previews" / f"step-{step:08d}"
        place.mkdir(parents=True)
        (place / "text.txt").write_text("once")
    assert [step for step, _ in runs.previews("mine")] == [10, 5]


def test_metrics_that_are_not_whole_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\nnonsense\n[1]\n{"step": 2, "evaluation/bits": 1.5}\n{"step": 3, "lo')
    assert measures(path) == (((1, 2.0),), {"bits": ((2, 1.5),)})
    assert measures(tmp_path / "none") == ((), {})


def test_facts_keep_their_defaults() -> None:
    assert Facts(recipe="r") == Facts(recipe="r", assignments=(), pid=0, began=0.0, used=False)
