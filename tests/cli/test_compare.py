from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conjure.cli.main import call
from conjure.media.image import Image
from conjure.models.features import FeatureConfig, new_network
from conjure.tasks import compare as module
from conjure.tasks.features import FeatureData, Features
from tests.conftest import write_model

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def in_this_process(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "apart", module.here)
    write_model(Path("other"), task="draw")


def test_a_page_and_a_json(capsys: pytest.CaptureFixture[str]) -> None:
    line = "a cat|--models|starter/daub,starter/parrot|--models|./other|--seeds|2|--seed|7|-O|guidance=2|-o|c.html"
    assert call(["compare", *line.split("|")]) == 0
    said = capsys.readouterr()
    rows = [row.split() for row in said.out.splitlines()]
    assert rows[0] == ["system", "seconds", "evaluations", "memory", "parameters", "licence", "spread"]
    assert [row[0] for row in rows[1:]] == ["starter/daub", "starter/parrot", "./other"]
    assert rows[2][1] == "failed" and rows[1][-2] == "CC0-1.0"
    assert "starter/parrot: starter/parrot is a model for continue" in said.err
    assert "wrote c.html and c.json" in said.err
    kept = json.loads(Path("c.json").read_text())
    assert kept["seeds"] == [7, 8] and kept["systems"][0]["options"]["guidance"] == 2.0
    assert Path("c.html").read_text().count("data:image/png") == 4


def test_json_on_stdout_and_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    line = "compare x --models starter/daub --seeds 1 --evaluations 5 --size 64 -o c.html --json".split()
    assert call(line) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert system["options"]["steps"] == 5 and "has no --size" in system["notes"]


def test_what_a_recipe_trained(capsys: pytest.CaptureFixture[str], refused: Refused) -> None:
    assert "runs/mnist-flow holds no finished model" in refused(*"compare x --recipe mnist-flow -o c.html".split())
    write_model(Path("runs/mnist-flow"), task="draw")
    assert call("compare x --recipe mnist-flow --seeds 1 -o c.html".split()) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("runs/mnist-flow ")


def test_features_and_a_reference(capsys: pytest.CaptureFixture[str], refused: Refused) -> None:
    config = FeatureConfig(channels=1, size=8, widths=(8, 8), features=4, classes=2)
    Features(new_network(config), ["a", "b"], data=FeatureData()).save(Path("toy-features"))
    Path("real").mkdir()
    for k in range(12):
        Image(np.full((8, 9, 3), 20 * k, np.uint8)).save(f"real/{k}.png")
    Path("real/notes.html").write_text("no picture")
    line = "compare x --models starter/daub --seeds 12 --features ./toy-features --reference real -o c.html".split()
    assert call(line) == 0
    head = capsys.readouterr().out.splitlines()[0].split()
    assert head[-5:] == ["spread", "frechet", "kernel", "precision", "recall"]
    kept = json.loads(Path("c.json").read_text())
    assert "conjure-features-v1 toy-features (" in kept["features"]
    figure = kept["systems"][0]["metrics"]["frechet"]
    assert figure["n"] == 12 and "12 against 12" in figure["protocol"] and "resized bicubic" in figure["protocol"]
    line[line.index("real")] = "nowhere"
    line[-1] = "d.html"
    assert "--reference nowhere: found no pictures" in refused(*line)


def test_bad_calls(refused: Refused) -> None:
    assert "expected a name that ends in .html" in refused(*"compare x --models starter/daub -o c.png".split())
    assert "nothing to make it from" in refused(*"compare --models starter/daub -o c.html".split())
    assert "nothing to compare" in refused(*"compare x -o c.html".split())
    assert "did you mean 'starter/daub'?" in refused(*"compare x --models starter/dab -o c.html".split())
    assert "expected NAME=VALUE, got 'guidance'" in refused(*"compare x --models ./other -O guidance -o c.html".split())
    assert "found no pt_inception" in refused(*"compare x --models ./other --features inception -o c.html".split())
    Path("c.json").write_text("mine")
    assert "c.json: exists already" in refused(*"compare x --models starter/daub -n -o c.html".split())


def test_names_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, completed in (
        ("conjure compa", ["compare"]),
        ("conjure compare x --models starter/d", ["starter/daub"]),
        ("conjure compare x --recipe mnist-f", ["mnist-flow"]),
        ("conjure compare x --reference mn", ["mnist"]),
        ("conjure compare x --features inc", ["inception"]),
    ):
        monkeypatch.setenv("_CONJURE_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        with pytest.raises(SystemExit):
            call([])
        assert capsys.readouterr().out.split() == [f"plain,{name}" for name in completed]
