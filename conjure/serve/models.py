"""`/v1/models`: what is installed, in the shape that clients of the OpenAI API list."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from conjure.core.errors import ConjureError
from conjure.core.shelf import ModelInfo
from conjure.serve.errors import ApiError
from conjure.serve.state import server
from conjure.tasks.abilities import abilities
from conjure.tasks.table import everything

router = APIRouter()


@router.get("/v1/models")
def listed(request: Request) -> dict[str, Any]:
    """Every model that a request may name."""
    home = server(request)
    return {"object": "list", "data": [_described(name, info, home.began)
                                       for name, info in home.keeper.offered().items()]}  # fmt: skip


@router.get("/v1/models/{name:path}")
def one(name: str, request: Request) -> dict[str, Any]:
    """One of them; names have slashes."""
    home = server(request)
    info = home.keeper.offered().get(name)
    if info is None:
        raise ApiError(404, f"there is no model {name!r} here", param="model", code="model_not_found")
    return _described(name, info, home.began)


def _described(name: str, info: ModelInfo, began: float) -> dict[str, Any]:
    edges = [edge for edge in everything() if not edge.by_rule and _can(info, edge.public, edge.task, edge.serves)]
    return {
        "id": name, "object": "model", "created": int(began), "owned_by": name.partition("/")[0],
        "architecture": {
            "input_modalities": list(dict.fromkeys(kind for edge in edges for kind in edge.inputs)),
            "output_modalities": list(dict.fromkeys(edge.output for edge in edges)),
        },
        "tasks": list(dict.fromkeys(edge.task for edge in edges)),
        "parameters": info.parameters, "bytes": info.bytes, "licence": info.licence, "summary": info.summary,
    }  # fmt: skip


def _can(info: ModelInfo, public: bool, task: str, serves: frozenset[str]) -> bool:
    if not public:
        return info.task in serves
    try:
        return task in abilities(info.path)
    except ConjureError:  # a family nobody knows can do nothing here, and hides no other model
        return False
