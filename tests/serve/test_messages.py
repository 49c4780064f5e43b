"""Talks in the shapes of `/v1/messages` and `/v1/responses`, as their official clients hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pydantic
import pytest

QUESTION: Any = [{"role": "user", "content": "What is 3 plus 4?"}]
PARIS = "What is the weather in Paris?"
CITY: Any = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False
}  # fmt: skip
MODEL = "starter/chat"


@pytest.fixture
def claude(place: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=place, api_key="any", max_retries=0) as made:
        yield made


def plainly(client: openai.OpenAI, **more: Any) -> str | None:
    made = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=30, **more)
    return made.choices[0].message.content


def test_all_shapes_give_the_same_answer(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    wanted = plainly(client)
    made = claude.messages.create(model=MODEL, max_tokens=30, messages=QUESTION)
    assert [block.to_dict() for block in made.content] == [{"type": "text", "text": wanted}]
    assert made.stop_reason == "end_turn" and made.usage.output_tokens > 0
    assert claude.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens == made.usage.input_tokens
    said = client.responses.create(model=MODEL, input="What is 3 plus 4?", temperature=0, max_output_tokens=30)
    assert said.output_text == wanted and said.status == "completed" and said.usage is not None
    assert said.usage.input_tokens == made.usage.input_tokens
    parts: Any = [{"type": "text", "text": "What is 3 plus 4?"}]
    again = claude.messages.create(model=MODEL, max_tokens=30,
                                   messages=[{"role": "user", "content": parts}])  # fmt: skip
    assert again.content == made.content


def test_messages_stream(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    with claude.messages.stream(model=MODEL, max_tokens=30, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == plainly(client) and final.stop_reason == "end_turn" and final.usage.output_tokens > 0
    short = claude.messages.create(model=MODEL, max_tokens=1,
                                   messages=[{"role": "user", "content": "Tell me about the sea."}])  # fmt: skip
    assert short.stop_reason == "max_tokens"


def test_messages_call_tools(claude: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "get_weather", "description": "the weather", "input_schema": CITY}]
    ask: Any = {"model": MODEL, "max_tokens": 60, "tools": tools}
    made = claude.messages.create(messages=[{"role": "user", "content": PARIS}], **ask)
    (block,) = made.content
    assert made.stop_reason == "tool_use" and block.type == "tool_use" and block.input == {"city": "Paris"}
    with claude.messages.stream(messages=[{"role": "user", "content": PARIS}], **ask) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.type == "tool_use" and (streamed.name, streamed.input) == (block.name, block.input)
    talk: Any = [
        {"role": "user", "content": PARIS}, {"role": "assistant", "content": made.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "rain"}]},
    ]  # fmt: skip
    assert claude.messages.create(messages=talk, **ask).role == "assistant"
    kept = claude.messages.create(messages=QUESTION, **ask, tool_choice={"type": "any"})
    assert kept.stop_reason in ("tool_use", "max_tokens")


def test_responses_stream_in_the_order_that_the_helper_wants(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="What is 3 plus 4?", temperature=0) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == plainly(client)
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert [k for k in kinds[2:-1] if k != "response.output_text.delta"] == [
        "response.output_item.added", "response.content_part.added", "response.output_text.done",
        "response.content_part.done", "response.output_item.done",
    ]  # fmt: skip


def test_responses_call_tools_and_keep_to_schemas(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": CITY, "strict": True}]
    made = client.responses.create(model=MODEL, input=PARIS, tools=tools, temperature=0)
    (call,) = made.output
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "Paris"}
    items: Any = [{"role": "user", "content": PARIS}, call.to_dict(),
                  {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]  # fmt: skip
    assert client.responses.create(model=MODEL, input=items, tools=tools, temperature=0).status == "completed"
    with client.responses.stream(model=MODEL, input=PARIS, tools=tools, temperature=0) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call" and streamed.arguments == call.arguments

    class Sum(pydantic.BaseModel):
        total: int

    parsed = client.responses.parse(model=MODEL, input="What is 3 plus 4?", text_format=Sum, max_output_tokens=60)
    assert isinstance(parsed.output_parsed, Sum)


def test_errors_in_each_shape(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="starter/nothing", max_tokens=3, messages=QUESTION)
    assert isinstance(missing.value.body, dict) and missing.value.body["type"] == "error"
    wrong: Any = [{"role": "wizard", "content": "x"}]
    with pytest.raises(anthropic.BadRequestError, match="role"):
        claude.messages.create(model=MODEL, max_tokens=3, messages=wrong)
    for more, said in (
        ({"input": []}, "at least one"), ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": [{"type": "computer_call"}]}, "are not read"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "function"),
    ):  # fmt: skip
        asked: Any = {"model": MODEL, **more}
        with pytest.raises(openai.BadRequestError, match=said):
            client.responses.create(**asked)
