"""A stand-in for the program flite: a letter is a phone of 50 ms, commas and both ends are pauses of 100 ms."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from conjure.data import teacher

RATE = 16_000
_PHONES = dict(zip("abcdefghijklmnopqrstuvwxyz", (
    "ae b k d eh f g hh ih jh k l m n ow p k r s t ah v w z y z").split()))  # fmt: skip


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the program's place, and gives caches and data folders of their own."""
    monkeypatch.setattr(teacher, "_flite", said)
    monkeypatch.setenv("CONJURE_CACHE", str(folder / "cache"))
    monkeypatch.setenv("CONJURE_DATA", str(folder / "data"))


def said(*arguments: str) -> str:
    """What the program would print; where it is told to, it writes the sound."""
    phones = phones_of(arguments[arguments.index("-t") + 1])
    if "-ps" in arguments:
        return " ".join(phones)
    pitch = 100 + 40 * teacher.VOICES.index(arguments[arguments.index("-voice") + 1])
    at, lines, parts = 0.0, [], []
    for phone in phones:
        seconds = 0.1 if phone == "pau" else 0.05
        at += seconds
        lines.append(f"{phone}:{at:.3f}")
        times = np.arange(round(seconds * RATE)) / RATE
        hertz = pitch + 25 * (len(phone) + ord(phone[0]) % 7)
        parts.append((30 if phone == "pau" else 6000) * np.sin(2 * np.pi * hertz * times))
    with wave.open(arguments[arguments.index("-o") + 1], "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(np.concatenate(parts).astype("<i2").tobytes())
    return " ".join(lines) + " \n"


def phones_of(text: str) -> list[str]:
    phones = ["pau"]
    for each in text.lower():
        if each in _PHONES:
            phones.append(_PHONES[each])
        elif each in ",;:" and phones[-1] != "pau":
            phones.append("pau")
    return phones if phones[-1] == "pau" else [*phones, "pau"]


def sentences(folder: Path, train: int = 8, val: int = 4) -> None:
    """A small `ljspeech_text` in the data folder of `install`."""
    place = folder / "data" / "ljspeech_text"
    place.mkdir(parents=True)
    words = ["old", "ships", "sail", "home", "under", "grey", "clouds", "today"]
    for name, count in (("train", train), ("val", val)):
        rows = [f"wavs/{name}{k}.wav|{words[k % 8].title()} {words[(k + 3) % 8]}, {words[(3 * k + 1) % 8]} {name}."
                for k in range(count)]  # fmt: skip
        (place / f"ljs_audio_text_{name}_filelist.txt").write_text("\n".join(rows) + "\n")
