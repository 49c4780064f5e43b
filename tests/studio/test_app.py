from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.studio.browser import Studio


def asked(studio: Studio, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """(status, text) of an answer."""
    body = b"{}" if method in ("POST", "PUT") else None
    wish = urllib.request.Request(f"{studio.address}{path}", body, {"Content-Type": "application/json", **headers},
                                  method=method)  # fmt: skip
    try:
        with urllib.request.urlopen(wish, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_page_has_its_own_head_whatever_the_browser_would_take(studio: Studio) -> None:
    for encoding in ("identity", "gzip, deflate, br"):
        status, page = asked(studio, "", **{"Accept-Encoding": encoding})
        assert status == 200
        assert "<title>conjure studio</title>" in page.partition("</head>")[0]
        assert "the studio opens" in page.partition("</head>")[0]


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "v1/nothing", 404), ("POST", "v1/nothing/at/all", 404), ("PUT", "v1/models", 405), ("GET", "v1/make", 405),
])  # fmt: skip
def test_the_api_answers_in_its_own_shape_beside_the_page(studio: Studio, method: str, path: str, status: int) -> None:
    got, text = asked(studio, path, method)
    assert got == status
    error: dict[str, Any] = json.loads(text)["error"]
    assert error["message"]


def test_the_api_is_there(studio: Studio) -> None:
    assert json.loads(asked(studio, "health")[1])["status"] == "ok"
    names = {each["id"] for each in json.loads(asked(studio, "v1/models")[1])["data"]}
    assert "starter/pictograms" in names


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "gradio_api/info"), ("GET", "gradio_api/openapi.json"), ("GET", "gradio_api/proxy=https://example.org/"),
    ("GET", "gradio_api/runs"), ("POST", "gradio_api/call/begin"), ("POST", "gradio_api/api/predict"),
    ("POST", "gradio_api/process_recording"), ("POST", "gradio_api/vibe-edit"), ("GET", "gradio_api/vibe-code"),
    ("GET", "monitoring"), ("GET", "monitoring/summary"), ("GET", "config"), ("POST", "login"),
    ("GET", "gradio_api/queue/../info"), ("POST", "gradio_api/run/begin"),
])  # fmt: skip
def test_what_the_page_does_not_need_is_not_there(studio: Studio, method: str, path: str) -> None:
    assert asked(studio, path, method)[0] == 404


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "pyproject.toml", "../../etc/passwd"])
def test_no_file_of_the_machine_is_served(studio: Studio, path: str) -> None:
    assert asked(studio, f"gradio_api/file={path}")[0] in (403, 404)
    assert asked(studio, f"gradio_api/file={studio.folder}/history/history.sqlite3")[0] in (403, 404)


@pytest.mark.parametrize("path", ["", "gradio_api/queue/join", "gradio_api/upload"])
def test_other_sites_and_rebound_names_stay_outside(studio: Studio, path: str) -> None:
    method = "POST" if path else "GET"
    assert asked(studio, path, method, Host="evil.example")[0] == 403
    assert asked(studio, path, method, Origin="https://evil.example")[0] == 403
