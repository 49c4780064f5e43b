"""Answers told apart into what is said and what is called, however they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from conjure.codecs.tool_calls import ToolCall, parsed
from conjure.decoding.rows import Generation
from conjure.serve.errors import ApiError
from conjure.serve.texts import Began, Ended, Piece
from conjure.serve.turns import Called, Over, Said, turns, wish_of

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ADD = ToolCall("add", '{"a": 1}')
TOOLS = frozenset({"add"})


def ended(index: int, text: str, tokens: int, how: str = "end") -> Ended:
    return Ended(index, Generation(list(range(tokens)), text, [], how, 0.0))  # type: ignore[arg-type]


async def came(events: Sequence[Any]) -> AsyncGenerator[Any, None]:
    for event in events:
        yield event


def told(events: Sequence[Any], tools: frozenset[str] = TOOLS, **more: Any) -> list[Any]:
    async def all_of() -> list[Any]:
        return [each async for each in turns(came(events), tools, **more)]

    return asyncio.run(all_of())


def of(answer: str, size: int, index: int = 0) -> list[Any]:
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    return [*(Piece(index, 5, piece) for piece in pieces), ended(index, answer, len(pieces))]


@pytest.mark.parametrize("answer", [f" Wait.\n{CALL}\n{CALL} Done.", f" {CALL}", " a <tool b", ' {"name": "add"}', " "])
def test_pieces_of_any_size_say_and_call_the_same(answer: str) -> None:
    text, calls = parsed(answer.lstrip(" "), TOOLS)
    for size in range(1, len(answer) + 1):
        events = told(of(answer, size))
        assert "".join(each.text for each in events if isinstance(each, Said)) == text
        made = [each for each in events if isinstance(each, Called)]
        assert [each.call for each in made] == calls and [each.place for each in made] == list(range(len(calls)))
        assert len({each.id for each in made}) == len(calls)
        assert events[-1] == Over(0, "tool_calls" if calls else "stop", -(-len(answer) // size))


def test_no_tag_is_ever_said_and_a_call_is_told_when_it_is_whole() -> None:
    events = told([Began(3), None, *of(f"Wait. {CALL} And", 4)])
    kinds = [type(each) for each in events]
    assert events[:2] == [Began(3), None] and "".join(e.text for e in events if isinstance(e, Said)) == "Wait. And"
    assert kinds.index(Called) < len(kinds) - 2 and kinds[-1] is Over


def test_answers_do_not_mix() -> None:
    ways = [of(f"So: {CALL}", 3, 0), of("Nothing <b>here</b>", 2, 1)]
    mixed = [event for pair in zip(*ways, strict=False) for event in pair]
    shorter = min(map(len, ways))
    events = told([*mixed, *ways[0][shorter:], *ways[1][shorter:]])
    said = ["".join(e.text for e in events if isinstance(e, Said) and e.index == index) for index in (0, 1)]
    assert said == ["So:", "Nothing <b>here</b>"]
    assert [(each.index, each.call) for each in events if isinstance(each, Called)] == [(0, ADD)]
    assert [each.reason for each in sorted((e for e in events if isinstance(e, Over)), key=lambda e: e.index)] == [
        "tool_calls", "stop"]  # fmt: skip


def test_one_call_alone_where_only_one_is_wanted() -> None:
    events = told(of(f"{CALL}\n{CALL}", 5), single=True)
    assert [each.place for each in events if isinstance(each, Called)] == [0]
    assert isinstance(events[-1], Over) and events[-1].reason == "tool_calls"


def test_without_tools_nothing_is_held_back_and_scores_stay_with_their_pieces() -> None:
    events = told([Piece(0, 1, " "), Piece(0, 2, "<tool_call>"), ended(0, " <tool_call>", 2, "length")], frozenset())
    assert events == [Said(0, "<tool_call>", Piece(0, 2, "<tool_call>")), Over(0, "length", 2)]
    scored = [Piece(0, 1, "{", -0.5), Piece(0, 2, "}", -0.1)]
    events = told([*scored, ended(0, "{}", 2)])
    assert [(each.text, each.piece) for each in events[:2]] == [("", scored[0]), ("", scored[1])]
    assert events[2] == Said(0, "{}")


def test_what_is_asked_for() -> None:
    tools = [{"name": "add", "parameters": {"type": "object", "properties": {}}}, {"name": "now"}]
    say = [{"role": "user", "content": "?"}]
    wish, names = wish_of(say, tools, "auto", None, seed=4)
    assert names == {"add", "now"} and len(wish.tools) == 2 and wish.schema is None and wish.seed == 4
    wish, names = wish_of(say, tools, {"name": "now"}, None)
    assert wish.schema is not None and wish.schema["properties"]["name"] == {"const": "now"}
    assert len(json.loads(json.dumps(wish_of(say, tools, "required", None)[0].schema))["anyOf"]) == 2
    assert wish_of(say, tools, "none", None) == (wish_of(say, [], "auto", None)[0], frozenset())
    for choice, given in ((("required"), []), ({"name": "gone"}, tools), ("perhaps", tools)):
        with pytest.raises(ApiError, match="tool_choice"):
            wish_of(say, given, choice, None)
