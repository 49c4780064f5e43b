"""What lies behind links of clients, where the server was told to follow them.

Whoever sends a link makes this machine send a request, from inside whatever network it stands in. So a name is
resolved once, every address that it has must be public, and the connection goes to the address that was looked at,
whatever the name says a moment later; each step of a redirect is looked at in the same way.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from urllib.parse import SplitResult, urljoin, urlsplit

from conjure.serve.errors import ApiError

STEPS = 4  # requests for one link, redirects with it
AT_ONCE = 8
MOST_BYTES = 32 << 20
SECONDS = 20.0
PORTS = {"http": 80, "https": 443}
_MOVED = (301, 302, 303, 307, 308)

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]


def resolved(host: str, port: int) -> Sequence[str]:
    """The addresses of a name."""
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def connected(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), seconds)


def is_public(address: str) -> bool:
    """Whether an address is one of the open network: none of this machine, its networks, or any special range; nor one
    that only wraps such an address."""
    try:
        its = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(its, ipaddress.IPv6Address):
        if its.ipv4_mapped is not None:
            return is_public(str(its.ipv4_mapped))
        if its.sixtofour is not None or its.teredo is not None or its in _TRANSLATED:
            return False
    return its.is_global and not its.is_multicast


_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


class Fetcher:
    """Fetches from `hosts` ("*" for any); `fetch` blocks and may be called by several threads."""

    def __init__(
        self, hosts: frozenset[str], resolve: Resolve = resolved, connect: Connect = connected,
        most: int = MOST_BYTES, seconds: float = SECONDS,
    ) -> None:  # fmt: skip
        self._hosts, self._resolve, self._connect = hosts, resolve, connect
        self._most, self._seconds = most, seconds
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def fetch(self, link: str, param: str) -> bytes:
        """The bytes behind a link; `ApiError` with the name of the parameter for whatever stands in the way."""
        if not self._room.acquire(blocking=False):
            raise ApiError(429, "too many links are being followed", param=param, code="too_many_links")
        try:
            until = time.monotonic() + self._seconds
            for _ in range(STEPS):
                found = self._step(link, param, until)
                if isinstance(found, bytes):
                    return found
                link = urljoin(link, found)
            raise _refused(param, "it leads on and on")
        except (OSError, http.client.HTTPException) as error:
            raise _refused(param, f"it could not be fetched: {type(error).__name__}") from None
        finally:
            self._room.release()

    def _step(self, link: str, param: str, until: float) -> bytes | str:
        """The content, or where it is said to be."""
        place = self._checked(link, param)
        host, port = place.hostname or "", place.port or PORTS[place.scheme]
        addresses = list(self._resolve(host, port))
        if not addresses or not all(map(is_public, addresses)):
            raise _refused(param, "it leads into a network that is not public")
        plain = self._connect(addresses[0], port, _left(until, param))
        stream = plain
        if place.scheme == "https":
            stream = self._secured(plain, host)
        with _ended(stream, until):
            if isinstance(stream, ssl.SSLSocket):
                stream.do_handshake()
            with closing(http.client.HTTPConnection(host, port)) as connection:
                connection.sock = stream
                path = (place.path or "/") + (f"?{place.query}" if place.query else "")
                connection.request("GET", path, headers={"Accept": "*/*", "Accept-Encoding": "identity",
                                                         "User-Agent": "conjure"})  # fmt: skip
                with closing(connection.getresponse()) as answer:
                    if answer.status in _MOVED and (where := answer.getheader("Location")):
                        return where
                    if answer.status != 200:
                        raise _refused(param, f"its server answered {answer.status}")
                    data = answer.read(self._most + 1)
                    if answer.length and len(data) <= self._most:
                        raise _refused(param, "its content ended early")
        if time.monotonic() > until:  # cut off, and perhaps in the middle
            raise _refused(param, f"it took more than {self._seconds:g} seconds")
        if len(data) > self._most:
            raise ApiError(413, f"{param}: expected at most {self._most:,} bytes behind the link", param=param)
        return data

    def _checked(self, link: str, param: str) -> SplitResult:
        if any(ord(letter) < 33 or ord(letter) == 127 for letter in link):
            raise _refused(param, "it is no address")
        try:
            place = urlsplit(link)
            port = place.port
        except ValueError:
            raise _refused(param, "it is no address") from None
        if place.scheme not in PORTS or not place.hostname or place.username or place.password:
            raise _refused(param, "expected http:// or https:// and a host")
        if port not in (None, *PORTS.values()):
            raise _refused(param, f"port {port} is not one of the web")
        if "*" not in self._hosts and place.hostname.lower() not in self._hosts:
            raise _refused(param, f"this server does not fetch from {place.hostname}")
        return place

    def _secured(self, plain: socket.socket, host: str) -> ssl.SSLSocket:
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)


@contextmanager
def _ended(stream: socket.socket, until: float) -> Iterator[None]:
    """A connection that is cut off when the time is up, however little by little something comes."""

    def cut() -> None:
        with suppress(OSError):  # it is closed already
            socket.socket.shutdown(stream, socket.SHUT_RDWR)  # without a word to the other side, as TLS would have it

    timer = threading.Timer(max(0.0, until - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        stream.close()


def _left(until: float, param: str) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise _refused(param, "it takes too long")
    return left


def _refused(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: the link was not followed: {why}", param=param, code="remote_url_not_allowed")
