"""Multipart forms: how clients send files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from conjure.serve.errors import ApiError
from conjure.serve.state import server

Fields = TypeVar("Fields", bound=BaseModel)
FIELDS = 100
FILE = {"type": "string", "format": "binary"}


async def form(
    request: Request, files: Collection[str], lists: Collection[str] = ()
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """The plain fields of a form, and the files with their names. Arrays come as `image` or `image[]`; only those in
    `lists` may come more than once."""
    limits = server(request).settings.limits
    fields: dict[str, Any] = {}
    found: list[tuple[str, bytes]] = []
    try:
        async with request.form(max_files=limits.files, max_fields=FIELDS, max_part_size=limits.body_bytes) as came:
            for name, value in came.multi_items():
                name = name.removesuffix("[]")
                if isinstance(value, UploadFile):
                    if name not in files:
                        raise ApiError(400, f"unknown parameter: {name}", param=name, code="unknown_parameter")
                    found.append((name, await value.read()))
                elif name in lists:
                    fields.setdefault(name, []).append(value)
                elif name in fields:
                    raise ApiError(400, f"{name}: expected it once, it came again", param=name)
                else:
                    fields[name] = value
    except HTTPException as error:
        if isinstance(error, ApiError) or not str(error.detail).startswith("Too many"):
            raise
        raise ApiError(413, str(error.detail), code="request_too_large") from None
    return fields, found


def checked(model: type[Fields], fields: Mapping[str, Any]) -> Fields:
    """The fields as the endpoint understands them; what does not fit is named."""
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"]))
        raise ApiError(400, f"{param}: {first['msg']}", param=param) from None


def shape(model: type[BaseModel], files: Collection[str], needed: Collection[str]) -> dict[str, Any]:
    """A form in the OpenAPI document, which the framework cannot see for itself."""
    fields = dict.fromkeys(files, FILE) | model.model_json_schema()["properties"]
    schema = {"type": "object", "required": list(needed), "properties": fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
