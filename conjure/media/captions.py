"""What was said and when, as plain text, SubRip, WebVTT, JSON or Markdown.

Each format is written segment by segment (`Writer`), so that it can be shown while it is made.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Format = Literal["txt", "srt", "vtt", "json", "md"]
PARAGRAPH = 1.5
"""Seconds of pause that begin a new line of plain text."""
SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages that are written without spaces between words."""


@dataclass(frozen=True)
class Word:
    """`start` and `end` in seconds; the text has no space around it. `probability` is that of its tokens."""

    start: float
    end: float
    text: str
    probability: float = 1.0


@dataclass(frozen=True)
class Segment:
    """A phrase or sentence. `language` is a code, "" where it is not known."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    language: str = ""
    confidence: float | None = None
    """The mean log-probability of its tokens, where it is known."""
    no_speech: float | None = None
    """How probable it was that nobody speaks."""
    temperature: float | None = None
    """At which it was drawn."""
    speaker: str = ""
    """The name of who speaks, where that was asked."""

    def told(self) -> dict[str, Any]:
        """For JSON: what is known of it, times in milliseconds' precision."""
        said = {name: value for name, value in asdict(self).items() if value not in ((), "", None)}
        said |= {"start": round(self.start, 3), "end": round(self.end, 3), "text": self.text}
        if self.words:
            said["words"] = [
                {"start": round(w.start, 3), "end": round(w.end, 3), "text": w.text,
                 "probability": round(w.probability, 4)} for w in self.words
            ]  # fmt: skip
        for name in ("confidence", "no_speech", "temperature"):
            if (value := getattr(self, name)) is not None:
                said[name] = round(value, 4)
        return said


class Writer:
    """`push(segment)` gives the next piece of the file, `finish()` the last: together they are the file."""

    def __init__(self, format: Format, width: int = 0) -> None:  # noqa: A002  what it is called everywhere
        """Lines of captions have at most `width` characters, 0: no end."""
        self.format: Format = format
        self.width, self.count = width, 0
        self._before: Segment | None = None
        self._held: list[Segment] = []

    def push(self, segment: Segment) -> str:
        piece = _PIECES[self.format](self, segment)
        self._before, self.count = segment, self.count + 1
        return piece

    def finish(self) -> str:
        if self.format == "json":
            said = {"text": as_text(self._held), "segments": [each.told() for each in self._held]}
            return json.dumps(said, ensure_ascii=False, indent=1) + "\n"
        return "WEBVTT\n" if self.format == "vtt" and self._before is None else ""

    def text(self, segment: Segment) -> str:
        """Behind a space, a line end after a pause, or, where a language has no spaces, nothing."""
        last = self._before
        if self._turned(segment):
            return f"{'' if last is None else chr(10)}{segment.speaker}: {segment.text}"
        if last is None:
            return segment.text
        if segment.start - last.end >= PARAGRAPH:
            return f"\n{segment.text}"
        return f"{'' if segment.language in SPACELESS and last.language in SPACELESS else ' '}{segment.text}"

    def markdown(self, segment: Segment) -> str:
        """A paragraph for each pause and each change of the speaker, its time in front."""
        turned = self._turned(segment)
        if self._before is not None and segment.start - self._before.end < PARAGRAPH and not turned:
            return self.text(segment)
        gap = "\n\n" if self._before is not None else ""
        name = f" {segment.speaker}" if turned else ""
        return f"{gap}**[{clock(segment.start, '.')[:-4]}]{name}** {segment.text}"

    def subrip(self, segment: Segment) -> str:
        return f"{self.count + 1}\n{self._block(segment, ',')}\n\n"

    def webvtt(self, segment: Segment) -> str:
        head = "WEBVTT\n" if self._before is None else ""
        return f"{head}\n{self._block(segment, '.')}\n"

    def hold(self, segment: Segment) -> str:
        self._held.append(segment)
        return ""

    def _turned(self, segment: Segment) -> bool:
        """Whether somebody else begins to speak."""
        return bool(segment.speaker) and (self._before is None or self._before.speaker != segment.speaker)

    def _block(self, segment: Segment, mark: str) -> str:
        """WebVTT has a tag for the speaker; in SubRip the name stands in front."""
        web = self.format == "vtt"
        said = segment.text if web or not segment.speaker else f"{segment.speaker}: {segment.text}"
        text = "\n".join(textwrap.wrap(said, self.width) if self.width else [said])
        if web:
            text = f"<v {_escaped(segment.speaker)}>{_escaped(text)}" if segment.speaker else _escaped(text)
        text = text.replace("-->", "->")  # an arrow would be read as a line of times
        return f"{clock(segment.start, mark)} --> {clock(max(segment.end, segment.start), mark)}\n{text}"


_PIECES: dict[Format, Callable[[Writer, Segment], str]] = {
    "txt": Writer.text, "srt": Writer.subrip, "vtt": Writer.webvtt, "json": Writer.hold, "md": Writer.markdown,
}  # fmt: skip


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def clock(seconds: float, mark: str) -> str:
    """`01:02:03,456`, the mark before the milliseconds."""
    total = round(max(0.0, seconds) * 1000)
    return f"{total // 3_600_000:02}:{total // 60_000 % 60:02}:{total // 1000 % 60:02}{mark}{total % 1000:03}"


def written(segments: Iterable[Segment], format: Format, width: int = 0) -> str:  # noqa: A002
    """All segments in a format."""
    writer = Writer(format, width)
    return "".join([*(writer.push(each) for each in segments), writer.finish()])


def as_text(segments: Iterable[Segment]) -> str:
    """The words alone; a pause begins a new line."""
    return written(segments, "txt")


def as_srt(segments: Iterable[Segment], width: int = 0) -> str:
    """SubRip."""
    return written(segments, "srt", width)


def as_vtt(segments: Iterable[Segment], width: int = 0) -> str:
    """WebVTT (W3C)."""
    return written(segments, "vtt", width)


def as_json(segments: Iterable[Segment]) -> str:
    """The text, and what is known of each segment."""
    return written(segments, "json")


def as_markdown(segments: Iterable[Segment]) -> str:
    """A paragraph for each pause, its time in front."""
    return written(segments, "md")


def shortened(segment: Segment, longest: int) -> list[Segment]:
    """A segment whose words have times, in parts of at most `longest` characters that end where a sentence or clause
    does if there is such a place in the second half; one without words as it is."""
    if len(segment.text) <= longest or len(segment.words) < 2:
        return [segment]
    gap = "" if segment.language in SPACELESS else " "
    parts: list[list[Word]] = [[]]
    for word in segment.words:
        line = gap.join(each.text for each in parts[-1])
        full = bool(line) and len(line) + len(gap) + len(word.text) > longest
        if full or (len(line) > longest // 2 and line.endswith((".", "?", "!", ",", ";", ":", "。", "、", "？"))):
            parts.append([])
        parts[-1].append(word)
    return [
        replace(segment, start=part[0].start, end=part[-1].end, text=gap.join(w.text for w in part), words=tuple(part))
        for part in parts
    ]
