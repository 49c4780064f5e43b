"""What programs written for the 1.x client do, by its own calls.

It runs with that client on PYTHONPATH, apart from the tests' own: `python openai_one.py URL PICTURE`. Prints a line for
each scene that went well, and ends at the first fault.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
from pydantic import BaseModel

ASKED: Any = [{"role": "user", "content": "What is 3 plus 4?"}]
PARIS: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY: Any = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False
}  # fmt: skip
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "weather", "parameters": CITY, "strict": True},
}
COLD: Any = {"model": "starter/chat", "temperature": 0, "max_tokens": 60}
PNG = b"\x89PNG\r\n\x1a\n"


class Sum(BaseModel):
    total: int
    sure: bool


def models(client: openai.OpenAI, picture: Path) -> None:
    names = [each.id for each in client.models.list()]
    assert "starter/chat" in names and client.models.retrieve("starter/chat").id == "starter/chat"


def chat(client: openai.OpenAI, picture: Path) -> None:
    made = client.chat.completions.create(messages=ASKED, **COLD)
    text = ""
    counted = None
    for chunk in client.chat.completions.create(
        messages=ASKED, **COLD, stream=True, stream_options={"include_usage": True}
    ):
        counted = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert made.choices[0].message.content == text and text and made.usage == counted
    raw = client.chat.completions.with_raw_response.create(messages=ASKED, **COLD)
    assert raw.headers["content-type"] == "application/json" and raw.parse().choices[0].message.content == text
    with client.chat.completions.with_streaming_response.create(messages=ASKED, **COLD) as response:
        assert json.loads("".join(response.iter_text()))["object"] == "chat.completion"


def helpers(client: openai.OpenAI, picture: Path) -> None:
    with client.beta.chat.completions.stream(messages=ASKED, **COLD) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds[0] == "chunk" and {"content.delta", "content.done"} <= set(kinds)
    made = client.chat.completions.create(messages=ASKED, **COLD)
    assert final.choices[0].message.content == made.choices[0].message.content
    parsed = client.beta.chat.completions.parse(messages=ASKED, response_format=Sum, **COLD | {"max_tokens": 200})
    assert isinstance(parsed.choices[0].message.parsed, Sum)
    with client.beta.chat.completions.stream(
        messages=ASKED, response_format=Sum, **COLD | {"max_tokens": 200}
    ) as held:
        assert isinstance(held.get_final_completion().choices[0].message.parsed, Sum)


def tools(client: openai.OpenAI, picture: Path) -> None:
    made = client.chat.completions.create(messages=PARIS, tools=[WEATHER], **COLD).choices[0]
    assert made.finish_reason == "tool_calls" and made.message.tool_calls
    call: Any = made.message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    found: dict[int, dict[str, str]] = {}
    for chunk in client.chat.completions.create(messages=PARIS, tools=[WEATHER], stream=True, **COLD):
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.index is not None and delta.function is not None
            one = found.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
            one["id"] += delta.id or ""
            one["name"] += delta.function.name or ""
            one["arguments"] += delta.function.arguments or ""
    assert list(found) == [0] and found[0]["id"] and found[0]["name"] == "get_weather"
    assert found[0]["arguments"] == call.function.arguments
    with client.beta.chat.completions.stream(messages=PARIS, tools=[WEATHER], **COLD) as stream:
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls and final.tool_calls[0].function.parsed_arguments == {"city": "Paris"}
    talk = [*PARIS, made.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert client.chat.completions.create(messages=talk, tools=[WEATHER], **COLD).choices[0].message.role == "assistant"


def responses(client: openai.OpenAI, picture: Path) -> None:
    asked: Any = {"model": "starter/chat", "input": "What is 3 plus 4?", "temperature": 0}
    whole = client.responses.create(**asked).output_text
    with client.responses.stream(**asked) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == whole


def texts_and_vectors(client: openai.OpenAI, picture: Path) -> None:
    made = client.completions.create(model="starter/story", prompt="Once upon a time", max_tokens=6, temperature=0)
    assert made.choices[0].text and made.choices[0].finish_reason == "length"
    packed = client.embeddings.create(model="starter/story", input=["a cat", "the sea"])  # base64 by default
    plain = client.embeddings.create(model="starter/story", input="a cat", encoding_format="float")
    apart = zip(packed.data[0].embedding, plain.data[0].embedding, strict=True)
    assert all(abs(a - b) < 1e-5 for a, b in apart) and packed.usage.total_tokens > 0


def pictures(client: openai.OpenAI, picture: Path) -> None:
    few: Any = {"extra_body": {"seed": 1, "steps": 1}}
    made = client.images.generate(prompt="a red apple", n=2, response_format="b64_json", **few)
    assert made.data and all(base64.b64decode(each.b64_json or "").startswith(PNG) for each in made.data)
    with picture.open("rb") as file:
        edited = client.images.edit(image=file, mask=picture, prompt="a cat", **few)
    assert edited.data and base64.b64decode(edited.data[0].b64_json or "").startswith(PNG)
    events = list(client.images.generate(prompt="a dog", stream=True, partial_images=1, extra_body={"steps": 2}))
    assert events[-1].type == "image_generation.completed" and len(events) == 2


def errors(client: openai.OpenAI, picture: Path) -> None:
    wrong: list[tuple[type[openai.APIStatusError], dict[str, Any]]] = [
        (openai.NotFoundError, {"model": "starter/nothing"}),
        (openai.BadRequestError, {"temperature": 9}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"extra_body": {"colour": 1}}),
    ]
    for kind, more in wrong:
        try:
            client.chat.completions.create(**{"messages": ASKED, **COLD} | more)
        except kind as error:
            assert isinstance(error.body, dict) and set(error.body) == {"message", "type", "param", "code"}
            assert error.type == error.body["type"]
        else:
            raise AssertionError(f"{more} was not refused")


async def asynchronous(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        made, listed = await asyncio.gather(
            client.chat.completions.create(messages=ASKED, **COLD), client.models.list()
        )
        assert "starter/chat" in [each.id for each in listed.data]
        text = ""
        stream = await client.chat.completions.create(messages=ASKED, stream=True, **COLD)
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        assert text == made.choices[0].message.content
        async with client.beta.chat.completions.stream(messages=PARIS, tools=[WEATHER], **COLD) as held:
            kinds = [event.type async for event in held]
        assert "tool_calls.function.arguments.done" in kinds


SCENES: tuple[Callable[[openai.OpenAI, Path], None], ...] = (
    models, chat, helpers, tools, responses, texts_and_vectors, pictures, errors
)  # fmt: skip


def main(url: str, picture: str) -> None:
    assert openai.__version__.startswith("1."), openai.__version__
    print("version", openai.__version__)
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        for scene in SCENES:
            scene(client, Path(picture))
            print(scene.__name__, flush=True)
    asyncio.run(asynchronous(url))
    print("asynchronous")


if __name__ == "__main__":
    main(*sys.argv[1:])
