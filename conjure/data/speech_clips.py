"""Speech of people and of the teacher in clips of one length, for codecs, and whole sentences that were held out.

Of people: read sentences of `librispeech_speakers`, four speakers for training and two held out, and digits of `fsdd`;
`speech_lj24`, a seventh reader, is held out. Of the teacher: flite's voices (`data/teacher.py`).

Legend: N samples of a clip, T samples of a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.archives import file, files
from conjure.data.fetch import get
from conjure.data.read_sentences import ReadSentences
from conjure.media.audio import Audio, decode

RATE = 16_000
READERS, DIGITS, READER = "librispeech_speakers", "fsdd", "speech_lj24"
HELD_OUT = ("2609", "3005")
"""Speakers of `librispeech_speakers` whom nothing is trained on."""
TAKES = range(5, 15)
"""Of each digit of `fsdd` and each speaker; 0 to 4 are its test part."""
SPEEDS = (0.85, 1.18)
"""Half of the clips are played slower or faster, pitch and all: few people sound like more."""
HELD_SETS = ("librispeech", "lj", "teacher")
EVERY = 5
"""So many sentences of the teacher's "val" part stand for one that is measured."""


@dataclass(frozen=True, kw_only=True)
class ClipData:
    """The `data:` section of codecs' recipes."""

    seconds: float = 1.0
    """Of a clip."""
    people: float = 0.5
    """Share of clips of people who read."""
    digits: float = 0.1
    """Share of clips of digits."""
    texts: int = 512
    """Sentences that the teacher says, over all its voices."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.texts < 4 or min(self.people, self.digits) < 0 or self.people + self.digits > 1:
            raise ConjureError(f"data: expected seconds above 0, 4 texts or more, and shares within 1, got {self}")


class SpeechClips:
    """`example(i)` is a pure function of (seed, i)."""

    def __init__(self, data: ClipData, seed: int = 0) -> None:
        self.data, self.seed, self.size = data, seed, round(data.seconds * RATE)
        self.teacher = ReadSentences("train", data.texts, seed)

    @cached_property
    def people(self) -> list[np.ndarray]:
        """float32 `[T]` each."""
        return [sound for speaker, _, sound in readers() if speaker not in HELD_OUT]

    @cached_property
    def digits(self) -> list[bytes]:
        """WAV files of 8 kHz, as they are: they are many and short."""
        found = []
        for name, data in files(get(DIGITS), "*.wav"):
            take = name.removesuffix(".wav").rpartition("_")[2]
            if take.isdigit() and int(take) in TAKES:
                found.append(data)
        if not found:
            raise ConjureError(f"the set {DIGITS} holds no files like recordings/0_george_5.wav")
        return found

    def example(self, index: int) -> np.ndarray:
        """float32 `[N]` within -1 and 1, not silent but for short pauses."""
        draw = rng(derive(self.seed, "clip", index))
        kind, speed = draw.random(), float(np.exp(draw.uniform(*np.log(SPEEDS)))) if draw.random() < 0.5 else 1.0
        need = int(np.ceil(self.size * speed)) + 8
        if kind < self.data.people:
            lengths = np.array([len(each) for each in self.people], float)
            found = self.people[int(draw.choice(len(lengths), p=lengths / lengths.sum()))]
        elif kind < self.data.people + self.data.digits:
            found = self._digits(draw, need)
        else:
            found = self.teacher.example(int(draw.integers(1 << 40)))[1].samples.astype(np.float32) / 32768
        at = int(draw.integers(max(1, len(found) - need)))
        return _played(found[at : at + need], speed, self.size)

    def _digits(self, draw: np.random.Generator, need: int) -> np.ndarray:
        """Several, one after the other."""
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < need:
            data = self.digits[int(draw.integers(len(self.digits)))]
            parts.append(decode(data, DIGITS).at(RATE).mono())
        return np.concatenate(parts)


def readers() -> Iterator[tuple[str, str, np.ndarray]]:
    """(speaker, name of the file, float32 `[T]` at 16 kHz) of all sentences of `librispeech_speakers`."""
    for name, data in files(get(READERS), "*.flac"):
        yield name.split("/")[-2], name, decode(data, name).at(RATE).mono()


def held(name: str, limit: int | None = None) -> list[np.ndarray]:
    """Whole sentences that nothing is trained on, float32 `[T]` each: of the two speakers, of the seventh reader, or of
    the teacher saying the "val" part of its texts (every fifth of them)."""
    if name == "librispeech":
        found = [sound for speaker, _, sound in readers() if speaker in HELD_OUT]
    elif name == "lj":
        found = [decode(data, each).at(RATE).mono() for each, data in files(get(READER), "*.flac")]
    elif name == "teacher":
        every = ReadSentences("val")
        found = [every[index][1].samples.astype(np.float32) / 32768 for index in range(0, len(every), EVERY)]
    else:
        raise ConjureError(f"expected one of {', '.join(HELD_SETS)}, got '{name}'")
    return found[:limit]


def held_texts(name: str) -> list[str]:
    """What is said in the sentences of `held`, of those two sets whose texts are known."""
    if name == "lj":
        rows = [json.loads(line) for line in file(get(READER), "manifest.jsonl").decode().splitlines() if line]
        said = {row["file"]: row["text"] for row in rows}
        return [said[each] for each, _ in files(get(READER), "*.flac")]
    if name == "teacher":
        every = ReadSentences("val")
        return [every[index][1].text for index in range(0, len(every), EVERY)]
    raise ConjureError(f"expected lj or teacher, got '{name}'")


def _played(sound_T: np.ndarray, speed: float, size: int) -> np.ndarray:
    """So many samples of a sound that is played at another speed; silence behind what is too short."""
    if speed != 1.0:
        import soxr

        sound_T = soxr.resample(np.ascontiguousarray(sound_T), RATE * speed, RATE, quality="MQ")
    sound_T = np.clip(sound_T[:size], -1, 1).astype(np.float32)
    return np.pad(sound_T, (0, size - len(sound_T)))


def as_audio(sound_T: np.ndarray) -> Audio:
    return Audio(np.ascontiguousarray(np.clip(sound_T, -1, 1), np.float32)[None], RATE)


class SpeechSentences:
    """The training sentences of people, as they are and at both of `SPEEDS`, and of the teacher, whole: `[i]` float32
    `[T]`, those of people first."""

    def __init__(self, texts: int) -> None:
        sounds = [sound for speaker, _, sound in readers() if speaker not in HELD_OUT]
        self.people = [_played(sound, each, int(len(sound) / each)) for each in (1.0, *SPEEDS) for sound in sounds]
        self.teacher = ReadSentences("train", texts)

    def __len__(self) -> int:
        return len(self.people) + len(self.teacher)

    def __getitem__(self, index: int) -> np.ndarray:
        if index < len(self.people):
            return self.people[index]
        return self.teacher[index - len(self.people)][1].samples.astype(np.float32) / 32768
