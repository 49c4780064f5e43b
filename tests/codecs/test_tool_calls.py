from __future__ import annotations

import json

import pytest

from conjure.codecs.tool_calls import Listener, ToolCall, parsed, schema

ADD, SUN = ToolCall("add", '{"a": 1, "b": 2}'), ToolCall("weather", '{"city": "São Paulo"}')
PLAIN = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
OTHER = '{"name": "weather", "parameters": {"city": "S\\u00e3o Paulo"}}'


@pytest.mark.parametrize(
    ("text", "rest", "calls"),
    [
        (PLAIN, "", [ADD]),
        (f" {OTHER}\n", "", [SUN]),
        (f"[{PLAIN}, {OTHER}]", "", [ADD, SUN]),
        (f"[TOOL_CALLS] [{PLAIN}]", "", [ADD]),
        (f"<|python_tag|>{PLAIN}; {OTHER}", "", [ADD, SUN]),
        (f"Look.\n<tool_call>\n{PLAIN}\n</tool_call>\n<tool_call>{OTHER}</tool_call>", "Look.", [ADD, SUN]),
        (f"<tool_call>\n{PLAIN}", "", [ADD]),
        ('{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}', "", [ADD]),
        ('{"name": "add"}', "", [ToolCall("add", "{}")]),
        ("The answer is 3.", "The answer is 3.", []),
        ('{"name": "remove", "arguments": {}}', '{"name": "remove", "arguments": {}}', []),
        (f"{PLAIN} and so on", f"{PLAIN} and so on", []),
        ('{"name": "add", "arguments": [1]}', '{"name": "add", "arguments": [1]}', []),
        ("[1, 2]", "[1, 2]", []),
        ('{"name": "add", "arg', '{"name": "add", "arg', []),
        ("<tool_call>nothing</tool_call>", "<tool_call>nothing</tool_call>", []),
        ("", "", []),
        (f"[\n  {PLAIN}\n]", "", [ADD]),
        (f"<tool_call>{PLAIN}</tool_call>\n\nThat is all. ", "That is all.", [ADD]),
        (f"So: <tool_call>{PLAIN}</tool_call> <tool_call>no</tool_call>", "So: <tool_call>no</tool_call>", [ADD]),
        (f"<tool_call>{PLAIN}; {OTHER}</tool_call><tool_call>{OTHER}", "", [ADD, SUN, SUN]),
        ("a < b <tool_ <tool_calls> x \n", "a < b <tool_ <tool_calls> x \n", []),
        (" \n", " \n", []),
    ],
)
def test_calls_in_the_forms_of_public_models(text: str, rest: str, calls: list[ToolCall]) -> None:
    assert parsed(text, {"add", "weather"}) == (rest, calls)


ANSWERS = (
    f" Look.\n<tool_call>\n{PLAIN}\n</tool_call>\n<tool_call>{OTHER}</tool_call> Done. ",
    f"São <tool_<tool_call>{PLAIN}</tool_call", f"[TOOL_CALLS] [{PLAIN}]", f"<|python_tag|>{PLAIN}; {OTHER}",
    f"[ \n{PLAIN},{OTHER}]\n", "[1] <tool_call>\n<b>no</b> </tool_call> \n x", '{"a": 1} <tool_call>', "<|python",
)  # fmt: skip


def heard(pieces: list[str], names: set[str]) -> tuple[list[str], list[ToolCall]]:
    listener = Listener(names)
    told = [*map(listener.hear, pieces), listener.end()]
    return [said for said, _ in told], [call for _, calls in told for call in calls]


@pytest.mark.parametrize("answer", ANSWERS)
def test_where_an_answer_is_cut_makes_no_difference(answer: str) -> None:
    names = {"add", "weather"}
    whole = parsed(answer, names)
    cuts = [[answer[:at], answer[at:]] for at in range(len(answer) + 1)]
    cuts += [[answer[:a], answer[a:b], answer[b:]] for a in range(0, len(answer), 3) for b in range(a, len(answer), 5)]
    cuts += [[answer[at : at + size] for at in range(0, len(answer), size)] for size in (1, 2, 3, 7)]
    for pieces in cuts:
        said, calls = heard(pieces, names)
        assert ("".join(said), calls) == whole, pieces


def test_no_more_is_held_back_than_must_be() -> None:
    def waits(text: str) -> str:
        return text.removeprefix("".join(heard(list(text), {"add"})[0][:-1]))

    for text in (" ", "{", '{"na', "[", "[ {", "<", "<|py", "[TOOL", "<tool_call>\n{", f"<tool_call>{PLAIN}</tool_cal"):
        assert waits(text) == text
    for text, held in (
        ("The", ""), ("The ", " "), ("<b>", ""), ("[1", ""), ("a {", ""), ("a \n<too", " \n<too"), ("a <tooth", ""),
        ("a <tool_call>no</tool_call>", ""), ("a <<", "<"), ("a <tool_call>{", " <tool_call>{"),
    ):  # fmt: skip
        assert waits(text) == held, text
    assert heard(["{", "<tool_call>"], set()) == (["{", "<tool_call>", ""], [])


def test_the_schema_of_a_call() -> None:
    add = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    tools = [add, {"name": "now"}]
    both = schema(tools)
    assert [each["properties"]["name"]["const"] for each in both["anyOf"]] == ["add", "now"]
    assert schema(tools, "now")["properties"]["arguments"]["type"] == "object"
    closed = {**add["parameters"], "additionalProperties": False}
    assert json.loads(json.dumps(schema(tools, "add")))["properties"]["arguments"] == closed
    opened = {"name": "any", "parameters": {"type": "object", "additionalProperties": True}}
    assert schema([opened])["properties"]["arguments"] == opened["parameters"]
