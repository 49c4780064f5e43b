"""A small web server that stands in for the Hugging Face hub: the API's answer about a model, and its files.

Large files (`lfs`) are redirected to another address, as the hub sends them to its content network; ranges, cut
connections, refusals and wrong content can be asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "org/tiny"
CARD = b"---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n# Tiny\n"


def model_files(weights: bytes = bytes(range(256)) * 40) -> dict[str, bytes]:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "README.md": CARD,
        "model.safetensors": weights,
        "pytorch_model.bin": b"a pickle",
        "onnx/model.onnx": b"another form",
    }


@dataclass
class StandInHub:
    """One repository: what it holds, how it answers, and what it was asked for: (method, path, Range, token)."""

    files: dict[str, bytes] = field(default_factory=model_files)
    large: tuple[str, ...] = ("model.safetensors", "tiny.Q4_K_M.gguf")
    commit: str = "1" * 40
    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    revisions: tuple[str, ...] = ("main",)
    refuse: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    refuse_files: tuple[int, str] | None = None
    cut: list[int] = field(default_factory=list)  # the next bodies of large files end after so many bytes
    sent: dict[str, bytes] = field(default_factory=dict)  # content that differs from what the API says
    ranges: bool = True
    garbage: bool = False
    url: str = ""
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)

    def asked(self, name: str) -> list[str]:
        """The ranges in which the content of a large file was asked for."""
        return [range_ for method, path, range_, _ in self.requests if method == "GET" and path == f"/cdn/{name}"]


def digest(data: bytes, large: bool) -> str:
    return hashlib.sha256(data).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def serve() -> Iterator[StandInHub]:
    """Serves one repository on a free port of this machine until the block ends."""
    hub = StandInHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, hub)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the parent's)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, hub: StandInHub) -> None:
    path = unquote(urlsplit(handler.path).path)
    asked = handler.headers.get("Range", "")
    hub.requests.append((handler.command, path, asked, handler.headers.get("Authorization", "")))
    if hub.refuse:
        _refuse(handler, *hub.refuse)
    elif match := re.fullmatch(rf"/api/models/{REPO}/revision/(.+)", path):
        _tell(handler, hub, match[1])
    elif match := re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", path):
        _resolve(handler, hub, match[1], match[2])
    elif path.startswith("/cdn/"):
        name = path.removeprefix("/cdn/")
        _send(handler, hub, hub.sent.get(name, hub.files[name]), asked, cut=hub.cut.pop(0) if hub.cut else None)
    else:
        _refuse(handler, 404, "RepoNotFound")


def _tell(handler: BaseHTTPRequestHandler, hub: StandInHub, revision: str) -> None:
    if revision not in (*hub.revisions, hub.commit):
        return _refuse(handler, 404, "RevisionNotFound")
    siblings = []
    for name, data in hub.files.items():
        about: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": digest(data, False)}
        if name in hub.large:
            about["lfs"] = {"size": len(data), "sha256": digest(data, True), "pointerSize": 130}
        siblings.append(about)
    answer = {"id": REPO, "sha": hub.commit, "gated": False, "cardData": hub.card, "siblings": siblings}
    body = b"<html>log in</html>" if hub.garbage else json.dumps(answer).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return None


def _resolve(handler: BaseHTTPRequestHandler, hub: StandInHub, commit: str, name: str) -> None:
    if hub.refuse_files:
        return _refuse(handler, *hub.refuse_files)
    if commit != hub.commit or name not in hub.files:
        return _refuse(handler, 404, "EntryNotFound")
    if name not in hub.large:
        return _send(handler, hub, hub.sent.get(name, hub.files[name]), handler.headers.get("Range", ""), cut=None)
    handler.send_response(302)
    handler.send_header("X-Repo-Commit", hub.commit)
    handler.send_header("X-Linked-Etag", f'"{digest(hub.files[name], True)}"')
    handler.send_header("X-Linked-Size", str(len(hub.files[name])))
    handler.send_header("Location", f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}")
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return None


def _send(handler: BaseHTTPRequestHandler, hub: StandInHub, data: bytes, asked: str, cut: int | None) -> None:
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.send_header("X-Repo-Commit", hub.commit)
    handler.send_header("ETag", f'"{digest(data, False)}"')
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(data[start:][:cut])
    handler.close_connection = cut is not None


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
    handler.send_response(status)
    if code:
        handler.send_header("X-Error-Code", code)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
