"""What was heard, beside who spoke when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from conjure.core.events import Event, Progress, Result, Warn
from conjure.media.captions import Segment, Word
from conjure.media.text import Text
from conjure.tasks import speakers
from conjure.tasks.speakers import SpeakersOptions
from conjure.tasks.who_said import Turn, told_apart, turns

TURNS = (Turn(0, 4, "Ann"), Turn(4.5, 9, "Ben"), Turn(9, 10, "Ann"))


def spoken(*words: tuple[float, float, str], language: str = "en") -> Segment:
    made = tuple(Word(start, end, text) for start, end, text in words)
    return Segment(made[0].start, made[-1].end, " ".join(word.text for word in made), made, language)


def test_most_of_it_says_whose_it_is() -> None:
    plain = Segment(3, 6, "so it goes")
    assert [each.speaker for each in told_apart(plain, TURNS)] == ["Ben"]  # 1.5 s of 3
    assert [each.speaker for each in told_apart(Segment(10.5, 11, "yes"), TURNS)] == ["Ann"]  # after all: the nearest
    assert told_apart(plain, ()) == [plain]


def test_words_go_to_their_speakers() -> None:
    found = told_apart(spoken((3, 3.4, "good"), (3.5, 4.2, "night"), (4.3, 5, "and"), (8.9, 9.9, "thanks")), TURNS)
    assert [(each.speaker, each.text, each.start, each.end) for each in found] == [
        ("Ann", "good night", 3, 4.2), ("Ben", "and", 4.3, 5), ("Ann", "thanks", 8.9, 9.9)
    ]  # fmt: skip
    assert [len(each.words) for each in found] == [2, 1, 1] and {each.language for each in found} == {"en"}
    whole = spoken((1, 2, "one"), (2, 3, "two"))
    (same,) = told_apart(whole, TURNS)
    assert same.speaker == "Ann" and same.words == whole.words and same.text == whole.text


def test_turns_come_from_the_model_of_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Mapping[str, Any]]()

    class Voices:
        Options = SpeakersOptions

        @classmethod
        def load(cls, folder: Path) -> Voices:
            assert folder.name == "who"
            return cls()

        def diarised(
            self, sound: Any, people: Mapping[str, Any], options: SpeakersOptions, seeds: Sequence[int]
        ) -> Iterator[Event]:
            asked.append(people)
            yield Progress(1, 2, "second", "listening")
            yield Warn("nobody speaks")
            told = {"segments": [{"start": 0.5, "end": 2.0, "speaker": "Ann\n\n1"}]}
            yield Result([Text("")], {"results": [told]})

    monkeypatch.setattr(speakers, "Speakers", Voices)
    steps, events = turns("a sound", ["Ann"], ["her voice"]), list[Event]()
    try:
        while True:
            events.append(next(steps))
    except StopIteration as end:
        assert end.value == [Turn(0.5, 2.0, "Ann 1")]  # a name is one line of captions
    assert asked == [{"Ann": "her voice"}] and [type(each) for each in events] == [Progress]
