"""Attacks on the door: other sites' pages, rebound names, missing keys, large and slow bodies, names that climb."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from conjure.serve.settings import Limits, Settings, is_loopback, secured
from tests.serve.running import running

LIMITS = Limits(body_bytes=20_000, body_seconds=1.0, queue=2)


@pytest.fixture(scope="module")
def open_place() -> Iterator[str]:
    with running(Settings(limits=LIMITS)) as url:
        yield url


@pytest.fixture(scope="module")
def locked_place() -> Iterator[str]:
    with running(Settings(key="correct horse", origins=frozenset({"https://app.example"}))) as url:
        yield url


def ask(
    url: str, path: str = "/v1/models", method: str = "GET", body: bytes | None = None, /, **headers: str
) -> tuple[int, dict[str, object]]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=200)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


def code(answer: tuple[int, dict[str, object]]) -> tuple[int, object]:
    error = answer[1].get("error")
    assert isinstance(error, dict), answer
    return answer[0], error["code"]


def test_it_answers_its_own_name_only(open_place: str) -> None:
    assert ask(open_place)[0] == 200 and ask(open_place, Host="localhost:1")[0] == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8001", ""):
        assert code(ask(open_place, Host=name)) == (403, "host_not_allowed"), name


def test_other_sites_pages_cannot_drive_it(open_place: str, locked_place: str) -> None:
    own = open_place.removesuffix("/")
    assert ask(open_place, Origin=own)[0] == 200
    for origin in ("https://evil.example", "null", "http://localhost:1", f"{own}.evil.example", "file://"):
        assert code(ask(open_place, Origin=origin)) == (403, "origin_not_allowed"), origin
        assert code(ask(open_place, "/v1/make", "POST", b"{}", Origin=origin)) == (403, "origin_not_allowed")
    for site in ("cross-site", "same-site"):
        assert code(ask(open_place, Sec_Fetch_Site=site)) == (403, "origin_not_allowed")
        assert code(ask(open_place, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")) == (403, "origin_not_allowed")
    assert ask(open_place, Sec_Fetch_Site="same-origin")[0] == 200
    key = {"Authorization": "Bearer correct horse"}
    assert ask(locked_place, Origin="https://app.example", **key)[0] == 200
    assert code(ask(locked_place, Origin="https://other.example", **key)) == (403, "origin_not_allowed")


def test_keys(locked_place: str, open_place: str) -> None:
    assert ask(locked_place, Authorization="Bearer correct horse")[0] == 200
    assert ask(locked_place, x_api_key="correct horse")[0] == 200
    assert ask(locked_place, "/health")[0] == 200 and ask(open_place, Authorization="Bearer anything")[0] == 200
    for given in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer correct"}, {"x_api_key": "wrong"}):
        for path in ("/v1/models", "/docs", "/openapi.json", "/v1/routes", "/nothing"):
            assert code(ask(locked_place, path, **given)) == (401, "invalid_api_key"), (given, path)


def test_addresses_that_others_reach_have_a_key() -> None:
    assert [is_loopback(name) for name in ("localhost", "127.3.2.1", "::1", "0.0.0.0", "10.0.0.1", "example.org")] == [
        True, True, True, False, False, False]  # fmt: skip
    assert secured(Settings()).key == "" and secured(Settings(host="0.0.0.0", key="mine")).key == "mine"
    drawn = {secured(Settings(host="0.0.0.0")).key for _ in range(3)}
    assert len(drawn) == 3 and min(map(len, drawn)) >= 32


def test_bodies_too_large_are_refused_early(open_place: str) -> None:
    assert code(ask(open_place, "/v1/make", "POST", b"x" * 20_001)) == (413, "request_too_large")
    place = urlsplit(open_place)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as raw:
        raw.sendall(b"POST /v1/make HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        for _ in range(3):
            raw.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert b" 413 " in raw.recv(200)


def test_slow_clients_are_sent_away_and_stop_nobody(open_place: str) -> None:
    place = urlsplit(open_place)
    slow = [socket.create_connection((place.hostname or "", place.port or 0), timeout=10) for _ in range(200)]
    try:
        for raw in slow:
            raw.sendall(b"POST /v1/make HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 100\r\n\r\n{")  # fmt: skip
        began = time.monotonic()
        assert ask(open_place, "/health")[0] == 200 and time.monotonic() - began < 5
        assert all(b" 408 " in raw.recv(200) for raw in slow)
    finally:
        for raw in slow:
            raw.close()


@pytest.mark.parametrize(
    "path",
    ["/media/../../etc/passwd", "/media/%2e%2e%2fetc%2fpasswd", "/v1/models/../../etc", "/v1/models//etc/passwd",
     "/media/x" * 50, "/%00", "/v1/models/starter/../starter/story"],
)  # fmt: skip
def test_names_that_climb_lead_nowhere(open_place: str, path: str) -> None:
    status, body = ask(open_place, path)
    assert status == 404 and "root:" not in str(body)


def test_what_is_no_request_gets_the_one_form_of_error(open_place: str) -> None:
    json_type = {"Content-Type": "application/json"}
    for method, path, body, status in (
        ("GET", "/v1/nothing", None, 404), ("DELETE", "/v1/make", None, 405), ("POST", "/v1/make", b"{", 400),
        ("POST", "/v1/make", b"[]", 400), ("POST", "/v1/make", b'{"inputs": []}', 400),
        ("POST", "/v1/make", b'{"inputs": ["x"], "colour": 1}', 400), ("POST", "/v1/make", b"\xff\xfe", 400),
        ("POST", "/v1/make", b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    ):  # fmt: skip
        answer = ask(open_place, path, method, body, **json_type)
        assert answer[0] == status and set(answer[1]) == {"error"}, (path, body, answer)
        assert set(answer[1]["error"]) == {"message", "type", "param", "code"}  # type: ignore[arg-type]


def test_too_many_wait(open_place: str) -> None:
    wish = json.dumps({"inputs": ["a cat"], "to": "image", "options": {"steps": 3}, "seed": 1}).encode()
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(
            ask(open_place, "/v1/make", "POST", wish, Content_Type="application/json")[0]))
        for _ in range(8)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {200, 429} and answers.count(200) >= 2
