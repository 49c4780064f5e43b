"""Exercises are right, held-out ones are never trained on, and only answers are learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.data.books import Document
from conjure.data.exercises import CAPITALS, KINDS_OF_EXERCISE, OPPOSITES, Exercise, exercise
from conjure.data.instructions import (
    Lessons,
    Shares,
    Turns,
    examination,
    filled,
    held_out,
    instructions,
    story,
    tokens,
)
from conjure.data.packing import IGNORED

BOOK = Document("book", " ".join(f"Sentence {i} of the book is here." for i in range(200)))


def made(kind: str) -> list[Exercise]:
    return [exercise(kind, rng(i)) for i in range(60)]


@pytest.mark.parametrize("kind", KINDS_OF_EXERCISE)
def test_every_kind_gives_different_questions_with_an_answer(kind: str) -> None:
    found = made(kind)
    assert all(each.prompt and each.answer and each.key and each.kind == kind for each in found)
    assert len({each.prompt for each in found}) > 10
    assert found == made(kind)
    answers: dict[str, str] = {}
    for each in found:
        assert answers.setdefault(each.system + each.prompt, each.answer) == each.answer


def test_answers_are_right() -> None:
    for each in made("addition"):
        a, b = map(int, each.key.split("+"))
        assert int(each.answer) == a + b
    for each in made("sorting"):
        assert each.answer.split(", ") == sorted(each.key.split(", "))
    for each in made("number sorting"):
        assert list(map(int, each.answer.split(", "))) == sorted(map(int, each.key.split(", ")))
    for each in made("where is"):
        name = each.answer if "Who" in each.prompt else each.prompt.split()[-1].strip("?")
        place = each.prompt.split()[-1].strip("?") if "Who" in each.prompt else each.answer.split()[-1]
        assert f"{name} went to the {place}." in each.prompt
    for each in made("capitals"):
        assert any(country in each.prompt and each.answer == city for country, city in CAPITALS.items())
    for each in made("opposites"):
        assert each.answer in OPPOSITES.values()
    for each in made("tool call"):
        call = json.loads(each.answer)
        assert call["name"] in each.system and str(next(iter(call["arguments"].values()))) in each.prompt
    for each in made("text to data"):
        assert json.loads(each.answer)["name"] in each.prompt


def test_held_out_problems_are_never_in_a_conversation() -> None:
    lessons = Lessons([], [], Shares(), seed=0)
    seen = {each.kind: 0 for each in lessons.conversation(0)}
    for index in range(400):
        for each in lessons.conversation(index):
            assert not held_out(each.kind, each.key)
            seen[each.kind] = seen.get(each.kind, 0) + 1
    assert len(seen) > 25
    for kind in ("addition", "sorting", "capitals", "tool call"):
        exam = examination(kind, 10)
        assert exam and all(held_out(each.kind, each.key) for each in exam) and exam == examination(kind, 10)
    keys = [each.key for kind in KINDS_OF_EXERCISE for each in made(kind)]
    assert 0.05 < sum(held_out("sorting", key) for key in keys) / len(keys) < 0.15


def test_a_conversation_depends_on_index_and_seed_alone() -> None:
    one, two = (Lessons([], [BOOK], Shares(stories=0.5), seed=0) for _ in range(2))
    assert [one.conversation(3, i) for i in range(9)] == [two.conversation(3, i) for i in range(9)]
    other = Lessons([], [BOOK], Shares(stories=0.5), seed=1)
    assert [one.conversation(3, i) for i in range(9)] != [other.conversation(3, i) for i in range(9)]
    kinds = {each.kind for i in range(50) for each in one.conversation(i)}
    assert "story" in kinds
    assert {len(one.conversation(i)) for i in range(50)} == {1, 2}


def test_a_story_goes_on_where_it_was_cut() -> None:
    for i in range(20):
        found = story(BOOK, rng(i))
        begun = found.prompt.split(": ", 1)[1]
        assert f"{begun} {found.answer}" in BOOK.text and 0 < len(found.answer) <= 400


def test_instruction_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [("Say it.", "x", " y "), ("Go.", "", "z")]
    rows = [dict(zip(("instruction", "input", "output"), row, strict=True)) for row in rows]
    (folder / "instruction-data.json").write_text(json.dumps(rows))
    (folder / "instruction-data-with-preference.json").write_text("[]")
    line = {"instruction": "Sum.", "instances": [{"input": "1 1", "output": "2"}]}
    (folder / "seed_tasks.jsonl").write_text(json.dumps(line) + "\n")
    found = {each.prompt: each.answer for each in instructions(["tasks"])}
    assert found == {"Say it.\nx": "y", "Go.": "z", "Sum.\n1 1": "2"}
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConjureError, match="hold no instructions"):
        instructions(["bare"])


def test_only_answers_and_their_ends_are_learnt() -> None:
    lessons = [Exercise("a", "p", "q", "k", system="s"), Exercise("a", "r", "t", "k")]
    ids, targets = tokens(lessons, [[50], [51, 52], [53], [], [54], [55, 56]], Turns(1, 2, 3, 0))
    assert ids.tolist() == [1, 50, 0, 2, 51, 52, 0, 3, 53, 0, 2, 54, 0, 3, 55, 56]
    assert targets.tolist() == [*[IGNORED] * 7, 53, 0, *[IGNORED] * 4, 55, 56, 0]


def test_rows_are_filled_in_order() -> None:
    pieces = [tokens([Exercise("a", "", "", "")], [[], [9] * n, []], Turns(1, 2, 3, 0)) for n in (3, 4, 20, 1)]
    rows = filled(pieces, 16)
    assert [[len(ids) for ids, _ in row] for row in rows] == [[6, 7], [4]] or [len(row) for row in rows] == [2, 1]
    assert sum(len(row) for row in rows) == 3


def test_wrong_shares() -> None:
    with pytest.raises(ConjureError, match=r"data\.shares"):
        Shares(instructions=0.9, stories=0.2)
