"""What is made goes into the history, with what it was made from; and whether it can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.history import Entry, History
from conjure.media.kinds import writable
from conjure.tasks.make import Plan, record, weights
from conjure.tasks.remake import GRID, models


def keep(
    history: History, planned: Plan, made: Sequence[Any], paths: Sequence[Path], seconds: float, *,
    gridded: bool = False, source: str = "cli",
) -> list[int]:  # fmt: skip
    """The media of a plan into the history; their numbers. What was written into the files at `paths` is kept as it
    stands there, byte for byte, and what was written nowhere as a file that loses nothing."""
    inputs = [_file(each.medium) for each in planned.inputs if each.kind != "text"]
    numbers = []
    for index, medium in enumerate(made):
        its = record(planned, index)
        if gridded:
            its = replace(its, options=dict(its.options) | {GRID: True})
        path = paths[index].absolute() if index < len(paths) else None
        suffix = path.suffix.lower() if path is not None else writable(medium.kind)[0]
        data = _written(path) if path is not None else None
        if data is None:
            data = media.encode(medium, suffix, its)
        numbers.append(history.add(data, suffix, medium.kind, its, inputs=inputs, path=str(path or ""),
                                   seconds=seconds / len(made), source=source))  # fmt: skip
    return numbers


def obstacle(history: History, entry: Entry) -> str:
    """Why a result cannot be made again byte for byte; "" where nothing stands in the way."""
    missing = [path for path in history.sources(entry.id) if not path.is_file()]
    if missing:
        return f"{len(missing)} of the files it was made from are gone"
    try:
        changed = [name for name, digest in models(entry.record).items() if weights(name) != digest]
    except ConjureError as error:
        return error.message
    return f"{changed[0]} has other weights now" if changed else ""


def _written(path: Path) -> bytes | None:
    """The bytes of a file; None for pipes, devices, and what is gone already."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _file(medium: Any) -> tuple[bytes, str]:
    """A medium as a file that loses nothing."""
    return media.lossless(medium)
