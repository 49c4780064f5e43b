"""What is sent again under the same key is not done again."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest

from conjure.media import encode
from conjure.media.image import Image
from conjure.serve import idempotency
from conjure.serve.settings import Settings
from tests.serve.running import running

DRAW = {"inputs": ["a red apple"], "to": "image", "options": {"steps": 1}}  # the seed is drawn for each


def send(url: str, path: str, body: Any, key: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    try:
        given = {"Content-Type": "application/json"} | {name.replace("_", "-"): each for name, each in headers.items()}
        packed = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, packed, given | ({"Idempotency-Key": key} if key else {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_the_same_key_gives_the_same_answer(place: str) -> None:
    first, second = (send(place, "/v1/make", DRAW, "one") for _ in range(2))
    assert first[0] == 200 and second[2] == first[2] and second[1]["content-type"] == "application/json"
    assert second[1]["idempotent-replayed"] == "true" and "idempotent-replayed" not in first[1]
    for other in (send(place, "/v1/make", DRAW), send(place, "/v1/make", DRAW, "two"),
                  send(place, "/v1/make", DRAW, "one", Authorization="Bearer other")):  # fmt: skip
        assert other[0] == 200 and json.loads(other[2])["seeds"] != json.loads(first[2])["seeds"]


def test_the_same_key_with_another_body_is_a_conflict_that_clients_do_not_retry(place: str) -> None:
    assert send(place, "/v1/make", DRAW, "three")[0] == 200
    status, headers, body = send(place, "/v1/make", DRAW | {"count": 2}, "three")
    assert status == 409 and headers["x-should-retry"] == "false"
    assert json.loads(body)["error"]["code"] == "idempotency_key_reused"
    with openai.OpenAI(base_url=f"{place}/v1", api_key="any", max_retries=2) as client:
        named = {"Idempotency-Key": "four"}
        chat = [{"role": "user", "content": "What is 3 plus 4?"}]
        made = [client.chat.completions.create(model="starter/chat", messages=chat, max_tokens=4,  # type: ignore[arg-type]
                                               extra_headers=named) for _ in range(2)]  # fmt: skip
        assert made[0].id == made[1].id
        began = time.monotonic()
        with pytest.raises(openai.ConflictError):
            client.chat.completions.create(model="starter/chat", messages=chat, max_tokens=5,  # type: ignore[arg-type]
                                           extra_headers=named)  # fmt: skip
        assert time.monotonic() - began < 60
    assert send(place, "/v1/make", DRAW, "x" * 256)[0] == 400


def test_who_comes_meanwhile_waits_for_the_first(place: str) -> None:
    wish = DRAW | {"options": {"steps": 15}}
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(send(place, "/v1/make", wish, "five")[2]))
               for _ in range(3)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3 and len(set(answers)) == 1


def test_when_the_first_goes_away_the_next_does_it(place: str) -> None:
    wish = json.dumps(DRAW | {"options": {"steps": 400}}).encode()
    address = urlsplit(place)
    first = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    first.request("POST", "/v1/make", wish, {"Content-Type": "application/json", "Idempotency-Key": "six"})
    time.sleep(0.5)
    answers: list[int] = []
    quick = json.dumps(DRAW).encode()
    other = threading.Thread(target=lambda: answers.append(send(place, "/v1/make", quick, "six")[0]))
    other.start()
    other.join()
    assert answers == [409], "the first is still at work, and asked for something else"
    first.close()
    end = time.monotonic() + 60
    while (found := send(place, "/v1/make", quick, "six")[0]) == 409 and time.monotonic() < end:
        time.sleep(0.1)
    assert found == 200


def test_what_failed_may_be_tried_again(place: str) -> None:
    assert send(place, "/v1/make", DRAW | {"to": "hologram"}, "seven")[0] == 400
    assert send(place, "/v1/make", DRAW, "seven")[0] == 200


def test_a_stream_is_sent_again_whole(place: str) -> None:
    first, second = (send(place, "/v1/make", DRAW | {"stream": True}, "eight") for _ in range(2))
    assert first[1]["content-type"].startswith("text/event-stream") and b"event: result" in first[2]
    assert second[2] == first[2] and second[1]["content-type"] == first[1]["content-type"]


def test_a_form_is_the_same_under_another_boundary(place: str) -> None:
    picture = encode(Image(np.full((32, 32, 3), 250, np.uint8)), ".png")

    def form(boundary: str) -> bytes:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode()
        return head + picture + f"\r\n--{boundary}--\r\n".encode()

    answers = [send(place, "/v1/images/variations", form(each), "nine",
                    Content_Type=f"multipart/form-data; boundary={each}") for each in ("aaaa1", "bbbb2")]  # fmt: skip
    assert answers[0][0] == 200 and answers[1][2] == answers[0][2]


def test_answers_are_dropped_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST", 1)
    with running(Settings()) as url:
        first = send(url, "/v1/make", DRAW, "a")[2]
        assert send(url, "/v1/make", DRAW, "a")[2] == first
        send(url, "/v1/make", DRAW, "b")
        again = send(url, "/v1/make", DRAW, "a")[2]
        assert again != first
        monkeypatch.setattr(idempotency, "SECONDS", -1.0)
        assert send(url, "/v1/make", DRAW, "c")[2] != send(url, "/v1/make", DRAW, "c")[2]
