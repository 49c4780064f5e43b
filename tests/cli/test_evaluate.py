from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conjure.cli.main import call
from conjure.tasks import suites

FOUND = {
    "model": "starter/parrot",
    "suites": {
        "copa": {"shots": 2, "n": 1200, "scores": {"acc": {"value": 0.51234, "stderr": 0.01234, "n": 1200}}},
        "wikitext": {"shots": 0, "n": 3, "scores": {"word_perplexity": {"value": 12345.6, "stderr": None, "n": 3}}},
    },
    "groups": {"mmlu": {"n": 7, "scores": {"acc": {"value": 0.25, "stderr": 0.5, "n": 7}}}},
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked to be examined."""
    kept: dict[str, Any] = {}

    def examine(model: str, names: list[str], **options: Any) -> dict[str, Any]:
        kept.update(options, model=model, names=names)
        return FOUND

    monkeypatch.setattr(suites, "examine", examine)
    return kept


def test_suites_as_a_table(workshop: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    line = "eval starter/parrot --suite copa --suite wikitext --shots 2 --limit 9 --suite-file f -o out".split()
    assert call(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["suite", "shots", "score", "value", "standard", "error", "n"]
    assert said[1].split() == ["copa", "2", "acc", "0.5123", "0.0123", "1,200"]
    assert said[2].split() == ["wikitext", "0", "word_perplexity", "1.235e+04", "-", "3"]
    assert said[3].split() == ["mmlu", "-", "acc", "0.2500", "0.5000", "7"]
    del told["on_event"]
    assert told == {
        "model": "starter/parrot", "names": ["copa", "wikitext"], "given": "f", "shots": 2, "limit": 9, "folder": "out",
    }  # fmt: skip


def test_suites_as_json_beside_perplexity(
    workshop: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["eval", "starter/parrot", "--suite", "copa", "--suite", "perplexity", "--data", "x", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suites"] == FOUND["suites"] and found["figures"]["bits_per_byte"]["value"] == 1.25
    assert told["names"] == ["copa"]
    assert call(["eval", "starter/parrot", "--suite", "perplexity", "--data", "x"]) == 0
    assert "on ['x']" in capsys.readouterr().out


def test_flags_that_do_not_fit(workshop: Path, refused: Callable[..., str]) -> None:
    assert "--shots belongs to --suite" in refused("eval", "starter/parrot", "--shots", "2")
    assert "--suite-file" in refused("eval", "starter/parrot", "--suite", "copa", "--data", "x.txt")
    assert "did you mean 'hellaswag'?" in refused("eval", "starter/parrot", "--suite", "helaswag")
    assert "one file holds the items of one suite" in refused(
        "eval", "starter/parrot", "--suite", "arc", "--suite-file", __file__
    )
    assert "is no language model" in refused("eval", "starter/parrot", "--suite", "copa")
