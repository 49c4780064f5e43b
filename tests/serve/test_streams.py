"""Streams held by the clients' own helpers, raw answers, and how clients come back after a refusal that passes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from conjure.media.image import decode
from conjure.serve.errors import ApiError
from conjure.serve.settings import Limits, Settings
from tests.serve.running import running

MODEL = "starter/chat"
ASKED: Any = [{"role": "user", "content": "What is 3 plus 4?"}]
PARIS: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY: Any = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False
}  # fmt: skip
COLD: Any = {"model": MODEL, "temperature": 0, "max_tokens": 60}


class City(pydantic.BaseModel):
    """Get the current weather in a city."""

    model_config = pydantic.ConfigDict(extra="forbid", title="get_weather")
    city: str


class Sum(pydantic.BaseModel):
    total: int


# -- chat -------------------------------------------------------------------------------------------------------------


def test_the_events_of_a_streamed_talk(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(messages=ASKED, **COLD, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert events[0].type == "chunk" and events[-1].type == "chunk"
    deltas = [event.delta for event in events if event.type == "content.delta"]
    (done,) = [event for event in events if event.type == "content.done"]
    assert "".join(deltas) == done.content == final.choices[0].message.content and len(deltas) > 1
    assert final.usage is not None and final.usage.total_tokens > 0


def test_a_streamed_talk_that_keeps_to_a_model(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(messages=ASKED, response_format=Sum, **COLD, seed=1) as stream:
        (done,) = [event for event in stream if event.type == "content.done"]
        final = stream.get_final_completion().choices[0].message
    assert isinstance(done.parsed, Sum) and final.parsed == done.parsed


def test_a_streamed_call_of_a_tool_and_its_scores(client: openai.OpenAI) -> None:
    tools: Any = [openai.pydantic_function_tool(City, name="get_weather")]
    with client.chat.completions.stream(messages=PARIS, tools=tools, **COLD) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert done.index == 0 and done.parsed_arguments == City(city="Paris") and final.finish_reason == "tool_calls"
    with client.chat.completions.stream(messages=ASKED, logprobs=True, top_logprobs=1, **COLD) as stream:
        scored = [event for event in stream if event.type == "logprobs.content.delta"]
        logprobs = stream.get_final_completion().choices[0].logprobs
    assert scored and logprobs is not None and logprobs.content == scored[-1].snapshot


def test_several_choices_and_the_asynchronous_helper(place: str) -> None:
    async def scene() -> tuple[Sequence[str | None], Sequence[str | None]]:
        asked: Any = {"messages": ASKED, "model": MODEL, "temperature": 1.5, "seed": 3, "n": 3, "max_tokens": 8}
        async with openai.AsyncOpenAI(base_url=f"{place}/v1", api_key="any", max_retries=0) as client:
            async with client.chat.completions.stream(**asked) as stream:
                async for _ in stream:
                    pass
                final = await stream.get_final_completion()
            plain = await client.chat.completions.create(**asked)
            await _left_early(client)
        return [each.message.content for each in final.choices], [each.message.content for each in plain.choices]

    streamed, plain = asyncio.run(scene())
    assert streamed == plain and len(set(plain)) > 1


async def _left_early(client: openai.AsyncOpenAI) -> None:
    """Whoever leaves a stream leaves nothing behind that spoils the next one."""
    async with client.chat.completions.stream(messages=ASKED, **COLD) as stream:
        async for event in stream:
            if event.type == "content.delta":
                break


# -- the newer shape --------------------------------------------------------------------------------------------------


def test_streamed_responses_with_a_model_and_with_tools(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "temperature": 0, "max_output_tokens": 60}
    with client.responses.stream(input=ASKED, text_format=Sum, **asked) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers))) and isinstance(final.output_parsed, Sum)
    tools: Any = [openai.pydantic_function_tool(City, name="get_weather")["function"] | {"type": "function"}]
    with client.responses.stream(input=PARIS, tools=tools, **asked) as stream:
        events = list(stream)
        (call,) = stream.get_final_response().output
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "Paris"}
    assert [event.arguments for event in done] == [call.arguments]


def test_asynchronous_responses_and_one_that_is_cut_short(place: str) -> None:
    async def scene() -> tuple[str, str, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{place}/v1", api_key="any", max_retries=0) as client:
            asked: Any = {"model": MODEL, "input": "Tell me about the sea.", "temperature": 0, "max_output_tokens": 3}
            plain = await client.responses.create(**asked)
            kinds = [event.type async for event in await client.responses.create(**asked, stream=True)]
            async with client.responses.stream(**asked) as stream:
                text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
            return plain.output_text, text, [plain.status or "", kinds[0], kinds[-1]]

    whole, text, facts = asyncio.run(scene())
    assert whole == text and facts == ["incomplete", "response.created", "response.incomplete"]


def test_asynchronous_messages(place: str) -> None:
    async def scene() -> tuple[str, Any, list[str]]:
        async with anthropic.AsyncAnthropic(base_url=place, api_key="any", max_retries=0) as claude:
            asked: Any = {"model": MODEL, "max_tokens": 60}
            async with claude.messages.stream(messages=ASKED, **asked) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            tools: Any = [{"name": "get_weather", "description": "the weather", "input_schema": CITY}]
            async with claude.messages.stream(messages=PARIS, tools=tools, **asked) as stream:
                kinds = [event.type async for event in stream]
                final = await stream.get_final_message()
            return text, final.content[-1], kinds

    text, block, kinds = asyncio.run(scene())
    assert text and block.type == "tool_use" and block.input == {"city": "Paris"}
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and "input_json" in kinds


# -- pictures and raw answers -----------------------------------------------------------------------------------------


def test_pictures_in_a_stream_asynchronously(place: str) -> None:
    async def scene() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{place}/v1", api_key="any", max_retries=0) as client:
            few: Any = {"seed": 1, "steps": 2}
            stream = await client.images.generate(prompt="a red apple", stream=True, partial_images=1, extra_body=few)
            return [event async for event in stream]

    events = asyncio.run(scene())
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert events[0].partial_image_index == 0 and events[1].usage.total_tokens >= 0
    assert all(decode(base64.b64decode(event.b64_json), "event").width == 128 for event in events)


def test_raw_answers_with_their_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(messages=ASKED, **COLD)
    assert raw.status_code == 200 and raw.headers["content-type"] == "application/json"
    text = raw.parse().choices[0].message.content
    streamed = client.chat.completions.with_raw_response.create(messages=ASKED, **COLD, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed.parse()) == text
    with client.models.with_streaming_response.list() as listed:
        assert listed.headers["content-type"] == "application/json" and MODEL.encode() in listed.read()


def test_a_fault_in_the_middle_of_a_stream_is_raised(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(openai.APIError, match="tokens"):
        list(client.chat.completions.create(messages=long, stream=True, **COLD))


# -- coming back ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def refusing(target: str, refusals: Sequence[ApiError]) -> Iterator[tuple[str, list[float]]]:
    """A door before the server that first gives these refusals, in the server's own words, then lets everything in:
    (its address, when each request came)."""
    came: list[float] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append(time.monotonic())
            if len(came) <= len(refusals):
                refusal = refusals[len(came) - 1].response()
                status, headers, data = refusal.status_code, dict(refusal.headers), bytes(refusal.body)
            else:
                passed = {"content-type": self.headers["content-type"]}
                with urllib.request.urlopen(urllib.request.Request(target + self.path, body, passed)) as answer:
                    status, data = answer.status, answer.read()
                    headers = {"content-type": answer.headers["content-type"], "content-length": str(len(data))}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


FULL = ApiError(429, "64 requests are waiting already", code="queue_full", headers={"Retry-After": "1"})
BUSY = ApiError(503, "the models in memory are all at work", code="overloaded", headers={"Retry-After": "1"})


@pytest.mark.parametrize("refusal", [FULL, BUSY])
def test_clients_wait_as_long_as_they_are_told_and_come_back(place: str, refusal: ApiError) -> None:
    with refusing(place, [refusal]) as (url, came):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=2) as client:
            assert client.chat.completions.create(messages=ASKED, **COLD).choices[0].message.content
    assert len(came) == 2 and came[1] - came[0] >= 1
    with refusing(place, [refusal] * 2) as (url, came):
        with anthropic.Anthropic(base_url=url, api_key="any", max_retries=1) as claude:
            with pytest.raises(anthropic.APIStatusError) as caught:
                claude.messages.create(model=MODEL, max_tokens=5, messages=ASKED)
    assert caught.value.status_code == refusal.status and len(came) == 2 and refusal.message in str(caught.value)


def test_a_full_queue_is_told_with_when_to_come_back() -> None:
    asked: Any = {"prompt": "a red apple", "stream": True, "extra_body": {"steps": 200, "seed": 1}}
    with running(Settings(limits=Limits(queue=1))) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
            first = client.images.generate(**asked, partial_images=1)
            next(iter(first))  # the worker is at it
            second = client.images.generate(**asked)
            with pytest.raises(openai.RateLimitError, match="waiting already") as refused:
                client.images.generate(prompt="a dog")
            first.close()
            second.close()
    assert refused.value.response.headers["retry-after"] == "5" and refused.value.code == "queue_full"
