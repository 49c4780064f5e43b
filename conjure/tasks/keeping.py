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
from conjure.tasks.remake import GRID


def keep(
    history: History, planned: Plan, made: Sequence[Any], paths: Sequence[Path], seconds: float, *,
    gridded: bool = False, source: str = "cli",
) -> list[int]:  # fmt: skip
    """The media of a plan into the history, as the files at `paths` hold them where there are any; their numbers."""
    inputs = [_file(each.medium) for each in planned.inputs if each.kind != "text"]
    numbers = []
    for index, medium in enumerate(made):
        its = record(planned, index)
        if gridded:
            its = replace(its, options=dict(its.options) | {GRID: True})
        path = str(paths[index].absolute()) if index < len(paths) else ""
        suffix = Path(path).suffix.lower() if path else writable(medium.kind)[0]
        data = media.encode(medium, suffix, its)
        each = seconds / len(made)
        number = history.add(data, suffix, medium.kind, its, inputs=inputs, path=path, seconds=each, source=source)
        numbers.append(number)
    return numbers


def obstacle(history: History, entry: Entry) -> str:
    """Why a result cannot be made again byte for byte; "" where nothing stands in the way."""
    missing = [path for path in history.sources(entry.id) if not path.is_file()]
    if missing:
        return f"{len(missing)} of the files it was made from are gone"
    try:
        here = weights(entry.record.model)
    except ConjureError as error:
        return error.message
    return "" if here == entry.record.weights else f"{entry.record.model} has other weights now"


def _file(medium: Any) -> tuple[bytes, str]:
    """A medium as a file that loses nothing."""
    suffix = writable(medium.kind)[0]
    return media.encode(medium, suffix), suffix
