"""The benchmark of the server: its client reads right, all servers get the same model, and the result counts right.
Nothing is timed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from benchmarks.serve import __main__ as serve
from benchmarks.serve import servers
from benchmarks.serve.clients import Told, answer, crowd, stream
from benchmarks.serve.served import folder, gguf_file, prompt, words
from conjure.models.language import LanguageModel
from conjure.serve.settings import Settings
from tests.serve.running import running

# -- the client -------------------------------------------------------------------------------------------------------


def event(text: str = "", **more: object) -> bytes:
    return f"data: {json.dumps({'choices': [{'text': text}], **more})}\n\n".encode()


def scripted(pieces: Sequence[bytes], *, status: int = 200, asked: int = 1, leave: int = 0) -> list[Told]:
    """What the client tells of a server that answers with these pieces, each a chunk."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        writer.write(f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for piece in (*pieces, b""):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.close()

    async def scene() -> list[Told]:
        server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            if leave:
                return [await stream(port, {}, leave=leave)]
            return (await crowd(port, [{}] * asked))[0]

    return asyncio.run(scene())


def test_tokens_are_those_of_the_usage_else_the_pieces() -> None:
    whole = b"".join([event("a"), b": still here\n\n", event("b"), event(), b"data: [DONE]\n\n"])
    (told,) = scripted([whole])
    assert told.tokens == 2 and told.fault == "" and 0 < told.first <= told.seconds
    (cut,) = scripted([whole[:7], whole[7:30], whole[30:]])  # lines may be parted anywhere
    assert cut.tokens == 2 and cut.fault == ""
    counted = [event("a"), b'data: {"choices": [], "usage": {"completion_tokens": 5}}\n\n', b"data: [DONE]\n\n"]
    assert [each.tokens for each in scripted(counted, asked=3)] == [5, 5, 5]
    chat = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    assert scripted([chat])[0].tokens == 1


def test_faults_are_told() -> None:
    assert "status 500: spilt" in scripted([b"spilt"], status=500)[0].fault
    assert "queue" in scripted([event("a"), b'data: {"error": {"message": "queue"}}\n\n'])[0].fault
    assert scripted([event(), b"data: [DONE]\n\n"])[0].fault == "no text came"
    port = servers.free_port()
    assert "ConnectionRefusedError" in asyncio.run(stream(port, {})).fault
    assert scripted([event("a"), event("b"), event("c")], leave=2)[0].tokens == 2


def test_the_kinds_of_requests_are_answered_by_the_server() -> None:
    with running(Settings()) as url:
        port = urlsplit(url).port or 0
        assert asyncio.run(serve.many(port, range(96, 104), "starter/story", at_once=2)) == []  # with a picture
        assert asyncio.run(answer(port, "/health"))[0] == 200
        assert "404" in asyncio.run(serve.any_request(port, 4, "starter/nothing"))


# -- the model --------------------------------------------------------------------------------------------------------


def test_every_server_gets_the_same_model(tmp_path: Path) -> None:
    at = folder("toy", tmp_path)
    plain, packed = LanguageModel.load(at), LanguageModel.load(gguf_file("toy", at, "f32"))
    text = prompt(3, 40)
    ids = plain.tokenizer.encode(text)
    assert len(ids) == 40 and packed.tokenizer.encode(text) == ids and text != prompt(4, 40)
    assert plain.tokenizer.decode([300, 301]) == packed.tokenizer.decode([300, 301]) == " w40 w41"
    with torch.inference_mode():
        one, other = (model.network(torch.tensor([ids])) for model in (plain, packed))
    assert (one - other).abs().max() <= 1e-5 * one.abs().max()
    assert len(set(words(512))) == 512
    before = {path.name: path.stat().st_mtime_ns for path in at.glob("*.gguf")}
    gguf_file("toy", folder("toy", at), "f32")
    assert before == {path.name: path.stat().st_mtime_ns for path in at.glob("*.gguf")} and len(before) == 1


# -- the servers ------------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_start_says_why() -> None:
    broken = servers.Program("broken", [sys.executable, "-c", "raise SystemExit('no such model')"], "x")
    with pytest.raises(servers.NotThere, match="no such model"), servers.running(broken, 1):
        pass
    with pytest.raises(servers.NotThere, match="there is no no-such-server"):
        servers.found("no-such-server")


def test_a_server_is_waited_for_weighed_and_ended() -> None:
    code = (
        "import http.server, sys\n"
        "class Alive(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n"
        "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Alive).serve_forever()\n"
    )
    with servers.running(servers.Program("alive", [sys.executable, "-c", code, servers.PORT], "x"), 1) as server:
        assert server.memory > 1 << 20 and server.pid in servers.family(os.getpid())
    assert server.memory == 0


# -- the result -------------------------------------------------------------------------------------------------------


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(20, 0, -1)]
    assert (serve.quantile(values, 0.5), serve.quantile(values, 0.95), serve.quantile([3.0], 0.95)) == (10, 19, 3)


def crowded(rates: list[float], first: float, fault: str = "") -> serve.Crowd:
    return serve.Crowd(rates, [Told(first, 1.0, 8, fault)], 1 << 20)


def test_peers_are_compared_round_by_round() -> None:
    found = {
        "conjure": crowded([300.0, 100.0, 90.0], 0.25), "transformers": crowded([100.0, 20.0, 30.0], 1.0),
        "llama.cpp f32-words": crowded([400.0, 50.0, 60.0], 1.0), "transformers batching": crowded([1.0], 0.0, "spilt"),
    }  # fmt: skip
    said = serve.compared(32, found)
    assert "PASS  32 streams: tokens/s / transformers: 3.00 (at least 3)  3.00 (3.00-5.00)" in said
    assert "PASS  32 streams: tokens/s / llama.cpp f32-words: 1.50 (at least 1)  1.50 (0.75-2.00)" in said
    assert "/ transformers batching" not in said and "| conjure" in said
    row = next(line for line in said.splitlines() if line.startswith("| conjure"))
    assert [cell.strip() for cell in row.split("|")][3:7] == ["250", "250", "0", "1"]
    assert "PASS" not in serve.compared(8, found) and "8 streams: tokens/s / transformers:" in serve.compared(8, found)


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.parse(["load", "sing"])
    assert "sing" in capsys.readouterr().err
    assert serve.parse([]).parts == serve.PARTS and serve.parse(["flat", "--quick"]).requests == 60
