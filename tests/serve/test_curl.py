"""Every `curl` of the documents, run as it is written but for the port, and what `curl` sees of refusals."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conjure.cli.serve import EPILOG
from conjure.media import write
from conjure.media.image import Image, decode
from conjure.serve.settings import Limits, Settings
from tests.serve.running import running

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
JSON = ("-H", "Content-Type: application/json")
TALK = {"model": "starter/chat", "messages": [{"role": "user", "content": "What is 3 plus 4?"}], "max_tokens": 30}


def commands(text: str) -> list[str]:
    """The commands of a text that begin with curl, each with the lines it goes on in."""
    return [found.strip() for found in re.findall(r"^ *curl (?:.*\\\n)*.*$", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    limits = Limits(body_bytes=1 << 20)
    with running(Settings(history=tmp_path_factory.mktemp("history"), limits=limits)) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the pictures that commands send, and curl told to fail where the answer is an error."""
    mask = np.full((128, 128, 4), 255, np.uint8)
    mask[8:72, 8:72, 3] = 0
    write(Image(np.full((128, 128, 3), 255, np.uint8)), tmp_path / "in.png")
    write(Image(mask), tmp_path / "mask.png")
    (tmp_path / ".curlrc").write_text("silent\nshow-error\nfail-with-body\nmax-time = 120\n")
    return tmp_path


def curl(*words: str) -> tuple[int, dict[str, str], Any]:
    """(status, headers, body) of one call; JSON is read."""
    form = "\n%{http_code} %{header_json}"
    done = subprocess.run(["curl", "-q", "-sS", "--max-time", "120", "-w", form, *words], capture_output=True,
                          check=True)  # fmt: skip
    match = re.search(rb"\n(\d{3}) (\{[^{}]*\})\s*\Z", done.stdout)
    assert match is not None, done.stdout[-300:]
    headers = {name: values[-1] for name, values in json.loads(match[2]).items()}
    body = done.stdout[: match.start()]
    return int(match[1]), headers, json.loads(body) if headers.get("content-type") == "application/json" else body


def posted(url: str, body: Any, *words: str) -> tuple[int, dict[str, str], Any]:
    return curl(url, *JSON, *words, "-d", body if isinstance(body, str) else json.dumps(body))


def test_every_written_command_is_answered(place: str, folder: Path) -> None:
    written = [*commands(PAGE), *commands(EPILOG)]
    assert len(written) >= 3 and all("localhost:8001" in each for each in written)
    for command in written:
        here = command.replace("localhost:8001", place.removeprefix("http://"))
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", here], cwd=folder, capture_output=True, check=False,
                              env={"PATH": os.environ["PATH"], "CURL_HOME": str(folder)})  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-500:]!r}\n{done.stderr[-500:]!r}"
        assert not re.search(rb'"error": ?{', done.stdout[:2000]), command


def test_commands_are_found_with_all_their_lines() -> None:
    text = "curl a \\\n  -d 'b'\nconjure serve\n  curl c\nno curl d"
    assert commands(text) == ["curl a \\\n  -d 'b'", "curl c"]


def test_a_stream_comes_line_by_line_and_ends(place: str) -> None:
    status, headers, body = posted(f"{place}/v1/chat/completions", TALK | {"stream": True}, "-N")
    lines = [line for line in body.decode().split("\n\n") if line]
    assert status == 200 and headers["content-type"].startswith("text/event-stream") and lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines) and "content-encoding" not in headers
    deltas = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    plain = posted(f"{place}/v1/chat/completions", TALK | {"temperature": 0})
    assert "".join(deltas).strip() and plain[2]["choices"][0]["message"]["content"]


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_a_form_with_and_without_brackets(place: str, folder: Path, field: str) -> None:
    parts = (f"{field}=@{folder}/in.png;type=image/png", f"mask=@{folder}/mask.png", "prompt=a cat", "steps=1")
    status, _, body = curl(f"{place}/v1/images/edits", *(word for part in parts for word in ("-F", part)))
    assert status == 200, body
    assert decode(base64.b64decode(body["data"][0]["b64_json"]), "answer").width == 128


def test_a_picture_of_the_history_is_fetched_as_a_file(place: str, folder: Path) -> None:
    asked = {"inputs": ["a red apple"], "to": "png", "seed": 1, "options": {"steps": 1}}
    status, _, made = posted(f"{place}/v1/make", asked)
    assert status == 200
    number = made["outputs"][0]["history"]
    status, headers, _ = curl(f"{place}/v1/history/{number}/content", "-o", str(folder / "out.png"))
    assert status == 200 and headers["content-type"] == "image/png"
    assert (folder / "out.png").read_bytes() == base64.b64decode(made["outputs"][0]["b64"])


@pytest.mark.parametrize(
    ("path", "body", "status", "type_", "param", "said"),
    [
        ("/v1/chat/completions", "{", 400, "invalid_request_error", None, "no valid JSON"),
        ("/v1/chat/completions", {}, 400, "invalid_request_error", "messages", "required"),
        ("/v1/chat/completions", TALK | {"colour": 1}, 400, "invalid_request_error", "colour", "unknown"),
        ("/v1/chat/completions", TALK | {"model": "a/b"}, 404, "not_found_error", "model", "there is no model"),
        ("/v1/chat/completions", TALK | {"temperature": 3}, 400, "invalid_request_error", "temperature", "got 3"),
        ("/v1/embeddings", {"input": [""]}, 400, "invalid_request_error", "input", "empty"),
        ("/v1/make", {"inputs": ["x"], "to": "hologram"}, 400, "invalid_request_error", None, "hologram"),
        ("/v1/make", {"inputs": [{"url": "http://a/b"}]}, 400, "invalid_request_error", "inputs[0]", "not followed"),
        ("/v1/nothing", {}, 404, "not_found_error", None, "there is no /v1/nothing"),
        ("/v1/models", {}, 405, "invalid_request_error", None, "POST does not go with /v1/models"),
    ],
)
def test_refusals(place: str, path: str, body: Any, status: int, type_: str, param: str | None, said: str) -> None:
    found, headers, answer = posted(place + path, body)
    assert found == status and headers["content-type"] == "application/json"
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == (type_, param) and said in error["message"]


def test_refusals_of_the_door(place: str, folder: Path) -> None:
    (folder / "large.json").write_bytes(b'{"prompt": "' + b"x" * (2 << 20) + b'"}')
    for words, status, code in (
        (("-d", f"@{folder}/large.json", *JSON), 413, "request_too_large"),
        (("-H", "Host: evil.example"), 403, "host_not_allowed"),
        (("-H", "Origin: https://evil.example"), 403, "origin_not_allowed"),
    ):
        found, _, answer = curl(f"{place}/v1/images/generations", *words)
        assert (found, answer["error"]["code"]) == (status, code)


def test_keys_by_header_and_none_on_the_way_to_health() -> None:
    with running(Settings(key="secret")) as url:
        status, headers, answer = curl(f"{url}/v1/models")
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key") and headers["www-authenticate"] == "Bearer"
        assert curl(f"{url}/v1/models", "-H", "Authorization: Bearer wrong")[0] == 401
        for header in ("Authorization: Bearer secret", "x-api-key: secret"):
            assert curl(f"{url}/v1/models", "-H", header)[0] == 200
        assert curl(f"{url}/health")[2]["status"] == "ok"
