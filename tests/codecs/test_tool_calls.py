from __future__ import annotations

import json

import pytest

from conjure.codecs.tool_calls import ToolCall, may_begin, parsed, schema

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
    ],
)
def test_calls_in_the_forms_of_public_models(text: str, rest: str, calls: list[ToolCall]) -> None:
    assert parsed(text, {"add", "weather"}) == (rest, calls)


def test_the_beginning_of_a_call_is_held_back() -> None:
    for text in ("", " ", "{", '{"na', "[", "[{", "<", "<tool", "<tool_call>\n{", "[TOOL", "<|python_tag|>"):
        assert may_begin(text), text
    for text in ("The", "<b>", "[1", "a {"):
        assert not may_begin(text), text


def test_the_schema_of_a_call() -> None:
    add = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    tools = [add, {"name": "now"}]
    both = schema(tools)
    assert [each["properties"]["name"]["const"] for each in both["anyOf"]] == ["add", "now"]
    assert schema(tools, "now")["properties"]["arguments"]["type"] == "object"
    assert json.loads(json.dumps(schema(tools, "add")))["properties"]["arguments"] == add["parameters"]
