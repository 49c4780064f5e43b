"""What every program has to do: the same sound, the same parts, the same number of tokens.

Legend: N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

RATE = 16_000
CHUNK = {"toy": 2, "tiny": 30, "base": 30, "small": 30}
"""Seconds that a model hears at once."""


@dataclass(frozen=True)
class Work:
    folder: str
    """A Whisper as the hub has it; below it `ctranslate2`, the same for that program."""
    size: str
    program: str
    """conjure, transformers, ctranslate2, librosa."""
    weights: str = "fp32"
    """fp32 or int8."""
    parts: int = 1
    """Of the sound, each as long as the model hears at once."""
    batch: int = 1
    """Parts that are read together."""
    tokens: int = 112
    """Written about each part, no more and no fewer."""
    threads: int = 2
    mel: bool = False
    """Only the spectrogram."""

    @property
    def seconds(self) -> int:
        return self.parts * CHUNK[self.size]

    def batches(self) -> list[range]:
        """The numbers of the parts that are read together."""
        return [range(at, min(at + self.batch, self.parts)) for at in range(0, self.parts, self.batch)]


def sound(seconds: float, seed: int = 0):  # type: ignore[no-untyped-def]  (numpy is imported when it is needed)
    """float32 `[N]` at `RATE`: bursts of coloured noise, five a second with pauses between them, as speech has
    syllables and words."""
    import numpy as np

    luck = np.random.default_rng(seed)
    made = 0.001 * luck.standard_normal(int(seconds * RATE)).astype(np.float32)
    at = 0
    while at < len(made):
        length = int(luck.uniform(0.08, 0.25) * RATE)
        burst = luck.standard_normal(length)
        colour = np.exp(-0.5 * ((np.fft.rfftfreq(length, 1 / RATE) - luck.uniform(300, 3000)) / 400) ** 2)
        burst = np.fft.irfft(np.fft.rfft(burst) * colour, length) * np.hanning(length)
        burst *= luck.uniform(0.05, 0.3) / max(1e-9, float(np.abs(burst).max()))
        made[at : at + length] += burst[: len(made) - at].astype(np.float32)
        at += length + int((0.4 if luck.random() < 0.2 else 0.02) * RATE)
    return made
