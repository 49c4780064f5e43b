from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conjure.codecs.voice_activity import Floats, VoiceActivity, spans
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Preview, Progress, Result, Warn
from conjure.media.audio import Audio
from conjure.media.captions import Format, Segment, Word
from conjure.media.recording import Live
from conjure.tasks import transcript
from conjure.tasks.transcript import Listened, Notes, later, segment, transcripts
from conjure.tasks.who_said import Turn

RATE = 8000


@dataclass(frozen=True)
class Plain:
    format: Format = "txt"
    width: int = 0
    lines: int = 2
    who: bool = False
    known: tuple[str, ...] = ()


def talk(seconds: float, *, every: float = 4.0) -> Floats:
    """Somebody who says two seconds of syllables every few seconds."""
    time, draw = np.arange(round(seconds * RATE)) / RATE, np.random.default_rng(0)
    sound = 1e-4 * draw.standard_normal(len(time))
    for start in np.arange(1.0, seconds, every):
        for at in np.arange(start, min(start + 2, seconds), 0.25):
            here = (time >= at) & (time < at + draw.uniform(0.1, 0.2))
            sound[here] += draw.uniform(0.1, 0.5) * np.sin(2 * np.pi * 300 * time[here])
    return sound.astype(np.float32)


class Reader:
    """Writes how long each phrase is, to half a second; can be made to fail after some calls."""

    def __init__(self, most: int = 1000) -> None:
        self.calls, self.most = 0, most

    def __call__(
        self, samples_N: Floats, seed: int, voice: VoiceActivity | None
    ) -> Iterator[tuple[list[Segment], float]]:
        self.calls += 1
        if self.calls > self.most:
            raise KeyboardInterrupt
        for start, end in spans(samples_N, RATE, voice) if voice else [(0, len(samples_N))]:
            begin, until = start / RATE, end / RATE
            text = f"{round(2 * (until - begin)) / 2:g}"
            yield [Segment(begin, until, text, (Word(begin, until, text),), "en")], until

    def listened(self) -> Listened:
        return Listened(read=self, rate=RATE, name="reader", voice=VoiceActivity())


def sound(seconds: float) -> Audio:
    return Audio(talk(seconds)[None], RATE)


def result(events: list[object]) -> Result:
    assert isinstance(events[-1], Result)
    return events[-1]


def test_the_pieces_are_the_text() -> None:
    events = list(transcripts([sound(9)], Reader().listened(), Plain("srt"), [1]))
    text = str(result(events).media[0])
    assert "".join(each.text for each in events if isinstance(each, Delta)) == text
    assert text.startswith("1\n00:00:00,") and text.count("-->") == 2
    assert [each.total for each in events if isinstance(each, Progress)] == [9, 9]
    (told,) = result(events).facts["results"]
    assert told["language"] == "en" and told["duration"] == 9 and len(told["segments"]) == 2


def test_long_sound_is_read_in_stretches_with_the_times_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = result(list(transcripts([sound(40)], Reader().listened(), Plain(), [1])))
    monkeypatch.setattr(transcript, "STRETCH", 13.0)
    reader = Reader()
    parts = result(list(transcripts([sound(40)], reader.listened(), Plain(), [1])))
    assert reader.calls == 4 and str(parts.media[0]) == str(whole.media[0])
    for one, other in zip(*(each.facts["results"][0]["segments"] for each in (whole, parts)), strict=True):
        assert one["start"] == pytest.approx(other["start"], abs=0.1)
        assert one["words"][0]["end"] == pytest.approx(other["words"][0]["end"], abs=0.1)


def test_what_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path))
    monkeypatch.setattr(transcript, "STRETCH", 13.0)
    monkeypatch.setattr(transcript, "NOTED_FROM", 20.0)
    whole = result(list(transcripts([sound(40)], Reader().listened(), Plain(), [1])))
    assert not list(tmp_path.glob("unfinished/*"))
    with pytest.raises(KeyboardInterrupt):
        list(transcripts([sound(40)], Reader(most=2).listened(), Plain(), [1]))
    (notes,) = tmp_path.glob("unfinished/*")
    notes.write_text(notes.read_text() + '{"until": 99')  # the last line was being written
    reader = Reader()
    events = list(transcripts([sound(40)], reader.listened(), Plain(), [2]))  # a call draws its own seed
    assert reader.calls == 2 and any(isinstance(each, Warn) and "going on at" in each.text for each in events)
    assert str(result(events).media[0]) == str(whole.media[0])
    assert result(events).facts["results"] == whole.facts["results"]
    assert not list(tmp_path.glob("unfinished/*"))


def test_notes_belong_to_a_sound_and_a_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path))
    own = Notes.of(sound(9), Reader().listened()).path
    assert own == Notes.of(sound(9), Reader().listened()).path
    another = Listened(read=Reader(), rate=RATE, name="another")
    assert len({own, Notes.of(sound(8), Reader().listened()).path, Notes.of(sound(9), another).path}) == 3


def test_speakers_are_named_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    came = []

    def found(sound: Any, known: Sequence[str], voices: Sequence[Any]) -> Generator[Event, None, list[Turn]]:
        came.append(voices)
        yield Progress(1, 1, "second", "listening")
        return [Turn(0, 4.0, "Ann"), Turn(4.0, 9, known[0])]

    monkeypatch.setattr(transcript, "turns", found)
    list(transcripts([sound(9), her := sound(3)], Reader().listened(), Plain(known=("Ben",)), [1]))
    assert came.pop() == [her]
    with pytest.raises(ConjureError, match="one sound"):
        list(transcripts([sound(9), sound(3)], Reader().listened(), Plain(), [1]))
    events = list(transcripts([sound(9)], Reader().listened(), Plain(known=("Ben",)), [1]))
    assert str(result(events).media[0]).startswith("Ann: ") and "\nBen: " in str(result(events).media[0])
    assert "".join(each.text for each in events if isinstance(each, Delta)) == str(result(events).media[0])
    assert {each["speaker"] for each in result(events).facts["results"][0]["segments"]} == {"Ann", "Ben"}


def test_live_sound_comes_phrase_by_phrase_with_what_is_being_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "PARTIAL", 1.0)  # as often as it can
    live = Live(iter(np.split(talk(10), 40)), RATE)
    events = list(transcripts([live], Reader().listened(), Plain(), [1]))
    assert [each.text.strip() for each in events if isinstance(each, Delta)] == ["2.5", "2.5", "1"]
    first = next(n for n, each in enumerate(events) if isinstance(each, Delta))
    so_far = [float(str(each.medium)) for each in events[:first] if isinstance(each, Preview)]
    assert len(so_far) > 3 and so_far == sorted(so_far)
    (told,) = result(events).facts["results"]
    assert [round(each["start"]) for each in told["segments"]] == [1, 5, 9] and told["duration"] == 10
    with pytest.raises(ConjureError, match="not in live sound"):
        list(transcripts([live], Reader().listened(), Plain(who=True), [1]))
    with pytest.raises(ConjureError, match="once"):
        list(transcripts([live], Reader().listened(), Plain(), [1, 2]))


def test_captions_are_cut_and_silence_says_nothing() -> None:
    class Wordy(Reader):
        def __call__(self, *_: object) -> Iterator[tuple[list[Segment], float]]:
            words = tuple(Word(n, n + 1, "word") for n in range(8))
            yield [Segment(0, 8, " ".join(["word"] * 8), words)], 8.0

    events = list(transcripts([sound(9)], Wordy().listened(), Plain("vtt", width=14, lines=1), [1]))
    assert str(result(events).media[0]).count("-->") == 3
    silent = list(transcripts([Audio(np.zeros((1, RATE), np.float32), RATE)], Reader().listened(), Plain(), [1, 2]))
    assert [str(each) for each in result(silent).media] == ["", ""]
    assert any(isinstance(each, Warn) and "nothing was said" in each.text for each in silent)


def test_one_sound_is_heard() -> None:
    with pytest.raises(ConjureError, match="one sound"):
        list(transcripts([sound(1), sound(1)], Reader().listened(), Plain(), [1]))


def test_a_segment_comes_back_from_its_json() -> None:
    made = Segment(1.5, 2.25, "so it is", (Word(1.5, 2.0, "so", 0.5),), "en", -0.25, 0.125, 0.2)
    assert segment(json.loads(json.dumps(made.told()))) == made
    moved = later(made, 10)
    assert (moved.start, moved.words[0].end, moved.text) == (11.5, 12.0, "so it is")
