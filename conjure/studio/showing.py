"""Results as a page shows them: a file that a browser may fetch, a caption, and how it was made."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.history import Entry, History
from conjure.core.provenance import Record
from conjure.core.version import __version__
from conjure.media.kinds import SUFFIXES
from conjure.serve.errors import ApiError
from conjure.serve.making import Made, Wish, working
from conjure.serve.state import Server
from conjure.serve.wire import file_bytes, suffix_for
from conjure.studio.following import BEAT, Stage, following, said
from conjure.tasks.keeping import obstacle
from conjure.tasks.make import filed, record
from conjure.tasks.remake import Again, replan

MAX_TEXT = 200_000  # characters of a text that a page shows
_PLAIN = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One result. `path` is its file in the folder from which the page shows files; `number` is that of the history, 0
    where it keeps none; `text` is what it says, of a text."""

    kind: str
    path: str
    record: Record
    text: str = ""
    number: int = 0
    made: str = ""
    seconds: float | None = None

    @property
    def caption(self) -> str:
        return f"seed {self.record.seed}" if self.record.seed is not None else self.record.task


def from_history(history: History, entry: Entry) -> Shown:
    """A result that was kept; `ConjureError` where its bytes are gone."""
    try:
        data = history.file(entry).read_bytes()
    except OSError as error:
        raise ConjureError(f"the bytes of result {entry.id} are gone: {error.strerror}") from None
    return Shown(kind=entry.kind, path=placed(data, named(entry.record, entry.suffix)), record=entry.record,
                 text=_text(entry.kind, data), number=entry.id, made=entry.made, seconds=entry.seconds)  # fmt: skip


def from_link(data: bytes, suffix: str, wish: Wish, index: int) -> Shown:
    """A result of a server that keeps no history: what its own file says of it, or the wish where it says nothing."""
    kind = SUFFIXES[suffix]
    its = media.read_provenance(placed(data, f"result{suffix}"))
    if its is None:
        texts = [each if isinstance(each, str) else each.get("text", "") for each in wish.inputs]
        its = Record(version=__version__, task=wish.task, model=wish.model, weights="", options=dict(wish.options),
                     inputs=tuple({"kind": "text", "text": str(each)} for each in texts if each),
                     seeds=(wish.seed + index,) if wish.seed is not None else ())  # fmt: skip
    return Shown(kind=kind, path=placed(data, named(its, suffix)), record=its, text=_text(kind, data))


def from_made(done: Made) -> list[Shown]:
    """What came out of a plan, as it came."""
    shown = []
    for index, medium in enumerate(done.result.media):
        its, suffix = record(done.plan, index), suffix_for(medium.kind)
        data = file_bytes(medium, suffix, its)
        number = done.numbers[index] if index < len(done.numbers) else 0
        shown.append(Shown(kind=medium.kind, path=placed(data, named(its, suffix)), record=its, number=number,
                           text=_text(medium.kind, data), seconds=done.seconds / len(done.result.media)))  # fmt: skip
    return shown


def placed(data: bytes, name: str) -> str:
    """The path of a file with these bytes and this name, from where the page may show it."""
    folder = Path(get_upload_folder()) / "made" / hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.is_file():
        write_atomic(path, data)
    return str(path)


def tidy(seconds: float) -> None:
    """Removes the files of results that were placed longer ago than that."""
    until = time.time() - seconds
    for path in (Path(get_upload_folder()) / "made").glob("*/*"):
        if path.stat().st_mtime < until:
            path.unlink(missing_ok=True)


def named(its: Record, suffix: str) -> str:
    """A name for the file of a result: its prompt's first words and its seed."""
    words = _PLAIN.sub("-", its.prompt.lower()[:60]).strip("-")[:40].strip("-") or its.task
    return f"{words}-{its.seed}{suffix}" if its.seed is not None else f"{words}{suffix}"


def picture_of(medium: Any) -> Any:
    """A preview for a component of pictures: its pixels, or None where it is none."""
    return medium.pixels if medium is not None and medium.kind == "image" else None


def facts(shown: Shown) -> str:
    """How a result was made, as the HTML of a table and of the record itself. All of it escaped."""
    its = shown.record
    given = [each.get("text") or each.get("name") or each["kind"] for each in its.inputs]
    rows = [
        ("Task", its.task), ("Model", its.model or "none: arithmetic"), ("From", "\n".join(given)),
        ("Seed", "" if its.seed is None else str(its.seed)),
        *((_label(name), _value(value)) for name, value in its.options.items()),
        ("Weights", its.weights), ("Made", shown.made.replace("T", " ").removesuffix("Z")),
        ("Took", f"{shown.seconds:.1f} s" if shown.seconds else ""), ("conjure", its.version),
        ("In the history", f"number {shown.number}" if shown.number else "not kept"),
    ]  # fmt: skip
    body = "".join(f"<tr><th scope=\"row\">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
                   for name, value in rows if value)  # fmt: skip
    record_text = html.escape(json.dumps(json.loads(its.to_json()), indent=1, ensure_ascii=False))
    return (f'<table class="facts"><tbody>{body}</tbody></table>'
            f'<details><summary>The record as JSON</summary><pre class="card" tabindex="0">{record_text}</pre>'
            "</details>")  # fmt: skip


async def remaking(home: Server, number: int) -> AsyncGenerator[Stage, None]:
    """The stages of making a result of the history again; `end` of the last one is a sentence about whether it came
    out the same."""
    history = home.history
    assert history is not None, "a number comes from a history"
    try:
        entry, again = await asyncio.to_thread(_again, history, number)
        ticket = home.worker.submit(lambda: working(home, again.plan, keep=False))
    except (ApiError, ConjureError) as error:
        yield Stage(error=f"It cannot be made again: {said(error)}")
        return
    async with aclosing(following(ticket.events(heartbeat=BEAT))) as stages:
        async for stage in stages:
            if stage.end is None:
                yield stage
                continue
            same = await asyncio.to_thread(_same, stage.end, entry, again.grid)
            word = "byte for byte the same" if same else "not the same bytes: another machine or version made it"
            yield replace(stage, end=f"Result {number} was made again in {stage.end.seconds:.1f} s: {word}.")


def _again(history: History, number: int) -> tuple[Entry, Again]:
    entry = history.get(number)
    if why := obstacle(history, entry):
        raise ConjureError(why)
    return entry, replan(entry.record, entry.kind, history.sources(number), [])


def _same(done: Made, entry: Entry, gridded: bool) -> bool:
    from conjure.media.image import grid

    made: Sequence[Any] = done.result.media
    medium = grid(list(made)) if gridded else made[entry.record.index]
    medium = filed(done.plan, medium, done.result.facts, entry.record.index, entry.suffix)
    data = file_bytes(medium, entry.suffix, entry.record)
    return hashlib.sha256(data).hexdigest() == entry.digest


def _text(kind: str, data: bytes) -> str:
    return data.decode("utf-8", "replace")[:MAX_TEXT] if kind == "text" else ""


def _label(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value in ("", [], ()):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
