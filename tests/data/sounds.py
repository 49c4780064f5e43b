"""Stand-ins for the sets of speech: buzzing that swells as speech does, in the folders' own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from conjure.data import speech_clips
from conjure.data.teacher import PHONES, Rendered

RATE = 16_000


def buzz(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """float32 `[T]`: harmonics of a pitch that is the seed's own, four syllables a second."""
    at = np.arange(round(seconds * rate)) / rate
    pitch = 100 + 17 * seed
    tone = np.sum([np.sin(2 * np.pi * pitch * n * at) / n for n in range(1, 20)], axis=0)
    noise = np.random.default_rng(seed).standard_normal(len(at))
    return ((0.15 * tone + 0.02 * noise) * np.sin(np.pi * 4 * at) ** 2).astype(np.float32)


class Teacher:
    """In the place of `ReadSentences`, which needs a program."""

    def __init__(self, split: str, texts: int | None = None, seed: int = 0) -> None:
        self.shift = 50 if split == "val" else 30

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[int, Rendered]:
        samples = np.rint(32767 * buzz(1.2, self.shift + index)).astype(np.int16)
        return index % 4, Rendered(f"text {index}", samples, np.array([PHONES.index("aa")]), np.array([len(samples)]))

    def example(self, index: int) -> tuple[int, Rendered]:
        return self[index % len(self)]


def placed(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """All sets in `folder`, where they are then looked for."""
    for at, speaker in enumerate(("1688", "1998", *speech_clips.HELD_OUT)):
        for take in range(2):
            path = folder / "librispeech_speakers" / speaker / f"{speaker}-1-000{take}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, buzz(1.5 + 0.2 * take, 2 * at + take), RATE, format="FLAC")
    for digit in range(3):
        for take in (0, 5, 6):
            path = folder / "fsdd" / "recordings" / f"{digit}_george_{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, buzz(0.3, 10 + digit + take, 8000), 8000, format="WAV")
    (folder / "speech_lj24").mkdir()
    for number in range(2):
        soundfile.write(folder / "speech_lj24" / f"LJ001-000{number}.flac", buzz(1.3, 20 + number, 22_050), 22_050,
                        format="FLAC")  # fmt: skip
    patch.setenv("CONJURE_DATA", str(folder))
    patch.setattr(speech_clips, "ReadSentences", Teacher)
    return folder
