"""Good requests with one thing in them wrong: whatever stands in its place, the server answers or refuses, and never
fails. Schemas cannot say what belongs into messages, tools and schemas of answers, so this looks there."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest

from conjure.serve.settings import Settings
from tests.serve.running import running

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "max_tokens": 1, "temperature": 0, "stop": ["x"], "logit_bias": {"5": 1},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
        "tools": [{"type": "function", "function": {"name": "get_weather", "description": "x", "parameters": CITY}}],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    },
    "/v1/chat/completions#schema": {
        "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "seed": 1, "logprobs": True, "top_logprobs": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": CITY, "strict": True}},
    },
    "/v1/responses": {
        "max_output_tokens": 1, "instructions": "Be brief.", "tool_choice": "auto",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "rain"},
        ],
        "tools": [{"type": "function", "name": "get_weather", "parameters": CITY}],
        "text": {"format": {"type": "json_schema", "name": "a", "schema": CITY}},
    },
    "/v1/messages": {
        "max_tokens": 1, "system": [{"type": "text", "text": "Be brief."}], "stop_sequences": ["x"],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "get_weather", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "rain"}]},
        ],
        "tools": [{"name": "get_weather", "input_schema": CITY}],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    },
    "/v1/completions": {"prompt": ["x"], "max_tokens": 1, "stop": "y", "logprobs": 1, "seed": 1, "top_k": 1},
    "/v1/embeddings": {"input": [[5, 6]], "dimensions": 4},
    "/v1/images/generations": {"prompt": "a red apple", "steps": 1, "size": "128x128", "output_format": "png"},
    "/v1/make": {"inputs": [{"text": "a red apple"}], "to": "image", "count": 1, "options": {"steps": 1}},
}  # fmt: skip
WRONG: tuple[Any, ...] = (None, True, -1, 2**70, 0.5, "", "x", "\ud800", [], [None], {}, {"type": "x"})
MANY = ("steps", "max_tokens", "max_output_tokens", "count", "n")
"""Where a large number is work and no mistake."""


Answer = tuple[int, Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[[str, Any], Answer]]:
    """Posts a body and gives (status, answer)."""
    with running(Settings()) as url:

        def asked(path: str, body: Any) -> Answer:
            with closing(HTTPConnection(url.removeprefix("http://"), timeout=120)) as connection:
                head = {"Content-Type": "application/json"}
                connection.request("POST", path.partition("#")[0], json.dumps(body), head)
                answer = connection.getresponse()
                return answer.status, json.load(answer)

        yield asked


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in a body, the body itself left out."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from places(each, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], other: Any) -> Any:
    made = inner = copy.deepcopy(value)
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = other
    return made


@pytest.mark.parametrize("path", GOOD)
def test_the_good_requests_are_good(ask: Callable[[str, Any], Answer], path: str) -> None:
    status, answer = ask(path, GOOD[path])
    assert status == 200, answer


@pytest.mark.parametrize("path", GOOD)
def test_one_wrong_thing_is_refused_or_passed_over(ask: Callable[[str, Any], Answer], path: str) -> None:
    failed = []
    for at in places(GOOD[path]):
        for other in WRONG:
            if at[-1] in MANY and (isinstance(other, int) or other is None):
                continue
            status, answer = ask(path, replaced(GOOD[path], at, other))
            if status >= 500 or (status >= 400) != ("message" in (answer.get("error") or {})):
                failed.append(f"{'.'.join(map(str, at))} = {other!r}: {status}")
    assert not failed, "\n".join(failed)
