"""Filling gaps, from a recipe's values to a saved model and its figures, on files made here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from conjure.codecs.code_tokenizer import MIDDLE, PREFIX, SUFFIX
from conjure.core.errors import ConjureError
from conjure.core.events import Result
from conjure.core.seeds import rng
from conjure.media.text import Text
from conjure.models.transformer import TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks.code_to_code import CodeData, CodeToCode, CodeToCodeOptions, cut
from conjure.tasks.gap_evaluation import gap_figures, gaps

MODEL = TransformerConfig(vocab=300, dim=16, layers=1, heads=2, rope=Rope(dim=8))
DATA = CodeData(sets=("scripts",), length=64)
NAMES = "first second third value count item".split()


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "scripts"
    folder.mkdir(parents=True)
    for i in range(40):
        draw = rng(i)
        functions = [
            f"def {draw.choice(NAMES)}({draw.choice(NAMES)}):\n    return {draw.choice(NAMES)} + 1\n\n\n"
            for _ in range(int(draw.integers(1, 6)))
        ]
        (folder / f"script{i}.py").write_text("".join(functions))
    return tmp_path


@pytest.fixture
def task(places: Path) -> CodeToCode:
    return CodeToCode.create(MODEL, DATA, seed=1)


def learnt(task: CodeToCode, steps: int) -> CodeToCode:
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=1e-2)
    for step in range(steps):
        total, count = task.loss(task.batch(range(8 * step, 8 * step + 8)))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return task


def test_batches_hold_gaps_and_depend_on_their_index(task: CodeToCode) -> None:
    batch = task.batch(range(12))
    assert batch["ids"].shape == (12, 64)
    assert (batch["ids"] == task.marks.middle).any()
    again = CodeToCode.create(MODEL, DATA, seed=1)
    assert torch.equal(again.batch([7])["ids"][0], batch["ids"][7])
    assert MIDDLE in task.describe(batch) and PREFIX in task.describe(batch)


def test_learnt_saved_loaded_and_measured(task: CodeToCode, tmp_path: Path) -> None:
    before = task.evaluate()
    learnt(task, 60)
    after = task.evaluate(8)
    assert list(after) == ["bits_per_byte", "loss"] and after["bits_per_byte"] < before["bits_per_byte"] / 2
    task.save(tmp_path / "model")
    loaded = CodeToCode.load(tmp_path / "model")
    figures = loaded.evaluate_published()
    for name in ("line_exact_match", "half_line_exact_match", "line_edit_similarity", "half_line_edit_similarity"):
        assert 0 <= figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"] <= 1
        assert figures[name]["n"] >= 4
    assert figures["bits_per_byte"]["value"] == pytest.approx(task.evaluate()["bits_per_byte"], rel=0.2)
    assert loaded.preview(0)["filled"].text.startswith("def read(path)")


def test_what_stands_around_the_gap_stays(task: CodeToCode) -> None:
    code = "def first(value):\n    return value + 1\n\n\nprint(1)"
    options = CodeToCodeOptions(at="2:11-2:16", tokens=4)
    *_, result = task.generate([Text(code)], options, [0, 1])
    assert isinstance(result, Result) and len(result.media) == 2
    for medium, piece in zip(result.media, result.facts["filled"], strict=True):
        assert medium.text == f"def first(value):\n    return {piece} + 1\n\n\nprint(1)\n"
    first = list(task.generate([Text(code)], options, [0]))[-1].media[0].text
    assert first == result.media[0].text


def test_the_prompt_has_room_for_the_answer_and_the_nearest_of_both_sides(task: CodeToCode) -> None:
    before, after = "a = 1\n" * 300 + "near", "close\n" + "b = 2\n" * 300
    prompt = task._prompt(before, after)
    assert len(prompt) <= 64 - 16 and prompt[0] == task.marks.prefix and prompt[-1] == task.marks.middle
    middle = prompt.index(task.marks.suffix)
    assert task.tokenizer.decode(prompt[1:middle]).endswith("near")
    assert task.tokenizer.decode(prompt[middle + 1 : -1]).startswith("close")
    assert task.tokenizer.token(prompt[middle]) == SUFFIX


@pytest.mark.parametrize(
    ("at", "before", "after"),
    [("", "ab\ncd", ""), ("1:0", "", "ab\ncd"), ("2:1", "ab\nc", "d"), ("1:1-2:1", "a", "d"), ("2:2", "ab\ncd", "")],
)
def test_where_the_gap_is(at: str, before: str, after: str) -> None:
    assert cut("ab\ncd", at) == (before, after)


@pytest.mark.parametrize("at", ["x", "1", "1:0-2", "3:0", "0:0", "1:3", "2:0-1:0", "-1:0"])
def test_no_such_place(at: str) -> None:
    with pytest.raises(ConjureError, match="--at"):
        cut("ab\ncd", at)


def test_one_file_at_a_time_and_a_model_with_marks(task: CodeToCode) -> None:
    with pytest.raises(ConjureError, match="expected one file"):
        list(task.generate([Text("a"), Text("b")], CodeToCodeOptions(), [0]))


def test_gap_figures_count_what_is_equal() -> None:
    from conjure.data.books import Document

    texts = [Document("a", "".join(f"value_{i} = {i} + {i}\n" for i in range(50)))]
    cases = {(before, after): gap for kind in ("line", "half_line") for before, gap, after in gaps(texts, kind, 20)}
    assert all(before + gap + after == texts[0].text and gap.strip() for (before, after), gap in cases.items())

    def right(places: list[tuple[str, str]]) -> list[str]:
        return [f" {cases[place]} " for place in places]

    def half(places: list[tuple[str, str]]) -> list[str]:
        return [cases[place] if i % 2 else "" for i, place in enumerate(places)]

    best = gap_figures(right, texts, count=20)  # type: ignore[arg-type]
    assert best["line_exact_match"]["value"] == best["half_line_edit_similarity"]["value"] == 1
    some = gap_figures(half, texts, count=20)  # type: ignore[arg-type]
    assert some["line_exact_match"]["value"] == some["line_edit_similarity"]["value"] == 0.5
    assert math.isclose(some["half_line_exact_match"]["value"], 0.5) and some["line_exact_match"]["n"] == 20
