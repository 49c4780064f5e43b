"""What a request asks for is done or refused by name: nothing of it is passed over in silence."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from conjure.media import encode
from conjure.media.image import Image
from conjure.serve.settings import Limits, Settings
from tests.serve.running import running

SAID = {"model": "starter/chat", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]}
INPUT = {"model": "starter/chat", "max_output_tokens": 2, "input": "Hello"}
TOOL = {"name": "web", "type": "web_search_20250305"}


def post(url: str, path: str, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


@pytest.mark.parametrize(
    ("path", "asked", "more", "param"),
    [
        ("/v1/chat/completions", SAID, {"modalities": ["text", "audio"]}, "modalities"),
        ("/v1/chat/completions", SAID, {"audio": {"voice": "x"}}, "audio"),
        ("/v1/chat/completions", SAID, {"web_search_options": {"x": 1}}, "web_search_options"),
        ("/v1/chat/completions", SAID, {"functions": [{"name": "f"}]}, "functions"),
        ("/v1/chat/completions", SAID, {"stream_options": {"include_usage": True}}, "stream_options"),
        ("/v1/chat/completions", SAID, {"stream": True, "stream_options": {"colour": 1}}, "colour"),
        ("/v1/chat/completions", SAID, {"stop": ["x"] * 33}, "stop"),
        ("/v1/responses", INPUT, {"background": True}, "background"),
        ("/v1/responses", INPUT, {"previous_response_id": "resp_1"}, "previous_response_id"),
        ("/v1/responses", INPUT, {"include": ["message.output_text.logprobs"]}, "include"),
        ("/v1/responses", INPUT, {"include": True}, "include"),
        ("/v1/responses", INPUT, {"top_logprobs": 3}, "top_logprobs"),
        ("/v1/responses", INPUT, {"truncation": "middle"}, "truncation"),
        ("/v1/responses", INPUT, {"text": {"colour": 1}}, "colour"),
        ("/v1/messages", SAID, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ("/v1/messages", SAID, {"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ("/v1/messages", SAID, {"container": "x"}, "container"),
        ("/v1/messages", SAID, {"tools": [TOOL]}, "tools"),
        ("/v1/messages/count_tokens", {"messages": SAID["messages"]}, {"colour": 1}, "colour"),
        ("/v1/embeddings", {"input": "x"}, {"colour": 1}, "colour"),
        ("/v1/embeddings", {}, {"input": [10**12]}, "input"),
        ("/v1/images/generations", {"prompt": "x"}, {"background": "transparent"}, "background"),
        ("/v1/images/generations", {"prompt": "x"}, {"quality": "hd"}, "quality"),
        ("/v1/images/generations", {"prompt": "x"}, {"style": "vivid"}, "style"),
        ("/v1/images/generations", {"prompt": "x"}, {"output_compression": 50}, "output_compression"),
    ],
)
def test_what_is_not_done_is_refused(
    place: str, path: str, asked: dict[str, Any], more: dict[str, Any], param: str
) -> None:
    status, body = post(place, path, json.dumps(asked | more).encode())
    assert status == 400 and body["error"]["param"] == param, body


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", SAID | {"modalities": ["text"], "audio": None, "store": True, "user": "me"}),
        ("/v1/responses", INPUT | {"background": False, "truncation": "auto", "top_logprobs": 0, "store": False,
                                   "include": ["reasoning.encrypted_content"], "metadata": {"a": "b"}}),
        ("/v1/messages", SAID | {"thinking": {"type": "disabled"}, "mcp_servers": [], "metadata": {"user_id": "me"}}),
        ("/v1/images/generations", {"prompt": "x", "steps": 1, "background": "auto", "quality": "standard",
                                    "output_compression": 100, "user": "me", "style": None}),
    ],
)  # fmt: skip
def test_what_asks_for_nothing_else_is_taken(place: str, path: str, asked: dict[str, Any]) -> None:
    status, body = post(place, path, json.dumps(asked).encode())
    assert status == 200, body
    if path == "/v1/responses":
        assert body["metadata"] == {"a": "b"}


def test_a_picture_that_is_changed_keeps_its_size_and_says_so(place: str) -> None:
    picture = encode(Image(np.full((48, 32, 3), 250, np.uint8)), ".png")

    def form(**fields: str) -> bytes:
        parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
                 for name, value in fields.items()]  # fmt: skip
        head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        return b"".join([*parts, head, picture, b"\r\n--b--\r\n"])

    kind = "multipart/form-data; boundary=b"
    status, body = post(place, "/v1/images/variations", form(size="256x256"), kind)
    assert (status, body["error"]["param"]) == (400, "size") and "32x48" in body["error"]["message"]
    status, body = post(place, "/v1/images/edits", form(size="256x256", prompt="a cat"), kind)
    assert (status, body["error"]["param"]) == (400, "size")
    status, body = post(place, "/v1/images/variations", form(size="32x48"), kind)
    assert status == 200 and body["size"] == "32x48"
    twice = b'--b\r\nContent-Disposition: form-data; name="size"\r\n\r\nauto\r\n' * 2 + form()
    status, body = post(place, "/v1/images/variations", twice, kind)
    assert (status, body["error"]["param"]) == (400, "size")
    many = b"".join(b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nx\r\n'
                    for _ in range(17)) + b"--b--\r\n"  # fmt: skip
    assert post(place, "/v1/images/variations", many, kind)[0] == 413


def test_texts_are_bounded_before_they_cost_anything() -> None:
    with running(Settings(limits=Limits(texts=0, inputs=2, characters=1000, queue=2))) as url:
        for path, asked, status in (
            ("/v1/embeddings", {"input": ["x"] * 3}, 413), ("/v1/embeddings", {"input": "x" * 1001}, 413),
            ("/v1/completions", {"prompt": ["x"] * 3}, 413), ("/v1/chat/completions", SAID, 429),
            ("/v1/make", {"inputs": ["x" * 600, "x" * 600], "to": "text"}, 413),
            ("/v1/images/generations", {"prompt": "x" * 1001}, 413),
        ):  # fmt: skip
            assert post(url, path, json.dumps(asked).encode())[0] == status, path
    with running(Settings()) as url:
        long = SAID | {"messages": [{"role": "user", "content": "x" * 300_000}]}
        status, body = post(url, "/v1/chat/completions", json.dumps(long).encode())
        assert status == 413 and body["error"]["code"] == "context_length_exceeded"
