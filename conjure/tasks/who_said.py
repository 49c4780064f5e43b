"""A transcript with the names of those who speak: what was heard, beside who spoke when."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conjure.core import shelf
from conjure.core.events import Event, Result, Warn
from conjure.media.captions import SPACELESS, Segment

MODEL = "starter/who"


@dataclass(frozen=True)
class Turn:
    """Seconds, and the name of who speaks."""

    start: float
    end: float
    speaker: str

    def overlap(self, start: float, end: float) -> float:
        """Seconds of it that lie between two moments; below 0: how far it is from them."""
        return min(end, self.end) - max(start, self.start)


def turns(sound: Any, known: Sequence[str], voices: Sequence[Any] = ()) -> Generator[Event, None, list[Turn]]:
    """Who speaks when; `known` are the names of people whose `voices` are given, or, without any, files with the voices
    of people who are called as their files are."""
    from conjure.tasks.speakers import Speakers, in_files

    task, found = Speakers.load(shelf.find(MODEL)), list[Turn]()
    people = dict(zip(known, voices, strict=True)) if voices else in_files(known)
    for event in task.diarised(sound, people, task.Options(), [0]):
        if isinstance(event, Result):
            told = event.facts["results"][0]["segments"]
            found = [Turn(each["start"], each["end"], " ".join(each["speaker"].split())) for each in told]
        elif not isinstance(event, Warn):  # that nobody speaks is told of the transcript
            yield event
    return found


def told_apart(segment: Segment, turns: Sequence[Turn]) -> list[Segment]:
    """The segment under the name of who speaks in most of it; where its words have times and their speaker changes, a
    part for each. Without turns it is as it was."""
    if not turns:
        return [segment]
    if len(segment.words) < 2:
        return [replace(segment, speaker=_speaker(segment.start, segment.end, turns))]
    gap = "" if segment.language in SPACELESS else " "
    named = [(_speaker(word.start, word.end, turns), word) for word in segment.words]
    runs = [(name, [word for _, word in run]) for name, run in itertools.groupby(named, key=lambda each: each[0])]
    if len(runs) == 1:
        return [replace(segment, speaker=runs[0][0])]
    return [
        replace(segment, start=words[0].start, end=words[-1].end, text=gap.join(word.text for word in words),
                words=tuple(words), speaker=name)
        for name, words in runs
    ]  # fmt: skip


def _speaker(start: float, end: float, turns: Sequence[Turn]) -> str:
    return max(turns, key=lambda turn: turn.overlap(start, end)).speaker
