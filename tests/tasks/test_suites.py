from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Warn
from conjure.core.paths import cache_dir
from conjure.data.suites import GROUPS, SUITES
from conjure.metrics.harness import Scored, Subject
from conjure.tasks import suites
from conjure.tasks.suite_record import Record, asked, identity
from conjure.tasks.suites import examine, prepared

CONTEXT = 64


class Reader:
    """Letters as tokens; logits depend on the last letter alone. Counts the rows that it reads."""

    def __init__(self) -> None:
        self.rows = 0
        self.table_VV = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))

    def logits(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        self.rows += len(ids_BT)
        return self.table_VV[ids_BT]

    def write(self, prompts: Sequence[Sequence[int]], tokens: int, stop: Sequence[str]) -> list[list[int]]:
        self.rows += len(prompts)
        return [list(b"so The answer is 4") for _ in prompts]

    def subject(self) -> Subject:
        return Subject(
            logits=self.logits, encode=lambda text, special: list(text.encode()),
            decode=lambda ids: bytes(ids).decode(), write=self.write, vocabulary=128, prefix=0, context=CONTEXT,
        )  # fmt: skip


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """The model "m", a folder, answers as this."""
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"a": 1}')
    made = Reader()
    monkeypatch.setattr(suites, "subject", lambda model: made.subject())
    monkeypatch.setattr(suites.shelf, "find", lambda model: tmp_path / "m")
    write(tmp_path, "llm_eval_small/copa", [
        {"query": f"The cat number {k} ", "choices": ["sat.", "ran off.", "ate"], "gold": k % 3} for k in range(150)
    ])  # fmt: skip
    return made


def write(tmp_path: Path, name: str, lines: list[dict[str, Any]]) -> Path:
    path = tmp_path / "sets" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_scores_have_errors_and_counts(reader: Reader) -> None:
    found = examine("m", ["small_copa"])
    facts = found["suites"]["small_copa"]
    assert (facts["n"], facts["shots"], set(facts["scores"])) == (150, 0, {"acc", "acc_norm", "acc_tokens"})
    acc = facts["scores"]["acc"]
    assert 0 < acc["value"] < 1 and acc["n"] == 150
    assert acc["stderr"] == pytest.approx((acc["value"] * (1 - acc["value"]) / 149) ** 0.5)
    assert json.loads(json.dumps(found)) == found
    assert not list((cache_dir() / "examinations").iterdir()), "finished answers stayed in the cache"


@pytest.mark.parametrize("kept", [True, False])
def test_a_killed_run_goes_on_where_it_stopped(reader: Reader, tmp_path: Path, kept: bool) -> None:
    whole = examine("m", ["small_copa"], shots=2)["suites"]
    rows, reader.rows = reader.rows, 0
    folder = tmp_path / "out" if kept else None
    events: list[Event] = []

    def kill(event: Event) -> None:
        if isinstance(event, Progress) and event.step > 3 * suites.BLOCK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine("m", ["small_copa"], shots=2, folder=folder, on_event=kill)
    before, reader.rows = reader.rows, 0
    assert before < rows
    file = next((folder or cache_dir() / "examinations").rglob("small_copa.jsonl"))
    file.write_text(file.read_text() + '{"item": 3, "asked": "ab')  # as a kill in the middle of a line leaves it
    assert examine("m", ["small_copa"], shots=2, folder=folder, on_event=events.append)["suites"] == whole
    assert reader.rows < rows - 2 * suites.BLOCK
    assert any(isinstance(event, Warn) and "answered before" in event.text for event in events)
    if folder:
        reader.rows = 0
        assert examine("m", ["small_copa"], shots=2, folder=folder)["suites"] == whole and reader.rows == 0
        assert json.loads((folder / "results.json").read_text())["suites"] == whole
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert lines[0]["suite"] == "small_copa" and sorted(line["item"] for line in lines[1:]) == list(range(150))
        assert all(len(line["answers"]) == 3 and set(line["scores"]) >= {"acc"} for line in lines[1:])


def test_answers_of_another_examination_are_refused(reader: Reader, tmp_path: Path) -> None:
    examine("m", ["small_copa"], limit=5, folder=tmp_path / "out")
    reader.rows = 0
    examine("m", ["small_copa"], limit=9, folder=tmp_path / "out")
    assert 0 < reader.rows <= 4 * 3, "a higher limit asks the rest alone"
    with pytest.raises(ConjureError, match="another examination"):
        examine("m", ["small_copa"], shots=1, folder=tmp_path / "out")
    (tmp_path / "m" / "config.json").write_text('{"a": 2}')
    with pytest.raises(ConjureError, match="another examination") as caught:
        examine("m", ["small_copa"], folder=tmp_path / "out")
    assert "another folder" in caught.value.hint


def test_other_words_are_asked_anew(reader: Reader, tmp_path: Path) -> None:
    examine("m", ["small_copa"], limit=2, folder=tmp_path / "out")
    reader.rows = 0
    file = write(tmp_path, "other", [{"query": "The cat number 0", "choices": ["sat.", "sat up.", "ate"], "gold": 0}])
    examine("m", ["small_copa"], given=file, folder=tmp_path / "out")
    assert reader.rows == 3


def test_every_kind_of_suite(reader: Reader, tmp_path: Path) -> None:
    write(tmp_path, "llm_eval_small/svamp", [
        {"context": f"What is 2 + {k}?", "chain_of_thought": f"( 2 + {k} )", "answer": str(2 + k)} for k in range(4)
    ])  # fmt: skip
    sums = [{"context": f"op {k} =", "continuation": "4"} for k in range(4)]
    write(tmp_path, "llm_eval_small/bigbench_operators", sums)
    write(tmp_path, "llm_eval_small/winograd_wsc", [
        {"context_options": [f"{k} he", f"{k} she"], "continuation": "ran.", "gold": k % 2} for k in range(4)
    ])  # fmt: skip
    write(tmp_path, "wikitext/test", [{"page": f" = {k} = \n one two  three , four"} for k in range(3)])
    write(tmp_path, "lambada_openai/test", [{"text": f"one {k} two three"} for k in range(4)])
    names = ["small_svamp", "small_bigbench_operators", "small_winograd_wsc", "wikitext", "lambada_openai"]
    found = examine("m", names, shots=1)["suites"]
    assert found["small_svamp"]["scores"]["exact_match,stated"]["value"] == 0.25
    assert found["small_svamp"]["scores"]["exact_match,last-number"]["value"] == 0.25
    assert set(found["small_bigbench_operators"]["scores"]) == {"acc"}
    assert found["lambada_openai"]["scores"]["perplexity"]["stderr"] > 0
    assert found["small_winograd_wsc"]["scores"]["acc"]["n"] == 4
    units = found["wikitext"]["scores"]
    assert units["word_perplexity"]["value"] > units["byte_perplexity"]["value"] > 1


def test_groups_are_pooled_once_they_are_whole(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "GROUPS", {**GROUPS, "mmlu_stem": ("mmlu_anatomy", "mmlu_virology")})
    for subject, count in (("anatomy", 4), ("virology", 8)):
        rows = [{"question": f"q{k}", "choices": ["a", "b", "c", "d"], "answer": k % 4} for k in range(count)]
        write(tmp_path, f"mmlu/{subject}/test", rows)
    found = {
        each: examine("m", [each])["suites"][each]["scores"]["acc"] for each in ("mmlu_anatomy", "mmlu_virology")
    }
    done = {name: {"scores": {"acc": acc}} for name, acc in found.items()}
    pooled = suites._groups(["mmlu_stem"], done)["mmlu_stem"]["scores"]["acc"]
    assert pooled["n"] == 12
    right = 4 * found["mmlu_anatomy"]["value"] + 8 * found["mmlu_virology"]["value"]
    assert pooled["value"] == pytest.approx(right / 12)
    assert suites._groups(["mmlu"], done) == {"mmlu_stem": {"n": 12, "scores": {"acc": pooled}}}


def test_examples_come_from_the_file_where_there_is_no_other(reader: Reader, tmp_path: Path) -> None:
    choices = {"text": ["a", "b"], "label": ["A", "B"]}
    rows = [{"question": f"q{k}", "choices": choices, "answerKey": "A"} for k in range(3)]
    file = write(tmp_path, "own", rows)
    for item in prepared(SUITES["arc_easy"], 2, given=file):
        assert item.requests[0][0].count(f"q{item.index}") == 1
    with pytest.raises(ConjureError, match="no split 'train'"):
        prepared(SUITES["arc_easy"], 2, given=write(tmp_path, "only/test", rows).parent)


def test_numbers_out_of_range(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="shots"):
        examine("m", ["small_copa"], shots=-1)
    with pytest.raises(ConjureError, match="limit"):
        examine("m", ["small_copa"], limit=0)
    with pytest.raises(ConjureError, match="no item"):
        examine("m", ["small_copa"], given=write(tmp_path, "empty", []))


def test_records_give_back_what_they_were_told(tmp_path: Path) -> None:
    (item, *_) = prepared(
        SUITES["small_copa"], 0, given=write(tmp_path, "one", [{"query": "é", "choices": ["a", "b"], "gold": 0}])
    )
    answers = [Scored(-1 / 3, True, 2), Scored(-2.5, False, 1)]
    Record(tmp_path / "r.jsonl", {"a": 1}).add([(item, answers, {"acc": 1.0})])
    assert Record(tmp_path / "r.jsonl", {"a": 1}).answers == {asked(item): answers}
    assert asked(dataclasses.replace(item, gold=1)) == asked(item)
    assert asked(dataclasses.replace(item, requests=item.requests[::-1])) != asked(item)
    one = identity(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert identity(tmp_path) != one != identity(tmp_path / "model.safetensors")
