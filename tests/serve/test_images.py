"""Pictures, as the official client asks for them."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

import conjure
from conjure.core.history import History
from conjure.media.image import Image, decode
from conjure.serve.settings import Settings
from tests.serve.running import running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("history")
    with running(Settings(history=folder)) as url:
        yield url, folder


@pytest.fixture
def client(place: tuple[str, Path]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{place[0]}/v1", api_key="any", max_retries=0) as made:
        yield made


def png(pixels: np.ndarray) -> bytes:
    from conjure.media import encode

    return encode(Image(pixels), ".png")


def test_a_picture_is_the_one_that_make_makes(client: openai.OpenAI, place: tuple[str, Path]) -> None:
    asked = {"seed": 4, "steps": 2}
    made = client.images.generate(prompt="a red apple", n=2, extra_body=asked)
    assert made.data is not None and len(made.data) == 2 and made.data[1].b64_json is not None
    data = base64.b64decode(made.data[1].b64_json)
    here = conjure.make("a red apple", to="image", seed=5, steps=2)
    apart = decode(data, "answer").pixels.astype(int) - here.pixels  # in another thread, of a batch: sums may round
    assert np.abs(apart).max() <= 2
    with History(place[1]) as history:
        assert [each.source for each in history.search("red apple")][:2] == ["server", "server"]


def test_links_run_and_cannot_be_guessed(client: openai.OpenAI, place: tuple[str, Path]) -> None:
    made = client.images.generate(prompt="a cat", response_format="url", extra_body={"seed": 1, "steps": 1})
    assert made.data is not None and made.data[0].url is not None
    with urllib.request.urlopen(made.data[0].url) as answer:
        assert answer.headers["content-type"] == "image/png" and decode(answer.read(), "link").width == 128
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{place[0]}/media/../history.sqlite3")


def test_partial_pictures_come_before_the_whole(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="a dog", stream=True, partial_images=2,
                                         extra_body={"seed": 1, "steps": 4}))  # fmt: skip
    assert [each.type for each in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [decode(base64.b64decode(each.b64_json), "event").width for each in events] == [128] * 3


def test_an_edit_changes_what_the_mask_allows(client: openai.OpenAI) -> None:
    pixels = np.full((128, 128, 3), 255, np.uint8)
    pixels[80:110, 80:110] = (200, 30, 40)
    mask = np.full((128, 128, 4), 255, np.uint8)
    mask[8:72, 8:72, 3] = 0
    made = client.images.edit(image=[("in.png", png(pixels))], mask=("mask.png", png(mask)), prompt="a cat",
                              extra_body={"seed": 1, "steps": 2})  # fmt: skip
    assert made.data is not None and made.data[0].b64_json is not None
    after = decode(base64.b64decode(made.data[0].b64_json), "answer").pixels
    kept = mask[..., 3] == 255
    assert np.array_equal(after[kept], pixels[kept]) and not np.array_equal(after[~kept], pixels[~kept])


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # the client's own, of this endpoint
def test_a_variation_and_its_errors(client: openai.OpenAI) -> None:
    picture = io.BytesIO(png(np.full((128, 128, 3), 200, np.uint8)))
    picture.name = "in.png"
    made = client.images.create_variation(image=picture, n=1, extra_body={"seed": 3})
    assert made.data is not None and made.data[0].b64_json
    with pytest.raises(openai.BadRequestError, match="image"):
        client.images.create_variation(image=b"\x89PNG\r\n\x1a\nno picture at all")


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"prompt": ""}, "prompt", "expected a text"),
        ({"prompt": "x", "n": 0}, "n", "greater than or equal to 1"),
        ({"prompt": "x", "n": 99}, "count", "at most 16"),
        ({"prompt": "x", "size": "large"}, "size", "WIDTHxHEIGHT"),
        ({"prompt": "x", "strenght": 3}, None, "has no option --strenght"),
        ({"prompt": "x", "model": "../../etc"}, "model", "there is no model"),
        ({"prompt": "x", "model": "/etc"}, "model", "there is no model"),
        ({"prompt": "x", "steps": "many"}, None, "expected a whole number"),
    ],
)
def test_what_cannot_be_done_is_named(
    place: tuple[str, Path], body: dict[str, object], param: str | None, said: str
) -> None:
    request = urllib.request.Request(f"{place[0]}/v1/images/generations", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})  # fmt: skip
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    error = json.loads(caught.value.read())["error"]
    assert caught.value.code in (400, 404) and error["param"] == param and said in error["message"]
    caught.value.close()
