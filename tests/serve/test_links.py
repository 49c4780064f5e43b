"""Links of clients: followed only where the server was told to, and never into a network that is not public."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conjure.serve.errors import ApiError
from conjure.serve.links import AT_ONCE, Fetcher, is_public
from conjure.serve.settings import Settings
from conjure.serve.state import Server

PUBLIC = "93.184.216.34"
PICTURE = b"\x89PNG and so on"


class Handler(BaseHTTPRequestHandler):
    """What stands behind the links of these tests."""

    asked: Sequence[str] = ()

    def do_GET(self) -> None:
        type(self).asked = (*self.asked, f"{self.headers['Host']}{self.path}")
        where = {"/metadata": "http://169.254.169.254/latest", "/own": "http://localhost/", "/file": "file:///etc/passwd",
                 "/round": "/round", "/moved": "http://other.example/picture", "/port": "http://public.example:22/",
                 "/named": "http://inside.example/"}.get(self.path)  # fmt: skip
        if where is not None:
            self.send_response(302)
            self.send_header("Location", where)
            self.end_headers()
        elif self.path == "/none":
            self.send_error(404)
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.send_response(200)
            size = {"/large": 10_000, "/short": 100}.get(self.path, len(PICTURE))
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(b"x" * 10_000 if self.path == "/large" else PICTURE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.asked = ()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # clients that are cut off
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


Make = Callable[..., Fetcher]


@pytest.fixture
def fetcher(server: ThreadingHTTPServer) -> Make:
    """One for which all names but those with "inside" are public; every public address leads to the test's server."""

    def made(hosts: Sequence[str] = "*", addresses: dict[str, list[str]] | None = None, **more: float) -> Fetcher:
        def resolve(host: str, port: int) -> list[str]:
            return (addresses or {}).get(host) or (["10.0.0.7"] if "inside" in host else [PUBLIC])

        def connect(address: str, port: int, seconds: float) -> socket.socket:
            assert address == PUBLIC, f"{address} was connected to"
            return socket.create_connection(server.server_address[:2], seconds)  # type: ignore[arg-type]

        return Fetcher(frozenset(hosts), resolve, connect, **{"most": 5000, "seconds": 10.0, **more})  # type: ignore[arg-type]

    return made


def refused(fetch: Fetcher, link: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        fetch.fetch(link, "inputs[0]")
    assert caught.value.param == "inputs[0]"
    return caught.value


def test_content_comes_by_the_name_and_along_redirects(fetcher: Make) -> None:
    assert fetcher().fetch("http://public.example/picture?x=1", "inputs[0]") == PICTURE
    assert fetcher().fetch("http://public.example/moved", "inputs[0]") == PICTURE
    assert Handler.asked == ("public.example/picture?x=1", "public.example/moved", "other.example/picture")


@pytest.mark.parametrize("path", ["metadata", "own", "file", "round", "port", "named", "none", "short"])
def test_no_redirect_leads_where_a_link_may_not(fetcher: Make, path: str) -> None:
    addresses = {"169.254.169.254": ["169.254.169.254"], "localhost": ["127.0.0.1", "::1"]}
    assert refused(fetcher(addresses=addresses), f"http://public.example/{path}").status == 400


def test_names_that_lead_inside_are_refused_whatever_else_they_say(fetcher: Make) -> None:
    """One public address among others does not help, and a name that says something else the second time is not asked
    a second time."""
    mixed = fetcher(addresses={"mixed.example": [PUBLIC, "127.0.0.1"], "none.example": []})
    assert "not public" in refused(mixed, "http://mixed.example/").message
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    def connect(address: str, port: int, seconds: float) -> socket.socket:
        assert address == PUBLIC
        raise ConnectionRefusedError

    assert "could not be fetched" in refused(Fetcher(frozenset("*"), resolve, connect), "http://rebound.example/").message
    assert asked == ["rebound.example"]


def test_only_hosts_that_were_named(fetcher: Make) -> None:
    some = fetcher(["public.example"])
    assert some.fetch("http://PUBLIC.example/picture", "inputs[0]") == PICTURE
    for link in ("http://other.example/", "http://public.example.evil.example/", "http://public.example/moved",
                 "http://public.example@other.example/"):  # fmt: skip
        assert refused(some, link).status == 400


@pytest.mark.parametrize(
    "link",
    ["ftp://public.example/", "http://", "http:///etc/passwd", "http://a:b@public.example/",
     "http://public.example:22/", "http://public.example:99999/", "http://public.example/\r\nHost: inside",
     "http://[::1", "http://pub lic.example/"],
)  # fmt: skip
def test_what_is_no_address_of_the_web(fetcher: Make, link: str) -> None:
    assert refused(fetcher(), link).status == 400 and Handler.asked == ()


def test_large_and_slow_content_ends(fetcher: Make) -> None:
    assert refused(fetcher(), "http://public.example/large").status == 413
    began = time.monotonic()
    assert refused(fetcher(seconds=0.5), "http://public.example/slow").status == 400
    assert time.monotonic() - began < 4


def test_only_so_many_at_once(fetcher: Make) -> None:
    one = fetcher()
    for _ in range(AT_ONCE):
        assert one._room.acquire(blocking=False)
    error = refused(one, "http://public.example/picture")
    assert error.status == 429 and (error.headers or {})["Retry-After"]


def test_which_addresses_are_public() -> None:
    for address in (PUBLIC, "8.8.8.8", "2606:4700::1111"):
        assert is_public(address), address
    for address in (
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1",
        "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:0:1::", "no address",
    ):  # fmt: skip
        assert not is_public(address), address


def test_no_link_is_followed_unless_it_is_said(tmp_path: object) -> None:
    home = Server(Settings())
    assert home.fetch is None
    home.jobs.stop()
    home = Server(Settings(links_from=frozenset({"public.example"})))
    assert home.fetch is not None
    with pytest.raises(ApiError, match="does not fetch from localhost"):
        home.fetch("http://localhost/", "inputs[0]")
    home.jobs.stop()
