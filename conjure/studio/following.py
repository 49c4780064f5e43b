"""What a piece of work says of itself, as a page shows it: how far it is, how long it still takes, how it looks.

    async with aclosing(following(ticket.events(heartbeat=BEAT))) as stages:
        async for now in stages:                      # `Stage`: words, share, preview, written so far, the end
            yield status(now), ...

Tickets of the worker and jobs are followed alike. What goes wrong is a stage, too, and raises nothing.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Preview, Progress, Warn
from conjure.serve.errors import ApiError
from conjure.serve.worker import Waiting

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How pages listen: a line of theirs says how it goes, and no program calls their listeners."""
BEAT = 1.0
"""Seconds after which a page hears that the work goes on, so that its clock moves."""
GLANCE = 0.4
"""Seconds between two previews or two pieces of text: a page cannot be redrawn for every token."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One moment of the work. `words` are for people, `share` of it is done (None where nobody knows), `preview` is a
    medium, `written` all text so far; `end` is what came at the end, and `error` why there is none."""

    words: str = ""
    share: float | None = None
    preview: Any = None
    written: str = ""
    warnings: tuple[str, ...] = ()
    end: Any = None
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing comes after it."""
        return self.end is not None or bool(self.error)


async def following(events: AsyncGenerator[Any, None]) -> AsyncGenerator[Stage, None]:
    """The stages of the work with these events. Closing it closes them, which cancels a ticket and leaves a job."""
    clock = _Clock()
    stage = Stage(words="Starting")
    shown = 0.0
    yield stage
    try:
        async with aclosing(events):
            async for event in events:
                now = time.monotonic()
                if isinstance(event, Delta | Preview):
                    if now - shown < GLANCE:
                        more = event.text if isinstance(event, Delta) else ""
                        stage = replace(stage, written=stage.written + more)
                        continue
                    shown = now  # progress does not count: it comes just before each preview
                stage = await _after(stage, event, clock)
                yield stage
                if stage.over:
                    return
    except (ApiError, ConjureError) as error:
        yield replace(stage, words="", share=None, preview=None, error=said(error))
        return
    if stage.end is None:
        yield replace(stage, words="", share=None, preview=None, error="It was cancelled.")


async def _after(stage: Stage, event: Any, clock: _Clock) -> Stage:
    """The stage after one more event."""
    if event is None:
        return replace(stage, words=clock.words())
    if isinstance(event, Waiting):
        before = "the one before it" if event.position == 1 else f"{event.position} others"
        clock.note(f"Waiting for {before}")
        return replace(stage, words=clock.words(), share=None)
    if isinstance(event, Progress):
        clock.take(event)
        return replace(stage, words=clock.words(), share=clock.share)
    if isinstance(event, Preview):
        # Decoding takes a network: not in the event loop, where all other pages would stand still for it.
        return replace(stage, preview=await asyncio.to_thread(lambda: event.medium), words=clock.words())
    if isinstance(event, Delta):
        clock.note("Writing")
        return replace(stage, written=stage.written + event.text, words=clock.words())
    if isinstance(event, Warn):
        return replace(stage, warnings=(*stage.warnings, event.text))
    return replace(stage, words="", share=1.0, end=event)


class _Clock:
    """Time since the work began, and what is left of it by the pace so far."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._unit: tuple[str, int] = ("", 0)
        self._last: Progress | None = None
        self._note = "Starting"
        self.share: float | None = None

    def note(self, text: str) -> None:
        self._note, self._last = text, None

    def take(self, progress: Progress) -> None:
        """A further progress; another unit or total begins another reckoning."""
        if (progress.unit, progress.total) != self._unit or self._first is None:
            self._first, self._unit = (time.monotonic(), progress.step), (progress.unit, progress.total)
        self._last = progress
        self.share = min(1.0, progress.step / progress.total) if progress.total else None

    def words(self) -> str:
        """`Drawing: 3 of 8 steps, about 4 s left`."""
        last = self._last
        if last is None:
            return f"{self._note}, {time.monotonic() - self._began:.0f} s"
        name = (last.note or "working").strip()
        name = name[:1].upper() + name[1:]
        if last.unit == "byte":
            done = f"{last.step / 1e6:,.1f} MB" + (f" of {last.total / 1e6:,.1f} MB" if last.total else "")
        elif last.total:
            done = f"{last.step} of {last.total} {last.unit}{'s' if last.total != 1 else ''}"
        else:
            done = f"{last.step} {last.unit}{'s' if last.step != 1 else ''}"
        left = self._left()
        return f"{name}: {done}" + (f", about {seconds_in_words(left)} left" if left is not None else "")

    def _left(self) -> float | None:
        last, first = self._last, self._first
        if last is None or first is None or not last.total or last.step <= first[1] or last.step >= last.total:
            return None
        pace = (time.monotonic() - first[0]) / (last.step - first[1])
        return pace * (last.total - last.step)


def seconds_in_words(seconds: float) -> str:
    """`9 s`, `4 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def said(error: ApiError | ConjureError) -> str:
    """An error in words, with what to do about it."""
    hint = f" ({error.hint})" if isinstance(error, ConjureError) and error.hint else ""
    return f"{error.message}{hint}"


def status(stage: Stage) -> str:
    """A stage as the HTML of a status line: a bar, the words, the warnings, the error. All of it escaped."""
    parts = []
    if stage.error:
        parts.append(f'<p class="wrong" role="alert">{html.escape(stage.error)}</p>')
    elif stage.words:
        value = "" if stage.share is None else f' value="{stage.share:.3f}"'
        parts.append(f'<progress aria-label="Progress" max="1"{value}></progress>')
        parts.append(f"<p>{html.escape(stage.words)}</p>")
    parts += [f'<p class="warned">{html.escape(text)}</p>' for text in stage.warnings]
    return f'<div class="status" role="status">{"".join(parts)}</div>'


def notice(text: str, wrong: bool = False) -> str:
    """One sentence as the HTML of a status line."""
    return status(Stage(error=text)) if wrong else f'<div class="status" role="status"><p>{html.escape(text)}</p></div>'
