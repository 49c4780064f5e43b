"""What a listener hears, written down: segment by segment, in a format, of sound of any length, once or live.

`transcripts` is the one loop of the tasks that write speech down. Sound that is long is read in stretches, and what was
heard of it is noted in a file of the cache: the same command, run again after it was stopped, goes on from there.

Legend: N samples.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from conjure.codecs.stretches import phrases, stretches
from conjure.codecs.voice_activity import Floats, VoiceActivity
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Preview, Progress, Result, Warn
from conjure.core.paths import cache_dir
from conjure.media.audio import Audio
from conjure.media.captions import Format, Segment, Word, Writer, shortened
from conjure.media.recording import LIVE, Live, Recording
from conjure.media.text import Text
from conjure.tasks.who_said import told_apart, turns

STRETCH = 600.0
"""Seconds that are held at once."""
BLOCK = 30.0
NOTED_FROM = 900.0
"""Seconds of sound from which what was heard is noted."""
PARTIAL = 0.5
"""Share of the time that may go into what is not yet said to its end."""

Read = Callable[[Floats, int, VoiceActivity | None], Iterator[tuple[Sequence[Segment], float]]]
"""(mono samples, seed, how speech is found, None for all is speech) -> (next segments, seconds done), as
`Transcriber.transcribe` gives them."""


class Layout(Protocol):
    """The options of a task that say how the text is laid out."""

    @property
    def format(self) -> Format: ...
    @property
    def width(self) -> int: ...
    @property
    def lines(self) -> int: ...
    @property
    def who(self) -> bool: ...
    @property
    def known(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Listened:
    """A listener at work: `read` takes sound at `rate`; `name` says all that what it hears depends on, but the sound
    and the seed; `voice` is None where everything is read."""

    read: Read
    rate: int
    name: str
    voice: VoiceActivity | None = None


def transcripts(
    inputs: Sequence[Any], listened: Listened, layout: Layout, seeds: Sequence[int]
) -> Iterator[Event]:
    """One text per seed; a single one comes segment by segment. Behind the sound may come the voices of those who are
    `known`, which else lie in files. `ConjureError` where there is not one sound."""
    began = time.perf_counter()
    if not inputs or inputs[0].kind != "audio" or len(inputs) not in (1, 1 + len(layout.known)):
        raise ConjureError(f"expected one sound to listen to, got {len(inputs)} inputs",
                           hint="give them one after the other")  # fmt: skip
    (sound, *voices), made, results = inputs, [], []
    if isinstance(sound, Live) and len(seeds) > 1:
        raise ConjureError("live sound can be heard once: expected --count 1", hint="leave --count out")
    who = layout.who or bool(layout.known)
    if isinstance(sound, Live) and who:
        raise ConjureError("who speaks is found in recordings, not in live sound", hint="leave --who and --known out")
    captions = layout.width > 0 and layout.format in ("srt", "vtt")
    spoken = (yield from turns(sound, layout.known, voices)) if who else []
    for seed in seeds:
        writer, segments, pieces = Writer(layout.format, layout.width), list[Segment](), list[str]()
        seconds = 0.0
        for found, seconds in _heard(sound, listened, seed, noted=len(seeds) == 1):
            if isinstance(found, Event):
                yield found
                continue
            for each in (part for segment in found for part in told_apart(segment, spoken)):
                for segment in shortened(each, layout.width * layout.lines) if captions else [each]:
                    segments.append(segment)
                    pieces.append(writer.push(segment))
                    if len(seeds) == 1 and pieces[-1]:
                        yield Delta(pieces[-1])
            if not isinstance(sound, Live):
                yield Progress(int(seconds), max(1, int(sound.seconds)), "second", "listening")
        pieces.append(writer.finish())
        if len(seeds) == 1 and pieces[-1]:
            yield Delta(pieces[-1])
        if not segments:
            yield Warn("nothing was said, or it was too soft to tell from the noise (--no-gate reads all of it)")
        made.append(Text("".join(pieces)))
        results.append(told(segments, seconds if isinstance(sound, Live) else sound.seconds))
    yield Result(made, {"results": results, "seconds": round(time.perf_counter() - began, 3)})


def told(segments: Sequence[Segment], seconds: float) -> dict[str, Any]:
    """What the JSON says: the language most is in, how long the sound is, and every segment."""
    spoken = Counter[str]()
    for each in segments:
        spoken[each.language] += round(1000 * (each.end - each.start)) + 1
    said = {"language": max(spoken, key=spoken.__getitem__)} if any(spoken) else {}
    return {**said, "duration": round(seconds, 3), "segments": [each.told() for each in segments]}


def _heard(
    sound: Any, listened: Listened, seed: int, *, noted: bool
) -> Iterator[tuple[Sequence[Segment] | Event, float]]:
    """(segments, or something to say; seconds done)."""
    if isinstance(sound, Live):
        yield from _live(sound, listened, seed)
        return
    if isinstance(sound, Audio) and sound.seconds <= STRETCH:
        yield from listened.read(Audio(sound.mono()[None], sound.rate).at(listened.rate).mono(), seed,
                                 listened.voice)  # fmt: skip
        return
    notes = Notes.of(sound, listened) if noted and sound.seconds >= NOTED_FROM else None
    until, known = notes.read() if notes else (0, [])
    if until:
        yield Warn(f"going on at {until / listened.rate:,.0f} s, where it was stopped before"), until / listened.rate
        yield known, until / listened.rate
    for at, samples_N in stretches(_blocks(sound, listened.rate), listened.rate, STRETCH):
        if at < until:
            continue
        here, found = at / listened.rate, list[Segment]()
        for segments, done in listened.read(samples_N, seed, listened.voice):
            moved = [later(each, here) for each in segments]
            found += moved
            yield moved, here + done
        if notes:
            notes.add(at + len(samples_N), found)
    if notes:
        notes.clear()


def _blocks(sound: Audio | Recording, rate: int) -> Iterator[Floats]:
    if isinstance(sound, Recording):
        yield from sound.blocks(rate, BLOCK)
    else:
        yield Audio(sound.mono()[None], sound.rate).at(rate).mono()


def _live(sound: Live, listened: Listened, seed: int) -> Iterator[tuple[Sequence[Segment] | Event, float]]:
    """Phrases as they end; what is not yet said to its end as a preview, within a share of the time."""
    rate, heard, ready = listened.rate, 0, 0.0

    def blocks() -> Iterator[Floats]:
        nonlocal heard
        for block in sound.blocks(rate, LIVE):
            heard += len(block)
            yield block

    for phrase in phrases(blocks(), rate, listened.voice):
        if phrase is None or (not phrase.over and time.monotonic() < ready):
            yield (), heard / rate
            continue
        began = time.monotonic()
        here = phrase.start / rate
        found = [later(each, here) for some, _ in listened.read(phrase.samples_N, seed, None)
                 for each in some]  # fmt: skip
        ended = time.monotonic()
        if phrase.over:
            yield found, heard / rate
        else:
            ready = ended + (ended - began) * (1 / PARTIAL - 1)
            text = Text(" ".join(each.text for each in found))
            yield Preview(lambda text=text: text), heard / rate
    yield (), heard / rate


def later(segment: Segment, seconds: float) -> Segment:
    """The same, that much later."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)


class Notes:
    """What was heard so far, in a file of the cache: a line for each stretch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, sound: Any, listened: Listened) -> Notes:
        """Whatever the seed is: a call without one draws it anew, and would find nothing to go on with."""
        whole = f"{sound.digest()} {listened.name} {STRETCH:g}"
        return cls(cache_dir() / "unfinished" / f"{hashlib.sha256(whole.encode()).hexdigest()}.jsonl")

    def read(self) -> tuple[int, list[Segment]]:
        """(the first sample that was not heard, what was said before it); a line that was cut off does not count."""
        until, found = 0, list[Segment]()
        if not self.path.is_file():
            return until, found
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                break
            until, found = said["until"], [*found, *map(segment, said["segments"])]
        return until, found

    def add(self, until: int, found: Iterable[Segment]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"until": until, "segments": [each.told() for each in found]}, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def segment(said: Mapping[str, Any]) -> Segment:
    """A segment from what `Segment.told` says of it."""
    words = tuple(Word(each["start"], each["end"], each["text"], each.get("probability", 1.0))
                  for each in said.get("words", ()))  # fmt: skip
    return Segment(**{**said, "words": words})
