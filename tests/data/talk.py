"""Stand-ins for speech: a teacher whose voices hum one tone a letter, and the sets `ljspeech_text`, `fsdd` and
`speech_lj24` in small."""

from __future__ import annotations

import gzip
import io
import json
import wave
from pathlib import Path

import numpy as np
import soundfile

from conjure.codecs.plain_letters import spelled
from conjure.data.teacher import PHONES, VOICES, Spoken

RATE = 16_000
LETTER = 960
"""Samples of a letter."""
TEXTS = ("The cat sat.", "A dog ran!", "It's late", "We saw the sea", "No man is an island,", "Ten birds sang")


def hummed(text: str, voice: str) -> Spoken:
    """A tone for each letter, higher for later ones; each is one phone."""
    letters = spelled(text)
    at = np.arange(LETTER) / RATE
    base = 200 + 40 * (VOICES.index(voice) if voice in VOICES else 9)
    tones = [0 * at if each == " " else np.sin(2 * np.pi * (base + 60 * (ord(each) % 32)) * at) for each in letters]
    phones = [(PHONES[0] if each == " " else PHONES[1 + ord(each) % 40], (n + 1) * LETTER / RATE)
              for n, each in enumerate(letters)]  # fmt: skip
    return Spoken((8000 * np.concatenate(tones)).astype(np.int16), tuple(phones))


def write_talk(folder: Path, train: int = 6, val: int = 4) -> None:
    """FOLDER/ljspeech_text, FOLDER/fsdd and FOLDER/speech_lj24."""
    place = folder / "ljspeech_text"
    place.mkdir(parents=True)
    for part, count in (("train", train), ("val", val)):
        texts = [f"{TEXTS[n % len(TEXTS)]} {part} {'x' * (n // len(TEXTS))}" for n in range(count)]
        rows = [f"DUMMY1/LJ00{1 + n % 3}-{n:04d}.wav|{text}" for n, text in enumerate(texts)]
        with gzip.open(place / f"ljs_audio_text_{part}_filelist.txt.gz", "wt", encoding="utf-8") as to:
            to.write("\n".join(rows) + "\n")
    place = folder / "fsdd"
    place.mkdir()
    for speaker in ("george", "yweweler"):
        for digit in (1, 7):
            for take in (0, 9):
                buffer = io.BytesIO()
                with wave.open(buffer, "wb") as to:
                    to.setnchannels(1)
                    to.setsampwidth(2)
                    to.setframerate(8000)
                    to.writeframes((9000 * np.sin(np.arange(2400 + 80 * take) * digit / 5)).astype("<i2").tobytes())
                (place / f"{digit}_{speaker}_{take}.wav").write_bytes(buffer.getvalue())
    place = folder / "speech_lj24"
    place.mkdir()
    soundfile.write(place / "LJ001-0001.flac", hummed(TEXTS[0], "slt").samples, RATE)
    (place / "manifest.jsonl").write_text(json.dumps({"file": "LJ001-0001.flac", "text": TEXTS[0]}) + "\n")
