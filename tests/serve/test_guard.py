"""Attacks on the door: other sites' pages, rebound names, missing keys, large and slow bodies, names that climb."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from conjure.media import encode
from conjure.media.image import Image
from conjure.serve.errors import ApiError
from conjure.serve.guard import Guard
from conjure.serve.listening import more_files
from conjure.serve.settings import Limits, Settings, is_loopback, secured
from tests.serve.running import running

LIMITS = Limits(body_bytes=20_000, body_seconds=2.0, head_seconds=2.0, stall_seconds=1.0, queue=2, files=3,
                pixels=20_000)  # fmt: skip


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


def raw(url: str, text: str) -> str:
    """All that is answered to some bytes, after which the server closes."""
    place = urlsplit(url)
    came = b""
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as line:
        line.sendall(text.encode())
        while part := line.recv(1 << 16):
            came += part
    return came.decode("latin-1")


def test_a_browser_trades_the_key_for_a_cookie(locked_place: str, open_place: str) -> None:
    head = "Host: localhost\r\nConnection: close\r\n"
    entered = raw(locked_place, f"GET /enter?key=correct%20horse HTTP/1.1\r\n{head}\r\n")
    assert entered.startswith("HTTP/1.1 303") and "\r\nlocation: /\r\n" in entered
    cookie = next(line for line in entered.split("\r\n") if line.lower().startswith("set-cookie: ")).partition(": ")[2]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "horse" not in cookie
    pair = cookie.partition(";")[0]
    assert ask(locked_place, Cookie=f"other=1; {pair}")[0] == 200
    name, _, value = pair.partition("=")
    for forged in (f"{name}=", f"{name}={value[:-1]}x", f"other={value}", "conjure_key=correct horse", name):
        assert code(ask(locked_place, Cookie=forged)) == (401, "invalid_api_key"), forged
    assert code(ask(locked_place, Cookie=pair, Origin="https://evil.example")) == (403, "origin_not_allowed")
    assert code(ask(locked_place, Cookie=pair, Sec_Fetch_Site="cross-site")) == (403, "origin_not_allowed")
    for wrong in ("/enter", "/enter?key=", "/enter?key=correct", "/enter?key=correct%20horse%00"):
        assert ask(locked_place, wrong)[0] == 401
    elsewhere = f"{head}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"
    assert "http-equiv" in raw(locked_place, f"GET /enter?key=correct+horse HTTP/1.1\r\n{elsewhere}\r\n")
    assert raw(open_place, f"GET /enter?key=//evil.example HTTP/1.1\r\n{head}\r\n").startswith("HTTP/1.1 303")


def test_who_opens_a_page_without_the_key_is_asked_for_it(locked_place: str) -> None:
    head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    page = raw(locked_place, f"{head}Accept: text/html\r\n\r\n")
    assert page.startswith("HTTP/1.1 401") and '<input name="key" type="password"' in page
    assert raw(locked_place, f"{head}\r\n").count("invalid_api_key") == 1


def test_answers_are_for_pages_of_this_server_alone(locked_place: str) -> None:
    key = "Host: localhost\r\nConnection: close\r\nx-api-key: correct horse\r\n"
    answer = raw(locked_place, f"GET /v1/models HTTP/1.1\r\n{key}\r\n").lower()
    for line in ("x-content-type-options: nosniff", "referrer-policy: no-referrer", "x-frame-options: deny",
                 "content-security-policy: default-src 'none'",
                 "cross-origin-resource-policy: same-origin"):  # fmt: skip
        assert line in answer, line
    assert "access-control" not in answer
    asked = raw(locked_place, "OPTIONS /v1/make HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n"
                "Access-Control-Request-Headers: authorization\r\nConnection: close\r\n\r\n").lower()  # fmt: skip
    assert asked.startswith("http/1.1 204") and "access-control-allow-origin: https://app.example" in asked
    assert "access-control-allow-headers: authorization" in asked
    let_in = raw(locked_place, f"GET /v1/models HTTP/1.1\r\n{key}Origin: https://app.example\r\n\r\n").lower()
    assert "access-control-allow-origin: https://app.example" in let_in and "vary: origin" in let_in


def test_websockets_go_by_the_same_rules(open_place: str) -> None:
    upgrade = ("GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")  # fmt: skip
    assert raw(open_place, f"{upgrade}Host: localhost\r\n\r\n").startswith("HTTP/1.1 403"), "there are none"
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    async def tried(settings: Settings, **headers: str) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        given = [(name.encode(), value.encode()) for name, value in headers.items()]
        await Guard(app, settings)({"type": "websocket", "path": "/x", "headers": given}, None, send)  # type: ignore[arg-type]
        return sent

    studio, locked = Settings(studio=True), Settings(studio=True, key="k")
    for settings, headers, passes in (
        (studio, {"host": "localhost:1", "origin": "http://localhost:1"}, True),
        (studio, {"host": "localhost:1", "origin": "https://evil.example"}, False),
        (studio, {"host": "evil.example", "origin": "http://evil.example"}, False),
        (locked, {"host": "h:1", "origin": "http://h:1"}, False),
        (locked, {"host": "h:1", "origin": "http://h:1", "x-api-key": "k"}, True),
        (Settings(), {"host": "localhost:1"}, False),
    ):
        asked.clear()
        sent = asyncio.run(tried(settings, **headers))
        assert (asked, sent) == ((["websocket"], []) if passes else ([], ["websocket.close"])), headers


def test_keys_are_never_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level("DEBUG"), running(Settings(key="hush-hush-key")) as url:
        for path, headers in (("/enter?key=hush-hush-key", {}), ("/enter?key=hush-hush-kez", {}), ("/v1/models", {}),
                              ("/v1/history", {"Authorization": "Bearer hush-hush-key"})):  # fmt: skip
            raw(url, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n")  # fmt: skip
        raw(url, "GET /enter?key=hush-hush-key no HTTP\r\n\r\n")
    said = caplog.text + "".join(capfd.readouterr())
    assert "hush-hush" not in said


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


SLOW = 1000
"""Clients at once, in the tests of slow ones: each takes two open files of this process, where the server is, too."""


def lines(url: str, text: str, count: int = SLOW) -> list[socket.socket]:
    """Connections on which a beginning was sent and nothing follows."""
    place = urlsplit(url)
    made = []
    for _ in range(count):
        made.append(socket.create_connection((place.hostname or "", place.port or 0), timeout=30))
        made[-1].sendall(text.encode())
    return made


def closed(made: list[socket.socket]) -> None:
    for each in made:
        each.close()


POST = "POST /v1/make HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("text", "answer"),
    [(f"{POST}Content-Length: 100\r\n\r\n{{", b" 408 "), ("GET /v1/models HTTP/1.1\r\nHost: loc", b""), ("", b"")],
    ids=["slow bodies", "slow heads", "silence"],
)
def test_slow_clients_are_sent_away_and_stop_nobody(open_place: str, text: str, answer: bytes) -> None:
    more_files()
    slow = lines(open_place, text)
    try:
        assert ask(open_place, "/health")[0] == 200 and ask(open_place)[0] == 200
        for each in slow:
            try:
                came = each.recv(200)
            except ConnectionResetError:
                came = b""
            assert answer in came and bool(answer) == bool(came)
    finally:
        closed(slow)


def test_who_begins_a_second_head_is_not_waited_for_either(open_place: str) -> None:
    head = "GET /health HTTP/1.1\r\nHost: localhost\r\n"
    (line,) = lines(open_place, f"{head}\r\n", 1)
    assert line.recv(1000).startswith(b"HTTP/1.1 200")
    line.sendall(head.encode())
    with pytest.raises(ConnectionResetError):
        while line.recv(1000):
            pass
        raise ConnectionResetError  # closed in peace will do, too
    closed([line])


def test_who_does_not_take_the_answer_is_cut_off(open_place: str) -> None:
    """Answers into connections that nobody reads: others are served meanwhile, and the connections end."""
    asked = "GET /v1/routes HTTP/1.1\r\nHost: localhost\r\n\r\n"
    place = urlsplit(open_place)
    deaf = []
    for _ in range(5):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((place.hostname or "", place.port or 0))
        line.sendall(asked.encode() * 100)
        deaf.append(line)
    try:
        assert ask(open_place, "/health")[0] == 200
        end = time.monotonic() + 60
        while time.monotonic() < end and any(_open(each) for each in deaf):
            time.sleep(0.1)
        assert not any(_open(each) for each in deaf)
    finally:
        closed(deaf)


def _open(line: socket.socket) -> bool:
    """Whether the other side still holds a connection whose answer was not read."""
    try:
        line.send(b"\r\n", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


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
        ("POST", "/v1/make", b'{"inputs": [{"text": "\\ud800"}], "to": "image"}', 400),
        ("POST", "/v1/jobs", b'{"inputs": ["x", {"text": "\\udfff"}]}', 400),
        ("POST", "/v1/make", b'{"inputs": ["x"], "options": {"\\ud800": "\\ud800"}}', 400),
        ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        ("POST", "/v1/messages/count_tokens", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        ("POST", "/v1/embeddings", b'{"input": "\\ud800"}', 400),
        ("POST", "/v1/completions", b'{"prompt": "x", "stop": "\\ud800"}', 400),
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


def picture(side: int) -> dict[str, str]:
    """A square with a square in it, which can be cut out."""
    pixels = np.full((side, side, 3), 250, np.uint8)
    pixels[side // 4 : side // 2, side // 4 : side // 2] = (200, 30, 40)
    return {"b64": base64.b64encode(encode(Image(pixels), ".png")).decode()}


def make(url: str, wish: dict[str, Any]) -> tuple[int, dict[str, object]]:
    return ask(url, "/v1/make", "POST", json.dumps(wish).encode(), Content_Type="application/json")


def test_pictures_are_bounded_in_number_and_in_pixels_together(open_place: str) -> None:
    assert make(open_place, {"inputs": [picture(100)], "task": "cutout"})[0] == 200
    status, body = make(open_place, {"inputs": [picture(100)] * 3, "task": "cutout"})
    assert status == 413 and "20,000 pixels together" in str(body)
    status, body = make(open_place, {"inputs": [picture(8)] * 4, "task": "cutout"})
    assert status == 413 and "at most 3 files" in str(body)
    bomb = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    status, body = make(open_place, {"inputs": [{"b64": base64.b64encode(bomb).decode()}], "task": "cutout"})
    assert status in (400, 413) and "error" in body


def test_files_that_are_two_things_at_once_come_out_as_one(open_place: str) -> None:
    """A picture with a page behind its end: what is made of it holds the picture alone."""
    script = b"<script>alert(1)</script>"
    whole = base64.b64decode(picture(20)["b64"]) + script
    status, body = make(open_place, {"inputs": [{"b64": base64.b64encode(whole).decode()}], "task": "cutout"})
    assert status == 200 and script not in base64.b64decode(body["outputs"][0]["b64"])  # type: ignore[index]
    zipped = io.BytesIO(b"PK\x03\x04" + whole).getvalue()
    status, body = make(open_place, {"inputs": [{"b64": base64.b64encode(zipped).decode()}], "task": "cutout"})
    assert status == 400


def test_whoever_is_refused_for_want_of_room_hears_when_to_come_again() -> None:
    assert {ApiError(status, "").headers.get("Retry-After") for status in (429, 503)} == {"5"}  # type: ignore[union-attr]
    assert ApiError(429, "", headers={"Retry-After": "2"}).headers == {"Retry-After": "2"}
    assert "Retry-After" not in (ApiError(400, "").headers or {})
