"""A small web server that stands in for an origin: ranges, validators, cut connections, other answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class StandIn:
    """What is served, how, and what was asked for: (path, Range, If-Range) of every request."""

    files: dict[str, bytes]
    etag: str = '"v1"'
    modified: str = ""
    cut_after: int = 0  # bytes of a body after which the connection is closed; 0 for never
    status: int = 0  # instead of an answer
    ranges: bool = True
    url: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[StandIn]:
    """Serves `files` on a free port of this machine until the block ends."""
    stand_in = StandIn(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, stand_in)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the parent's)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, stand_in: StandIn) -> None:
    asked, condition = handler.headers.get("Range", ""), handler.headers.get("If-Range", "")
    stand_in.requests.append((handler.path, asked, condition))
    data = stand_in.files.get(handler.path.lstrip("/"))
    if stand_in.status or data is None:
        handler.send_error(stand_in.status or 404)
        return
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and stand_in.ranges else 0
    if condition not in (stand_in.etag, stand_in.modified):  # another version now: all of it
        start = 0
    if start and start >= len(data):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    for name, value in (("ETag", stand_in.etag), ("Last-Modified", stand_in.modified)):
        if value:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    body = data[start:]
    handler.wfile.write(body[: stand_in.cut_after] if stand_in.cut_after else body)
    handler.close_connection = True
