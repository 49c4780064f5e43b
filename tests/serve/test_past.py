from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conjure.serve.settings import Settings
from tests.serve.running import running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("history")
    with running(Settings(history=folder)) as url:
        for seed, prompt in enumerate(("a red apple", "<img src=x onerror=alert(1)> cat", "a green apple")):
            ask(f"{url}/v1/make", {"inputs": [prompt], "to": "image", "seed": seed, "options": {"steps": 1}})
        yield url, folder


def ask(url: str, body: object = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        content = answer.read()
        return json.loads(content) if answer.headers["content-type"] == "application/json" else content


def refused(url: str, method: str | None = None) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, method=method)
    error = json.loads(caught.value.read())["error"]
    caught.value.close()
    return caught.value.code, error["message"]


def test_results_are_searched_by_pages(place: tuple[str, Path]) -> None:
    url = f"{place[0]}/v1/history"
    first = ask(f"{url}?q=apple&limit=1")
    assert first["has_more"] and first["data"][0]["prompt"] == "a green apple"
    rest = ask(f"{url}?q=apple&before={first['data'][0]['id']}")
    assert not rest["has_more"] and [each["prompt"] for each in rest["data"]] == ["a red apple"]
    assert rest["data"][0]["source"] == "server" and ask(f"{url}?kind=text")["data"] == []


def test_a_result_is_shown_fetched_and_made_again(place: tuple[str, Path]) -> None:
    url = f"{place[0]}/v1/history/1"
    facts = ask(url)
    assert facts["obstacle"] == "" and facts["record"]["seeds"] == [0]
    content = ask(f"{url}/content")
    again = ask(f"{url}/remake", method="POST")
    import base64

    assert base64.b64decode(again["outputs"][0]["b64"]) == content and content.startswith(b"\x89PNG")


def test_what_is_deleted_is_gone(place: tuple[str, Path]) -> None:
    url = f"{place[0]}/v1/history/2"
    digest = ask(url)["digest"].removeprefix("sha256:")
    assert list(place[1].glob(f"files/*/{digest}.png"))
    assert ask(url, method="DELETE") == {"id": 2, "object": "history.deleted", "deleted": True}
    assert refused(url) == (404, "the history has no result 2") and not list(place[1].glob(f"files/*/{digest}.png"))
    assert refused(f"{place[0]}/v1/history/x")[0] == 400


def test_without_a_history() -> None:
    with running(Settings()) as url:
        assert refused(f"{url}/v1/history") == (404, "this server keeps no history")
