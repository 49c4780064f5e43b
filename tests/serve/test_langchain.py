"""Talks and vectors as programs of LangChain ask for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from conjure.serve.settings import Settings
from tests.serve.running import running

ASKED, PARIS = "What is 3 plus 4?", "What is the weather in Paris?"


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with running(Settings()) as url:
        yield f"{url}/v1"


T = TypeVar("T")
Talker = Callable[..., ChatOpenAI]


@pytest.fixture
def given(place: str) -> Iterator[dict[str, Any]]:
    """Where to, with which key, and connections that are closed in the end."""
    with openai.DefaultHttpxClient() as http:
        yield {"base_url": place, "api_key": "any", "max_retries": 0, "http_client": http}


@pytest.fixture
def talker(given: dict[str, Any]) -> Talker:
    def made(**more: Any) -> ChatOpenAI:
        known = {"model": "starter/chat", "temperature": 0, "max_tokens": 40}
        return ChatOpenAI(**given | known | more)

    return made


@pytest.fixture
def model(talker: Talker) -> ChatOpenAI:
    return talker()


def awaited(scene: Callable[[dict[str, Any]], Awaitable[T]]) -> T:
    """What a scene comes to; it is given the asynchronous connection."""

    async def run() -> T:
        async with openai.DefaultAsyncHttpxClient() as http:
            return await scene({"http_async_client": http})

    return asyncio.run(run())


@tool
def get_weather(city: str) -> str:
    """Get the current weather in a city."""
    return f"It is raining in {city}."


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(pydantic.BaseModel):
    """The result of a sum."""

    total: int = pydantic.Field(description="what the numbers add up to")
    sure: bool


def test_invoke_and_ainvoke_with_their_metadata(model: ChatOpenAI, talker: Talker) -> None:
    messages = [("system", "You answer in one sentence."), ("human", ASKED)]
    made = model.invoke(messages)
    assert isinstance(made.content, str) and made.content
    assert made.response_metadata["finish_reason"] == "stop" and made.response_metadata["model_name"] == "starter/chat"
    usage = made.usage_metadata
    assert usage is not None and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    parts = [SystemMessage("You answer in one sentence."), HumanMessage(ASKED)]
    again = awaited(lambda http: talker(**http).ainvoke(parts))
    assert again.content == made.content


def test_streams_add_up_to_the_whole(model: ChatOpenAI, talker: Talker) -> None:
    whole = model.invoke(ASKED)
    chunks = list(model.stream(ASKED, stream_usage=True))
    full = chunks[0]
    for chunk in chunks[1:]:
        full = full + chunk
    assert len(chunks) > 3 and full.content == whole.content and full.response_metadata["finish_reason"] == "stop"
    assert full.usage_metadata is not None and whole.usage_metadata is not None
    assert full.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]

    async def read(http: dict[str, Any]) -> str:
        return "".join([str(chunk.content) async for chunk in talker(**http).astream(ASKED)])

    assert awaited(read) == whole.content


def test_a_chain_and_a_batch(model: ChatOpenAI, talker: Talker) -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "What is {a} plus {b}?")])
    chain = prompt | model | StrOutputParser()
    asked = [{"a": n, "b": 4} for n in (1, 2, 3)]
    found = chain.batch(asked)
    assert found == [chain.invoke(each) for each in asked] and len(set(found)) > 1
    assert awaited(lambda http: (prompt | talker(**http) | StrOutputParser()).abatch(asked)) == found


def test_bound_tools_are_called_and_heard(model: ChatOpenAI) -> None:
    able = model.bind_tools([get_weather, add])
    talk: list[Any] = [HumanMessage(PARIS)]
    made = able.invoke(talk)
    assert isinstance(made, AIMessage) and made.response_metadata["finish_reason"] == "tool_calls"
    (call,) = made.tool_calls
    assert call["name"] == "get_weather" and call["args"] == {"city": "Paris"} and not made.invalid_tool_calls
    weather: Any = get_weather
    answer = weather.invoke(call)
    assert isinstance(answer, ToolMessage) and answer.content == "It is raining in Paris."
    assert isinstance(able.invoke([*talk, made, answer]), AIMessage)
    full: Any = None
    for chunk in able.stream(talk):
        full = chunk if full is None else full + chunk
    assert [(each["name"], each["args"]) for each in full.tool_calls] == [("get_weather", {"city": "Paris"})]


def test_a_tool_that_must_be_called(talker: Talker) -> None:
    one = talker(max_tokens=200, seed=5)
    made: Any = one.bind_tools([get_weather, add], tool_choice="add").invoke(PARIS)
    assert [each["name"] for each in made.tool_calls] == ["add"] and {"a", "b"} <= set(made.tool_calls[0]["args"])
    some: Any = one.bind_tools([get_weather, add], tool_choice="any", parallel_tool_calls=False).invoke(PARIS)
    assert [each["name"] for each in some.tool_calls] in (["add"], ["get_weather"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(talker: Talker, method: Any) -> None:
    found = talker(max_tokens=200).with_structured_output(Sum, method=method).invoke(ASKED)
    assert isinstance(found, Sum)


def test_structured_output_of_a_plain_schema_with_the_raw_message(talker: Talker) -> None:
    schema = {
        "title": "Colour", "type": "object", "properties": {"name": {"type": "string", "enum": ["red", "blue"]}},
        "required": ["name"], "additionalProperties": False,
    }  # fmt: skip
    asked = talker().with_structured_output(schema, method="json_schema", include_raw=True, strict=True)
    found: Any = asked.invoke("Which colour has the sea?")
    assert found["parsing_error"] is None and found["parsed"]["name"] in ("red", "blue")
    assert json.loads(found["raw"].content) == found["parsed"]


def test_the_newer_endpoint_and_plain_texts(talker: Talker, given: dict[str, Any]) -> None:
    plain = talker().invoke(ASKED)
    newer = talker(use_responses_api=True).invoke(ASKED)
    assert newer.text == plain.content
    pieces = [chunk.text for chunk in talker(use_responses_api=True).stream(ASKED)]
    assert "".join(pieces) == plain.content and len(pieces) > 3
    teller = OpenAI(**given | {"model": "starter/story", "temperature": 0, "max_tokens": 6})
    told = teller.invoke("Once upon a time there was a")
    assert told == "".join(teller.stream("Once upon a time there was a")) and told


def test_log_probabilities_and_several_choices(talker: Talker) -> None:
    scored = talker().bind(logprobs=True, top_logprobs=2).invoke(ASKED)
    content = scored.response_metadata["logprobs"]["content"]
    assert content and all(len(each["top_logprobs"]) == 2 for each in content)
    made = talker(n=3, temperature=1.5, seed=1).generate([[HumanMessage("Tell me about the sea.")]])
    assert len({each.text for each in made.generations[0]}) > 1 and len(made.generations[0]) == 3


def test_embeddings_of_texts_and_of_questions(given: dict[str, Any]) -> None:
    known: dict[str, Any] = given | {"model": "starter/story", "check_embedding_ctx_length": False}
    vectors = OpenAIEmbeddings(**known)
    documents = vectors.embed_documents(["a cat", "the sea"])
    assert documents[0] == pytest.approx(vectors.embed_query("a cat"), abs=1e-5) and documents[0] != documents[1]
    again = awaited(lambda http: OpenAIEmbeddings(**known | http).aembed_query("the sea"))
    assert again == pytest.approx(documents[1], abs=1e-5)
    short: dict[str, Any] = known | {"dimensions": 16}
    assert len(OpenAIEmbeddings(**short).embed_query("a cat")) == 16


def test_refusals_are_the_errors_that_chains_catch(talker: Talker) -> None:
    with pytest.raises(openai.NotFoundError, match="no model"):
        talker(model="starter/nothing").invoke(ASKED)
    with pytest.raises(openai.BadRequestError, match="tokens"):
        talker().invoke("word " * 3000)
    picture: Any = [{"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="reads texts"):
        talker().invoke([HumanMessage(picture)])
    spare = talker(model="starter/nothing").with_fallbacks([talker()])
    assert spare.invoke(ASKED).content
