"""A file made again from the record it carries: the same bytes on the same machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.core.provenance import Record
from conjure.core.version import __version__
from conjure.tasks.inputs import Given, understand
from conjure.tasks.make import ALSO, MODELS, NAMED, Plan, filed, finished, plan, run, signed, weights

GRID = "grid"
"""Among the options of a record: all samples on one picture."""


def remake(
    source: str | Path | Record,
    *,
    files: Iterable[str | Path] = (),
    on_event: Callable[[Event], None] | None = None,
) -> Any:
    """The medium in `source`, made again. Refuses where the model's weights are not the ones it was made with.

    Inputs that were files are looked for by name and digest among `files`, beside `source` and in the current folder.
    """
    record = source if isinstance(source, Record) else provenance(source)
    beside = [] if isinstance(source, Record) else [Path(source).parent]
    again = replan(record, _kind(source), [*map(Path, files)], [*beside, Path()])
    if record.version != __version__ and on_event is not None:
        on_event(Warn(f"it was made by conjure {record.version}, this is {__version__}: the result may differ"))
    result = finished(run(again.plan), on_event)
    made: list[Any] = list(result.media)
    if again.grid:
        from conjure.media.image import grid

        return signed(grid(made), record)
    suffix = "" if isinstance(source, Record) else Path(source).suffix
    return signed(filed(again.plan, made[record.index], result.facts, record.index, suffix), record)


@dataclass(frozen=True)
class Again:
    plan: Plan
    grid: bool


def provenance(path: str | Path) -> Record:
    """The record in a file; `ConjureError` where it carries none."""
    path = Path(path)
    if not path.is_file():
        raise ConjureError(f"{path}: no such file")
    record = media.read_provenance(path)
    if record is None:
        raise ConjureError(
            f"{path}: carries no record of how it was made",
            hint="it was not made by conjure, was made with --no-provenance, or a program removed the record",
        )
    return record


def models(record: Record) -> dict[str, str]:
    """The models that took part, and the digests of their weights. Anyone may have written the record."""
    also = record.options.get(ALSO)
    return {record.model: record.weights} | ({k: str(v) for k, v in also.items()} if isinstance(also, dict) else {})


def replan(record: Record, kind: str | None, files: list[Path], folders: list[Path]) -> Again:
    """The plan that a record stands for."""
    for model, digest in models(record).items():
        if (here := weights(model)) != digest:
            raise ConjureError(
                f"made with {model} of {_short(digest)}, the one here is {_short(here)}",
                hint="other weights make another result: `conjure show` tells prompt, options and seed, for "
                     "`conjure make`",
            )  # fmt: skip
    options = {name: value for name, value in record.options.items() if name != ALSO}
    grid = bool(options.pop(GRID, False))
    named, steps = options.pop(NAMED, None), options.pop(MODELS, None)
    inputs = [_recovered(each, files, folders) for each in record.inputs]
    planned = plan(*inputs, to=kind, output=named, model=steps or record.model or None, task=record.task, **options)
    return Again(replace(planned, seeds=record.seeds), grid)


def _kind(source: str | Path | Record) -> str | None:
    return None if isinstance(source, Record) else media.kinds.kind_of(source)


def _recovered(kept: dict[str, str], files: list[Path], folders: list[Path]) -> Given:
    if "text" in kept:
        return Given(media.Text(kept["text"]))
    name = kept.get("name", "")
    places = [*files, *(folder / name for folder in folders if name and Path(name).name == name)]
    for place in places:
        if place.is_file():
            given = understand(place)
            if given.kind == kept.get("kind") and given.medium.digest() == kept.get("digest"):
                return replace(given, name=name, option=kept.get("option", ""))
    raise ConjureError(
        f"it was made from {name or 'an input'} ({_short(kept.get('digest', ''))}), which is not here unchanged",
        hint="name the file: --input FILE",
    )


def _short(digest: str) -> str:
    return digest[:19] or "unknown digest"
