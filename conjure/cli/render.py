"""What people see on stderr: errors, notes, progress. Colours only on a terminal, and never against `NO_COLOR`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from conjure.core.events import Delta, Event, Preview, Progress, Warn
from conjure.core.files import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """`text` in a colour where the stream is a terminal that wants any."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def out(text: str = "") -> None:
    """One line of data, on stdout."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """One line for the reader, on stderr, after what stdout has to say."""
    sys.stdout.flush()
    sys.stderr.write(f"{paint('note:', 'cyan', sys.stderr)} {text}\n")
    sys.stderr.flush()


def fail(message: str, hint: str = "") -> int:
    """The error, and the exit code of errors that users can put right."""
    sys.stderr.write(f"{paint('error:', 'red', sys.stderr)} {message}\n")
    if hint:
        sys.stderr.write(f"{paint('hint:', 'cyan', sys.stderr)} {hint}\n")
    sys.stderr.flush()
    return 2


def table(rows: Iterable[Iterable[str]], indent: str = "") -> str:
    """Rows as columns of equal width, two blanks apart."""
    rows = [[str(cell) for cell in row] for row in rows]
    if not rows:
        return ""
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows
    )


class Stream(Protocol):
    """Where a text goes while it is written."""

    def write(self, text: str) -> object: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Follower:
    """Shows events: a bar with rate and time left where stderr is a terminal, notes always, text on `text` as it comes.

    A bar and a text on the same terminal would write over each other, so the text wins. `live`: what is being said is
    shown behind the text, on a terminal, until it is said to its end.
    """

    def __init__(self, *, text: Stream | None = None, bar: bool = True, live: bool = False) -> None:
        self.text = text
        self.bar = bar and sys.stderr.isatty() and not (text is not None and text.isatty())
        self.live = live and sys.stderr.isatty()
        self.shown, self.column = 0, 0
        self.bars: Bars | None = None
        self.pieces = 0
        self.tasks: dict[tuple[str, int], TaskID] = {}

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def __call__(self, event: Event) -> None:
        if self.live and isinstance(event, Preview):
            self._glimpse(str(event.medium))
            return
        if self.shown and not isinstance(event, Progress):
            self._glimpse("")
        if isinstance(event, Warn):
            self._say(event.text)
        elif isinstance(event, Delta) and self.text is not None:
            self.text.write(event.text)
            self.text.flush()
            if self.live and self.text.isatty():
                line = event.text.rpartition("\n")
                self.column = (len(line[2]) + (0 if line[1] else self.column)) % shutil.get_terminal_size().columns
        elif isinstance(event, Delta) and self.bar:
            self.pieces += 1
            self._advance(Progress(self.pieces, 0, "piece", "writing"))
        elif isinstance(event, Progress) and self.bar:
            self._advance(event)

    def _glimpse(self, text: str) -> None:
        """The end of a text behind what stands on the line, as far as it goes; the next one replaces it."""
        if self.shown:
            sys.stderr.write(f"\x1b[{self.shown}D\x1b[K")
        room = shutil.get_terminal_size().columns - 1 - self.column
        text = " ".join(text.split())[-room:] if room >= 20 else ""
        sys.stderr.write(paint(text, "dim", sys.stderr))
        sys.stderr.flush()
        self.shown = len(text)

    def _say(self, text: str) -> None:
        if self.bars is not None:
            self.bars.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            note(text)

    def _advance(self, event: Progress) -> None:
        if self.bars is None:
            if 0 < event.total <= event.step:
                return  # done in one step: a bar would be gone before it is seen, and rich takes 0.15 s to import
            self.bars = made = bars()
            made.start()
        shown, key = self.bars, (event.unit, event.total)
        said = event.note or "working"
        if key not in self.tasks:
            self.tasks[key] = shown.add_task(said, total=event.total or None, unit=event.unit)
        shown.update(self.tasks[key], completed=event.step, description=said)


def bars() -> Bars:
    """Bars on stderr that leave no trace when they are done."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            unit = task.fields.get("unit", "step")
            if not task.speed:
                return Text("")
            return Text(f"{size(task.speed)}/s" if unit == "byte" else f"{task.speed:.3g} {unit}/s")

    class Done(ProgressColumn):
        def render(self, task: Any) -> Text:
            shown = size if task.fields.get("unit") == "byte" else "{:,.0f}".format
            return Text(shown(task.completed) + (f" of {shown(task.total)}" if task.total else ""))

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(30),
        Done(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
