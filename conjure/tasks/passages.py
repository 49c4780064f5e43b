"""Long texts in parts that fit into a network: whole sentences where they fit, and not a character lost.

The parts and the blanks after them, joined, are the text again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_PLACES = re.compile(r"\s+|[。！？]+[」』”’）]*")
_CLOSERS = "\"'”’»)]"
_ENDS = ".!?…"


def sentences(text: str) -> Iterator[tuple[str, str]]:
    """(sentence, blank after it). Line ends are borders too; blanks in front come as ("", blank)."""
    start = 0
    for found in _PLACES.finditer(text):
        blank = found[0] if found[0].isspace() else ""
        end = found.start() if blank else found.end()
        if blank and found.start() == start:  # at the beginning, or behind a border without a blank
            yield "", blank
            start = found.end()
        elif not blank or "\n" in blank or text[max(start, end - 4) : end].rstrip(_CLOSERS).endswith(tuple(_ENDS)):
            yield text[start:end], blank
            start = found.end()
    if start < len(text):
        yield text[start:], ""


def passages(
    text: str, size: Callable[[str], int], room: int, together: bool = True
) -> Iterator[tuple[str, str]]:
    """(passage, blank after it): sentences, each cut where its `size` is above `room`; with `together` as many in one
    passage as fit."""
    held, gap, used = "", "", 0
    for sentence, blank in sentences(text):
        for part, after in _cut(sentence, blank, size, room):
            count = size(part) if part else 0
            if held and (not together or not part or used + len(gap) + count > room):
                yield held, gap
                held, gap, used = "", "", 0
            if not part:
                yield part, after
                continue
            held, gap, used = held + gap + part, after, used + len(gap) + count
    if held or gap:
        yield held, gap


def _cut(part: str, blank: str, size: Callable[[str], int], room: int) -> Iterator[tuple[str, str]]:
    """The part whole where it fits, else in halves, at a blank if there is one."""
    if len(part) < 2 or size(part) <= room:
        yield part, blank
        return
    middle = len(part) // 2
    left, right = part.rfind(" ", 1, middle + 1), part.find(" ", middle, len(part) - 1)
    places = [place for place in (left, right) if place > 0]
    at = min(places, key=lambda place: abs(place - middle)) if places else middle
    first, second = (part[:at], part[at + 1 :]) if places else (part[:at], part[at:])
    yield from _cut(first, " " if places else "", size, room)
    yield from _cut(second, blank, size, room)
