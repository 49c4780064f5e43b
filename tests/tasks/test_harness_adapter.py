"""conjure's scores beside those of the LM Evaluation Harness, on the same weights, items and task definitions."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conjure.data.suites import SUITES
from conjure.metrics.harness import Subject
from conjure.metrics.scores import Figure
from conjure.tasks.suite_record import Record, asked
from conjure.tasks.suites import measured, prepared

sys.path.insert(0, str(Path(__file__).parent))
from examined import NAMES, TOKENS, read_subject, scripted, write_items, write_model

SHOTS, RESAMPLES = 2, 2000  # as in harness_driver.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the harness has been run."""
    place = tmp_path_factory.mktemp("harness")
    write_items(place / "items")
    write_model(place / "model", "llama")
    driver = Path(__file__).with_name("harness_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(place)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(driver.parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.fixture(scope="module")
def own(folder: Path) -> Subject:
    return read_subject(folder / "model")


@pytest.mark.parametrize("name", NAMES)
def test_every_suite_asks_and_scores_as_the_harness_does(
    folder: Path, own: Subject, name: str, tmp_path: Path
) -> None:
    agree(own, folder, "own", name, tmp_path)


@pytest.mark.parametrize("name", ["arc_easy", "gsm8k", "lambada_openai", "wikitext"])
def test_the_harness_can_drive_conjure(folder: Path, own: Subject, name: str, tmp_path: Path) -> None:
    agree(own, folder, "adapter", name, tmp_path)


def test_answers_are_taken_out_of_what_was_written_as_the_harness_does(
    folder: Path, own: Subject, tmp_path: Path
) -> None:
    figures = agree(scripted(own), folder, "scripted", "gsm8k", tmp_path)
    assert {round(figure.value, 1) for figure in figures.values()} - {0.0, 1.0}, "nothing was right, or all"


def agree(own: Subject, folder: Path, whose: str, name: str, tmp_path: Path) -> dict[str, Figure]:
    """Asserts that prompts, log-likelihoods, written texts, scores and errors are those of the harness's run."""
    theirs = json.loads((folder / f"{whose}.json").read_text())
    suite = dataclasses.replace(SUITES[name], tokens=TOKENS)
    shots = 0 if suite.shots_fixed else SHOTS
    ready = prepared(suite, shots, given=folder / "items")
    record = Record(tmp_path / "record.jsonl", {})
    figures = measured(own, suite, ready, record, resamples=RESAMPLES)

    assert theirs["shots"][name] == shots
    samples = theirs["samples"][name]
    assert {sample["doc_id"] for sample in samples} == set(range(len(ready)))
    for sample in samples:
        item = ready[sample["doc_id"]]
        answers = record.answers[asked(item)]
        for request, answer, arguments, said in zip(
            item.requests, answers, sample["arguments"], sample["resps"], strict=True
        ):
            same(suite.kind, request, answer, arguments, said)
    found = theirs["results"][name]
    for metric, figure in figures.items():
        key, _, chosen = metric.partition(",")
        chosen = chosen or "none"
        assert figure.value == pytest.approx(found[f"{key},{chosen}"], rel=1e-4), metric
        error = found[f"{key}_stderr,{chosen}"]
        assert figure.stderr == (None if error == "N/A" else pytest.approx(error, rel=1e-3, abs=1e-9)), metric
    return figures


def same(kind: str, request: tuple[str, str], answer: Any, arguments: list[Any], said: list[Any]) -> None:
    if kind == "generation":
        assert (arguments[0], said[0]) == (request[0], answer)
    elif kind == "rolling":
        assert arguments[0] == request[1]
        assert answer == pytest.approx(float(said[0]), rel=1e-6, abs=1e-4)
    else:
        assert tuple(arguments) == request
        logprob, greedy = said[0]
        assert answer.logprob == pytest.approx(float(logprob), rel=1e-6, abs=1e-4)
        assert str(answer.greedy) == str(greedy)
