"""Errors as clients of the OpenAI API expect them: `{"error": {"message", "type", "param", "code"}}` and the status."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from conjure.core.errors import ConjureError

LOG = logging.getLogger("conjure.serve")
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
RETRY = "5"
"""Seconds after which whoever was refused for want of room may come again, where nothing else is said."""
PART = 400  # characters of what came that an error repeats


class Json(JSONResponse):
    """Plain values in ASCII alone: half a pair of surrogates, which JSON can say and UTF-8 cannot, spoils no answer."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class ApiError(HTTPException):
    """An answer that is an error: status, message, the parameter at fault, a code for programs. It passes through
    whatever reads a request's body, which would hide other exceptions."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        waiting = {"Retry-After": RETRY} if status in (429, 503) else {}
        super().__init__(status, message, headers={**waiting, **(headers or {})})
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Json:
        return Json(self.body(), self.status, headers=dict(self.headers or {}))


def told(error: ConjureError, param: str | None = None) -> ApiError:
    """What the package refuses, as a bad request."""
    hint = f" ({error.hint})" if error.hint else ""
    return ApiError(400, f"{error.message}{hint}", param=param)


def install(app: FastAPI) -> None:
    """Every error of the app in the one form; of what nobody foresaw clients learn nothing but that it happened."""

    @app.exception_handler(ApiError)
    async def _api(request: Request, error: ApiError) -> Json:
        if request.url.path.startswith("/v1/messages"):  # that shape has one word more
            return Json({"type": "error", **error.body()}, error.status, headers=dict(error.headers or {}))
        return error.response()

    @app.exception_handler(ConjureError)
    async def _conjure(request: Request, error: ConjureError) -> Json:
        return told(error).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Json:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        param = ".".join(place) or None
        if first["type"] == "json_invalid":
            return ApiError(400, "the body is no valid JSON").response()
        if first["type"] == "extra_forbidden":
            return ApiError(400, f"unknown parameter: {param}", param=param, code="unknown_parameter").response()
        came = "" if first["type"] == "missing" else f", got {first.get('input')!r:.{PART}}"
        return ApiError(400, f"{param or 'body'}: {first['msg']}{came}", param=param, code=first["type"]).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Json:
        said = {404: f"there is no {request.url.path}", 405: f"{request.method} does not go with {request.url.path}"}
        message = said.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(UnicodeEncodeError)
    async def _halved(request: Request, error: UnicodeEncodeError) -> Json:
        return ApiError(400, "expected texts of whole characters, got half a pair of surrogates").response()

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> Json:
        LOG.exception("%s %s", request.method, request.url.path)
        return ApiError(500, "the server failed; its log says why", code="internal_error").response()
