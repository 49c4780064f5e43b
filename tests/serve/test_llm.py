"""The `llm` command line with the server among its models, as its documentation sets up models of the OpenAI shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from conjure.core import shelf
from conjure.serve.settings import Settings
from tests.serve.running import running

ASKED = "What is 3 plus 4?"
MODELS = """
- model_id: chat
  model_name: starter/chat
  api_base: "{url}/v1"
  supports_schema: true
  supports_tools: true
  vision: true
- model_id: newer
  model_name: starter/chat
  api_base: "{url}/v1"
  responses: true
- model_id: story
  model_name: starter/story
  api_base: "{url}/v1"
  completion: true
- model_id: nothing
  model_name: starter/nothing
  api_base: "{url}/v1"
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    own = tmp_path_factory.mktemp("models") / "text-embedding-3-small"  # the program knows no other names
    own.symlink_to(shelf.find("starter/story"))
    with running(Settings(models=(own,))) as url:
        yield url


@pytest.fixture
def llm(place: str, tmp_path: Path) -> Run:
    """Runs the program in a home of its own."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(url=place))
    environment = {"LLM_USER_PATH": str(tmp_path), "OPENAI_BASE_URL": f"{place}/v1", "OPENAI_API_KEY": "any"}

    def run(*words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([sys.executable, "-m", "llm", *words], capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, env={**os.environ, **environment}, check=False)  # fmt: skip
        assert (done.returncode != 0) == fails, done.stderr
        return done

    return run


COLD = ("-o", "temperature", "0", "-o", "max_tokens", "60")


def test_a_prompt_as_a_stream_and_the_conversation_after_it(llm: Run) -> None:
    first = llm("-m", "chat", "--usage", *COLD, "-s", "You answer in one sentence.", ASKED)
    assert " input" in first.stderr and " output" in first.stderr
    second = llm("-c", "--no-stream", *COLD, "And 5 plus 6?").stdout.strip()
    told = json.loads(llm("logs", "list", "-c", "--json").stdout)
    assert [each["prompt"] for each in told] == [ASKED, "And 5 plus 6?"] and second
    assert [each["response"].strip() for each in told] == [first.stdout.strip(), second]
    asked = [each["input_tokens"] for each in told]
    assert asked[1] > asked[0] > 0 and told[0]["system"] == "You answer in one sentence."


def test_an_endpoint_without_any_setting_up_and_the_newer_shape(llm: Run, place: str) -> None:
    listed = llm("openai", "endpoint", f"{place}/v1", "--models").stdout
    with urlopen(f"{place}/v1/models") as answer:
        names = [each["id"] for each in json.load(answer)["data"]]
    assert all(name in listed for name in names) and "starter/chat" in names
    told = llm("openai", "endpoint", f"{place}/v1", ASKED, "-m", "starter/chat", *COLD).stdout
    assert told.strip() and told == llm("-m", "newer", *COLD, ASKED).stdout


def test_a_schema_is_kept(llm: Run) -> None:
    made = llm("-m", "chat", "--schema", "total int, sure bool", "-o", "max_tokens", "200", "-o", "seed", "3", ASKED)
    found = json.loads(made.stdout)
    assert isinstance(found["total"], int) and isinstance(found["sure"], bool)


def test_a_tool_is_called_and_its_answer_goes_back(llm: Run) -> None:
    code = 'def get_weather(city: str) -> str:\n    "Get the current weather in a city."\n    return "rain"\n'
    made = llm("-m", "chat", *COLD, "--functions", code, "--td", "What is the weather in Paris?")
    assert "get_weather({'city': 'Paris'})" in made.stderr and "rain" in made.stderr


def test_texts_that_go_on(llm: Run) -> None:
    made = llm("-m", "story", "-o", "max_tokens", "8", "-o", "temperature", "0", "Once upon a time there was a")
    assert made.stdout.strip()


def test_vectors_and_the_likest_of_a_collection(llm: Run, tmp_path: Path) -> None:
    (tmp_path / "things.csv").write_text("id,text\none,a cat\ntwo,the storm at sea\n")
    llm("embed-multi", "things", str(tmp_path / "things.csv"), "-m", "text-embedding-3-small", "--store")
    found = [json.loads(line) for line in llm("similar", "things", "-c", "a cat").stdout.splitlines()]
    assert [each["id"] for each in found] == ["one", "two"] and found[0]["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "nothing", ASKED), "there is no model 'starter/nothing'"),
        (("-m", "chat", "word " * 3000), "tokens, this model reads"),
        (("-m", "chat", "What is this?", "-a", "red.png"), "model reads texts"),
    ],
)
def test_refusals_are_told(llm: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    picture = _picture(tmp_path)
    assert said in llm(*[picture if word == "red.png" else word for word in words], fails=True).stderr


def _picture(folder: Path) -> str:
    import numpy as np

    from conjure.media import write
    from conjure.media.image import Image

    path = folder / "red.png"
    write(Image(np.full((16, 16, 3), (200, 0, 0), np.uint8)), path)
    return str(path)
