from __future__ import annotations

import re
import urllib.request

from conjure.serve.app import build
from conjure.serve.handbook import page
from conjure.serve.settings import Settings
from tests.serve.running import running


def test_every_endpoint_is_on_the_page_and_nothing_is_fetched_for_it() -> None:
    with running(Settings()) as url, urllib.request.urlopen(f"{url}/docs") as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    document = build(Settings()).openapi()
    for path, operations in document["paths"].items():
        assert f"<code>{path}</code>" in text, path
        for told in operations.values():
            assert "422" not in told.get("responses", {}) and "default" in told["responses"]
    assert policy.startswith("default-src 'none'") and "script" not in policy
    assert "<script" not in text and re.findall(r"(?:src|href)=\"([^\"]*)\"", text) == ["/openapi.json"]
    assert "prompt" in text and "from 1" in text, "parameters with their types"


def test_texts_of_the_document_are_shown_as_text() -> None:
    bad = "<script>alert(1)</script>"
    schema = {"properties": {bad: {"description": bad, "enum": [bad]}}}
    told = {"description": bad, "requestBody": {"content": {"application/json": {"schema": schema}}},
            "parameters": [{"name": bad, "in": bad, "schema": {"type": bad}}]}  # fmt: skip
    text = page({"info": {"title": bad}, "paths": {bad: {"post": told}}})
    assert "<script" not in text and text.count("&lt;script&gt;") >= 7
