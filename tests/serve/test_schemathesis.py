"""Whatever the OpenAPI document allows, and much that it does not: no request makes the server fail, and it answers as
the document says.

Requests are made of the document by schemathesis and handed to the app in this process. They ask for little: counts,
lengths and steps are cut down, and half of them name no model, so that what is asked for is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from conjure.serve.app import build
from conjure.serve.settings import Settings

SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
METHODS = ("get", "post", "put", "patch", "delete")
CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]
EXAMPLES = 5
"""Of each kind, of each endpoint."""
FEW = {"max_tokens": 2, "max_completion_tokens": 2, "max_output_tokens": 2, "n": 2, "count": 2}
"""Fields that make work, and the most that is asked of them here."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    yield build(Settings(host="testserver", history=tmp_path_factory.mktemp("history")))  # as schemathesis calls it
    shutdown_lifespans()


@pytest.fixture(scope="module")
def document(app: FastAPI) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def endpoints() -> list[tuple[str, str, bool]]:
    """Method and path of all that the document names, and whether it can be called wrongly: every text is a name."""
    paths = build(Settings()).openapi()["paths"]
    calls = [(method, path, its[method]) for path, its in paths.items() for method in METHODS if method in its]
    return [
        (method, path, "requestBody" in its or any(each["schema"].get("type") != "string"
                                                   for each in its.get("parameters", ())))
        for method, path, its in calls
    ]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "wrongly"), endpoints())
def test_no_request_makes_the_server_fail(document: Any, method: str, path: str, wrongly: bool) -> None:
    operation = document[path][method]

    def sent(case: schemathesis.Case) -> None:
        case.body = little(path, case.body)
        case.call_and_validate(checks=CHECKS, timeout=120)

    modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if wrongly else [])]
    for mode in modes:
        few = settings(max_examples=EXAMPLES, suppress_health_check=SLOW, phases=[Phase.generate])
        few(given(case=operation.as_strategy(generation_mode=mode))(sent))()


def little(path: str, body: Any) -> Any:
    """The same body with less to do."""
    if not isinstance(body, dict):
        return body
    cut: dict[str, Any] = {
        name: min(value, FEW[name]) for name, value in body.items() if name in FEW and isinstance(value, int)
    }
    if len(str(body.get("model") or "")) % 2 == 0:
        cut["model"] = ""
    if path in ("/v1/chat/completions", "/v1/completions", "/v1/messages"):
        cut.setdefault("max_tokens", 2)
    elif path == "/v1/responses":
        cut.setdefault("max_output_tokens", 2)
    elif path.startswith("/v1/images"):
        cut["steps"] = 1
    elif path in ("/v1/make", "/v1/jobs"):
        cut["options"] = {"steps": 1}
    return body | cut
