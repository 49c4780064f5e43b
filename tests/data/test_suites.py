from __future__ import annotations

import random

import pytest

from conjure.core.errors import ConjureError
from conjure.data.few_shot import SEED, items
from conjure.data.suites import GROUPS, POOLED, SUITES, named

ARC = {"question": "Why?", "choices": {"text": ["so", "no"], "label": ["1", "2"]}, "answerKey": "2"}


def arc(text: str) -> dict[str, object]:
    return {**ARC, "question": text}


def test_names() -> None:
    assert len(GROUPS["mmlu"]) == 57 == sum(len(GROUPS[group]) for group in POOLED[1:])
    assert len(GROUPS["llm_eval_small"]) == 10
    assert [suite.name for suite in named("arc")] == ["arc_easy", "arc_challenge"]
    for meant in ("hellaswag", "mmlu_anatomy", "llm_eval_small"):
        wrong = meant[:-2] + meant[-1]
        with pytest.raises(ConjureError) as caught:
            named(wrong)
        assert f"did you mean '{meant}'?" in caught.value.hint
    with pytest.raises(ConjureError) as caught:
        named("zzzz")
    assert "hellaswag" in caught.value.hint and "mmlu" in caught.value.hint
    for suite in SUITES.values():
        assert suite.metrics and (suite.hub or suite.local) and (suite.kind != "generation" or suite.filters)


def test_a_prompt_word_for_word() -> None:
    (item,) = items(SUITES["arc_easy"], [ARC], [arc("How?")], 1)
    before = "Question: How?\nAnswer: no\n\nQuestion: Why?\nAnswer:"
    assert item.requests == ((before, " so"), (before, " no"))
    assert (item.choices, item.gold) == (("so", "no"), 1)
    rows = [{"context_options": ["A he", "B he"], "continuation": "ran.", "gold": k} for k in (1, 0)]
    (item,) = items(SUITES["small_winograd_wsc"], rows[:1], rows, 1)
    assert item.requests == (("A he ran.\nA he", " ran."), ("A he ran.\nB he", " ran.")) and item.gold == 1
    sums = [{"context": f"{k}+1=", "continuation": f"{k + 1}"} for k in range(3)]
    (item,) = items(SUITES["small_simple_arithmetic_nospaces"], sums[:1], sums[:2], 1)
    assert item.requests == (("1+1= 2\n0+1=", " 1"),)
    problem = {"context": "How many?", "chain_of_thought": "( 1 + 1 )", "answer": "2"}
    (item,) = items(SUITES["small_svamp"], [problem], [problem, {**problem, "context": "And?"}], 1)
    assert item.requests[0][0] == "Question: And?\nA: ( 1 + 1 ) The answer is 2\nQuestion: How many?\nA:"


def test_examples_are_one_stream_of_draws() -> None:
    pool = [arc(f"q{k}") for k in range(9)]
    rows = [arc(f"r{k}") for k in range(4)]
    draw = random.Random(SEED)
    expected = ["".join(f"Question: {each['question']}\nAnswer: no\n\n" for each in draw.sample(pool, 3)) for _ in rows]
    found = list(items(SUITES["arc_easy"], rows, pool, 3))
    assert [item.requests[0][0].split("Question: r")[0] for item in found] == expected
    assert list(items(SUITES["arc_easy"], rows[:2], pool, 3)) == found[:2], "a limit changes no prompt"
    assert list(items(SUITES["arc_easy"], rows, pool, 3, seed=1)) != found


def test_a_question_is_no_example_of_itself() -> None:
    rows = [{"query": f"q{k}", "choices": ["a", "b"], "gold": 0} for k in range(4)]
    for item in items(SUITES["small_copa"], rows, rows, 3):
        assert item.requests[0][0].count(f"q{item.index}") == 1 and item.requests[0][0].count("q") == 4
    doubled = [rows[0], rows[0], rows[1], rows[2]]
    for item in items(SUITES["small_copa"], rows[:1], doubled, 2):
        assert item.requests[0][0].count("q0") == 1


def test_the_first_of_a_split_where_the_suite_says_so() -> None:
    rows = [{"question": f" q{k} ", "choices": ["w", "x", "y", "z"], "answer": 3} for k in range(4)]
    (item,) = items(SUITES["mmlu_high_school_us_history"], rows[3:], rows[:3], 1)
    head = "The following are multiple choice questions (with answers) about high school us history.\n\n"
    lines = "\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert item.requests[3] == (f"{head}q0{lines} D\n\nq3{lines}", " D")


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(ConjureError, match="arc_easy: row 1 does not fit: it has no field 'question'"):
        list(items(SUITES["arc_easy"], [ARC, {"choices": {}}], [], 0))
    with pytest.raises(ConjureError, match="row 0 does not fit"):
        list(items(SUITES["arc_easy"], [{**ARC, "answerKey": "7"}], [], 0))
    with pytest.raises(ConjureError, match="row 0 does not fit"):
        list(items(SUITES["hellaswag"], [{"ctx_a": None}], [], 0))
    with pytest.raises(ConjureError, match="5 examples are asked for, there are 1"):
        list(items(SUITES["arc_easy"], [ARC], [ARC], 5))
