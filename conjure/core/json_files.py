"""Small JSON files of models: what they say, as plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conjure.core.errors import ConjureError

MAX_BYTES = 64 << 20


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without what is null; empty where there is no such file.

    Raises `ConjureError` where it is no JSON object, or larger than 64 MiB.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_BYTES:
        raise ConjureError(f"{path}: expected at most {MAX_BYTES >> 20} MiB")
    try:
        said = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConjureError(f"{path}: no valid JSON: {error}", hint="fetch the model again") from None
    if not isinstance(said, dict):
        raise ConjureError(f"{path}: expected a JSON object, got {type(said).__name__}", hint="fetch the model again")
    return {name: value for name, value in said.items() if value is not None}
