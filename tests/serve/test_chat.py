"""Texts, as the official client asks for them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import openai
import pydantic
import pytest

import conjure
from conjure.models.language import LanguageModel

QUESTION: Any = [{"role": "user", "content": "What is 3 plus 4?"}]


def _tasks(client: openai.OpenAI, name: str) -> Any:
    return client.models.retrieve(name).to_dict()["tasks"]


@pytest.fixture(scope="module")
def chat_model() -> LanguageModel:
    found = conjure.load("starter/chat")
    assert isinstance(found, LanguageModel)
    return found


def told(model: LanguageModel, **knobs: Any) -> str:
    """What the model answers where nothing is served."""
    return model.continued([model.tokenizer.chat(QUESTION)], [1], **knobs)[0].text.lstrip(" ")


def test_models_are_listed_with_what_they_read_and_write(client: openai.OpenAI) -> None:
    found = {each.id: each for each in client.models.list()}
    chat: Any = found["starter/chat"].to_dict()
    assert chat["architecture"] == {"input_modalities": ["text"], "output_modalities": ["text"]}
    assert _tasks(client, "starter/pictograms")[0] == "draw"
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.models.retrieve("starter/nothing")


def test_an_answer_is_the_one_the_model_gives(client: openai.OpenAI, chat_model: LanguageModel) -> None:
    made = client.chat.completions.create(model="starter/chat", messages=QUESTION, temperature=0, max_tokens=30)  # type: ignore[arg-type]
    wanted = told(chat_model, temperature=0.0, tokens=30)
    assert made.choices[0].message.content == wanted and made.choices[0].finish_reason == "stop"
    assert made.usage is not None and made.usage.prompt_tokens == len(chat_model.tokenizer.chat(QUESTION))
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_a_stream_says_the_same_in_pieces_and_counts_at_the_end(client: openai.OpenAI) -> None:
    tell = [{"role": "user", "content": "Tell me about the sea."}]
    asked = {"model": "starter/chat", "messages": tell, "temperature": 1.5, "seed": 7, "max_tokens": 20, "n": 2}
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices] and texts[0] != texts[1]
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage and all(chunk.usage is None for chunk in chunks[:-1])
    ends = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    wanted = {choice.index: choice.finish_reason for choice in whole.choices}
    assert {each.index: each.finish_reason for each in ends} == wanted


def test_the_stream_helper_and_the_asynchronous_client(place: str) -> None:
    async def scene() -> tuple[str | None, str | None]:
        async with openai.AsyncOpenAI(base_url=f"{place}/v1", api_key="any", max_retries=0) as client:
            async with client.chat.completions.stream(
                model="starter/chat", messages=QUESTION, temperature=0, max_tokens=20  # type: ignore[arg-type]
            ) as stream:
                async for _ in stream:
                    pass
                final = await stream.get_final_completion()
            plain = await client.chat.completions.create(
                model="starter/chat", messages=QUESTION, temperature=0, max_tokens=20  # type: ignore[arg-type]
            )
            return final.choices[0].message.content, plain.choices[0].message.content

    streamed, plain = asyncio.run(scene())
    assert streamed == plain and streamed


def test_log_probabilities(client: openai.OpenAI) -> None:
    asked = {"model": "starter/chat", "messages": QUESTION, "temperature": 1, "seed": 1, "max_tokens": 5}
    made: Any = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    content = made.choices[0].logprobs.content
    assert len(content) == made.usage.completion_tokens and all(each.logprob <= 0 for each in content)
    for each in content:
        values = [top.logprob for top in each.top_logprobs]
        assert len(values) == 3 and values == sorted(values, reverse=True) and each.logprob <= values[0] + 1e-9
        assert all(top.logprob == each.logprob for top in each.top_logprobs if top.token == each.token)
    with pytest.raises(openai.BadRequestError, match="top_logprobs goes with"):
        client.chat.completions.create(model="starter/chat", messages=QUESTION, top_logprobs=3)  # type: ignore[call-overload]


def test_an_answer_keeps_to_a_schema(client: openai.OpenAI) -> None:
    class Sum(pydantic.BaseModel):
        total: int
        sure: bool

    made = client.chat.completions.parse(model="starter/chat", messages=QUESTION, response_format=Sum, max_tokens=120,  # type: ignore[arg-type]
                                         temperature=0.9, seed=3)  # fmt: skip
    assert isinstance(made.choices[0].message.parsed, Sum)
    loose: Any = client.chat.completions.create(model="starter/chat", messages=QUESTION, max_tokens=60, seed=2,  # type: ignore[call-overload]
                                           response_format={"type": "json_object"}, temperature=0)  # fmt: skip
    if loose.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(loose.choices[0].message.content), dict)
    with pytest.raises(openai.BadRequestError, match="response_format"):
        client.chat.completions.create(model="starter/chat", messages=QUESTION, response_format={"type": "json_schema"})  # type: ignore[call-overload]


def tool(name: str, **properties: str) -> Any:
    parameters = {
        "type": "object", "additionalProperties": False, "required": list(properties),
        "properties": {key: {"type": kind} for key, kind in properties.items()},
    }  # fmt: skip
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


WEATHER, ADD = tool("get_weather", city="string"), tool("add", a="integer", b="integer")
PARIS: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


def test_a_model_calls_a_tool_and_hears_of_it(client: openai.OpenAI) -> None:
    asked: Any = {"model": "starter/chat", "tools": [WEATHER, ADD], "temperature": 0, "max_tokens": 60}
    made = client.chat.completions.create(messages=PARIS, **asked).choices[0]
    assert made.finish_reason == "tool_calls" and made.message.content is None and made.message.tool_calls
    call: Any = made.message.tool_calls[0]
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    talk = [*PARIS, made.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert client.chat.completions.create(messages=talk, **asked).choices[0].message.role == "assistant"
    with client.chat.completions.stream(messages=PARIS, **asked) as stream:
        final = stream.get_final_completion().choices[0]
    streamed: Any = (final.message.tool_calls or [None])[0]
    assert final.finish_reason == "tool_calls" and streamed.function.arguments == call.function.arguments
    plain = client.chat.completions.create(messages=QUESTION, **asked, tool_choice="none").choices[0]
    assert plain.message.tool_calls is None and plain.message.content


def test_a_choice_of_tools_is_kept(client: openai.OpenAI) -> None:
    asked: Any = {"model": "starter/chat", "messages": PARIS, "tools": [WEATHER, ADD], "max_tokens": 200}
    only: Any = {"type": "function", "function": {"name": "add"}}
    choices: Any = (("required", {"get_weather", "add"}), (only, {"add"}))
    for choice, names in choices:
        made: Any = client.chat.completions.create(**asked, tool_choice=choice, seed=5).choices[0]
        (call,) = made.message.tool_calls
        assert call.function.name in names and set(json.loads(call.function.arguments)) <= {"city", "a", "b"}
    for wrong, said in (
        ({"tool_choice": {"type": "function", "function": {"name": "sing"}}}, "no tool is called"),
        ({"tool_choice": "perhaps"}, "expected auto"), ({"tools": [{"type": "function"}]}, "expected a function"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match=said):
            client.chat.completions.create(**asked | wrong)


def test_completions_of_texts_and_of_ids(client: openai.OpenAI) -> None:
    text = "Once upon a time there was a"
    made = client.completions.create(model="starter/story", prompt=[text, "The sea was"], max_tokens=8, temperature=0,
                                     echo=True, logprobs=2)  # fmt: skip
    assert made.choices[0].text.startswith(text) and made.choices[1].text.startswith("The sea was")
    assert made.choices[0].logprobs is not None and len(made.choices[0].logprobs.tokens or []) == 8
    streamed = client.completions.create(model="starter/story", prompt=text, max_tokens=8, temperature=0, stream=True)
    assert text + "".join(each.choices[0].text for each in streamed) == made.choices[0].text
    stopped = client.completions.create(model="starter/story", prompt=text, max_tokens=60, temperature=0, stop=["deal"])
    assert stopped.choices[0].text == " great " and stopped.choices[0].finish_reason == "stop"


def test_embeddings_in_both_forms(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="starter/story", input=["a cat", "the sea"])  # base64, the client's default
    plain = client.embeddings.create(model="starter/story", input="a cat", encoding_format="float")
    assert found.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert found.data[1].index == 1 and found.data[0].embedding != found.data[1].embedding
    short = client.embeddings.create(model="starter/story", input="a cat", encoding_format="float", dimensions=10)
    assert len(short.data[0].embedding) == 10 and sum(x * x for x in short.data[0].embedding) == pytest.approx(1)
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.embeddings.create(model="starter/story", input="")


def test_the_same_seed_alone_and_among_31_others(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        made = client.completions.create(model="starter/story", prompt=f"The {'very ' * (seed % 5)}old man", seed=seed,
                                         max_tokens=12, temperature=0.9)  # fmt: skip
        return made.choices[0].text

    alone = [ask(seed) for seed in range(4)]
    found: dict[int, str] = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: ask(seed)})) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == alone and len(set(found.values())) > 20


def test_what_cannot_be_done_is_named(client: openai.OpenAI) -> None:
    create, picture = client.chat.completions.create, {"type": "image_url", "image_url": {"url": "http://x"}}
    for more, said in (
        ({"model": "starter/nothing"}, "no model"), ({"model": "starter/pictograms"}, "no model of language"),
        ({"extra_body": {"colour": 1}}, "unknown or unsupported parameter: colour"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages\\[0\\].role"),
        ({"messages": [{"role": "user", "content": [picture]}]}, "reads texts"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "tokens"),
        ({"temperature": 9}, "temperature"), ({"logit_bias": {"word": 1}}, "ids of tokens"),
    ):  # fmt: skip
        asked = {"model": "starter/chat", "messages": QUESTION, "max_tokens": 3} | more
        with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=said):
            create(**asked)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="chat template"):
        create(model="starter/story", messages=QUESTION, max_tokens=3)  # type: ignore[arg-type]


def test_a_reader_who_leaves_ends_the_writing(client: openai.OpenAI, place: str) -> None:
    stream = client.completions.create(model="starter/story", prompt="The sea was", max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()
    import urllib.request

    until, load = time.monotonic() + 20, {"running": 1}
    while load["running"] and time.monotonic() < until:
        with urllib.request.urlopen(f"{place}/health") as answer:
            load = json.load(answer)
        time.sleep(0.05)
    assert load["running"] == 0
