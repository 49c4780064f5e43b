from __future__ import annotations

import base64
import http.client
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import conjure
from conjure.core.events import Preview
from conjure.media import Text, encode
from conjure.media.image import Image, decode
from conjure.serve.making import Previews
from conjure.tasks.inputs import FILE, LOCAL
from conjure.tasks.table import everything, resolve


def connected(url: str) -> http.client.HTTPConnection:
    place = urlsplit(url)
    return http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)


def post(url: str, wish: dict[str, Any]) -> tuple[int, Any]:
    connection = connected(url)
    connection.request("POST", "/v1/make", json.dumps(wish), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def events(url: str, wish: dict[str, Any]) -> list[tuple[str, Any]]:
    connection = connected(url)
    connection.request("POST", "/v1/make", json.dumps(wish | {"stream": True}), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.read().decode().strip().split("\n\n")
    connection.close()
    pairs = [block.split("\n") for block in blocks if not block.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def test_every_edge_is_a_route_with_its_options(place: str) -> None:
    connection = connected(place)
    connection.request("GET", "/v1/routes")
    routes = json.loads(connection.getresponse().read())["data"]
    connection.close()
    assert [(each["task"], each["output"]) for each in routes] == [(e.task, e.output) for e in everything()]
    draw = next(each for each in routes if each["module"] == "text_to_image")
    assert draw["options"]["properties"]["steps"]["maximum"] == 1000


def test_a_text_becomes_a_picture_as_on_the_command_line(place: str) -> None:
    status, made = post(place, {"inputs": ["a red apple"], "to": "png", "seed": 3, "options": {"steps": 2}})
    assert status == 200 and made["seeds"] == [3] and made["facts"]["evaluations"] == 2
    (output,) = made["outputs"]
    here = conjure.make("a red apple", to="image", seed=3, steps=2)
    apart = decode(base64.b64decode(output["b64"]), "answer").pixels.astype(int) - here.pixels
    assert np.abs(apart).max() <= 2 and output["record"] == json.loads(here.record.to_json())  # sums may round
    assert output["record"]["options"]["steps"] == 2 and output["media_type"] == "image/png"


def test_events_come_in_order_and_previews_when_asked(place: str) -> None:
    wish = {"inputs": ["a red apple"], "to": "image", "seed": 3, "options": {"steps": 3}}
    plainly, seen = events(place, wish), events(place, wish | {"previews": True})
    assert [name for name, _ in plainly] == ["progress"] * 3 + ["result"]
    assert [name for name, _ in seen if name != "progress"] == ["preview"] * 2 + ["result"]
    assert [value["step"] for name, value in seen if name == "progress"] == [1, 2, 3]
    assert seen[-1][1]["outputs"] == plainly[-1][1]["outputs"]


def test_previews_are_decoded_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    now = 0.0

    def preview(seconds: float = 0.0) -> Preview:
        def decode() -> Text:
            nonlocal now
            now += seconds
            made.append(len(made))
            return Text("how it looks")

        return Preview(decode)

    monkeypatch.setattr("conjure.serve.making.time.monotonic", lambda: now)
    assert Previews(most=0).decoded(preview()) is None and made == []
    two = Previews(most=2)
    assert [two.decoded(preview()) is not None for _ in range(3)] == [True, True, False] and made == [0, 1]
    ahead = Previews()
    taken = [ahead.decoded(preview()) for _ in range(Previews.AHEAD + 1)]
    assert taken[-1] is None and taken[-2] is not None
    ahead.take()
    assert (shown := ahead.decoded(preview())) is not None
    count = len(made)
    assert str(shown.medium) == str(shown.medium) == "how it looks" and len(made) == count, "decoded once, and there"
    cheap = Previews(share=0.25, asked=lambda: True)
    assert cheap.decoded(preview(seconds=1)) is not None  # a second: three must pass before the next
    assert cheap.decoded(preview()) is None
    now += 3
    assert cheap.decoded(preview()) is not None
    assert Previews(asked=lambda: False).decoded(preview()) is None


def test_a_text_streams_its_pieces(place: str) -> None:
    came = events(place, {"inputs": ["Once upon a time"], "to": "text", "seed": 1, "options": {"tokens": 12}})
    pieces = "".join(value["text"] for name, value in came if name == "delta")
    (whole,) = came[-1][1]["outputs"]
    assert whole["kind"] == "text" and pieces and pieces in whole["text"]


def test_pictures_come_in_by_content_and_masks_too(place: str) -> None:
    pixels = np.full((40, 40, 3), 250, np.uint8)
    pixels[10:30, 10:30] = (200, 30, 40)
    packed = base64.b64encode(encode(Image(pixels), ".png")).decode()
    for form in ({"b64": packed}, {"url": f"data:image/png;base64,{packed}"}):
        status, made = post(place, {"inputs": [form], "task": "cutout"})
        cut = decode(base64.b64decode(made["outputs"][0]["b64"]), "answer")
        assert status == 200 and (cut.pixels[..., 3] == 255).sum() == 400


def test_no_text_of_a_client_names_a_file(place: str, tmp_path: Path) -> None:
    Image(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "secret.png")
    name = str(tmp_path / "secret.png")
    status, made = post(place, {"inputs": [name], "to": "text", "seed": 1, "options": {"tokens": 3}})
    assert status == 200 and made["outputs"][0]["text"].startswith(name)  # a text to continue, not a picture
    picture = {"b64": base64.b64encode(encode(Image(np.full((64, 64, 3), 255, np.uint8)), ".png")).decode()}
    status, refused = post(place, {"inputs": [picture, "a cat"], "task": "inpaint", "options": {"mask": name}})
    assert status == 400 and refused["error"]["param"] == "options.mask"
    for other in (str(tmp_path / "nothing.png"), "/etc/passwd"):  # nobody learns which files there are
        wish = {"inputs": [picture, "a cat"], "task": "inpaint", "options": {"mask": other}}
        assert post(place, wish) == (400, refused)
    for link in ("http://169.254.169.254/latest/meta-data", "https://example.org/x.png", "file:///etc/passwd"):
        status, refused = post(place, {"inputs": [{"url": link}], "task": "cutout"})
        assert status == 400 and refused["error"]["param"] == "inputs[0]"
    assert post(place, {"inputs": ["x"], "to": "image", "model": str(tmp_path)})[0] == 404


def test_options_that_name_files_are_marked(place: str) -> None:
    """Whatever speaks of files or folders in its help is one that clients may not set, or a picture."""
    for edge in everything():
        for name, field in getattr(resolve(edge).Options, "__pydantic_fields__", {}).items():
            if re.search(r"\bfiles?\b|\bfolders?\b|FILE|FOLDER|picture (of|whose)", field.description or ""):
                assert field.json_schema_extra in (FILE, LOCAL), f"{edge.module}: {name}"
    status, refused = post(place, {"inputs": ["The sea"], "to": "text", "task": "complete", "model": "starter/story",
                                   "options": {"prompt_cache": "/tmp/x"}})  # fmt: skip
    assert status == 400 and "may not" in refused["error"]["message"]


def test_hostile_files_are_refused_one_by_one(place: str) -> None:
    header = b"\x89PNG\r\n\x1a\n"
    bomb = header + b"\x00\x00\x00\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    for data in (b"", header, bomb, encode(Image(np.zeros((8, 8, 3), np.uint8)), ".png")[:40], b"GIF89a" + bytes(20)):
        status, refused = post(place, {"inputs": [{"b64": base64.b64encode(data).decode()}], "task": "cutout"})
        assert status == 400 and refused["error"]["message"], data[:10]
    status, refused = post(place, {"inputs": [{"b64": "no base64!"}], "task": "cutout"})
    assert status == 400 and "expected base64" in refused["error"]["message"]


def test_a_client_that_goes_away_frees_the_worker(place: str) -> None:
    def running() -> int:
        connection = connected(place)
        connection.request("GET", "/health")
        load = json.loads(connection.getresponse().read())
        connection.close()
        return load["running"] + load["waiting"]

    long = {"inputs": ["a cat"], "to": "image", "options": {"steps": 1000}}
    for stream in (True, False):
        connection = connected(place)
        connection.request("POST", "/v1/make", json.dumps(long | {"stream": stream}),
                           {"Content-Type": "application/json"})  # fmt: skip
        until = time.monotonic() + 30
        while not running() and time.monotonic() < until:
            time.sleep(0.02)
        assert running() == 1
        if stream:
            connection.getresponse().read(20)
        connection.close()
        until = time.monotonic() + 20
        while running() and time.monotonic() < until:
            time.sleep(0.05)
        assert running() == 0
