"""librosa: the spectrogram alone, put on Whisper's scale by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.sound.work import RATE, Work, sound


def load(work: Work) -> Callable[[], dict[str, Any]]:
    """What is timed: a function without arguments."""
    import librosa

    samples = sound(work.seconds)
    length = work.seconds // work.parts * RATE
    parts = [samples[at : at + length] for at in range(0, len(samples), length)]

    def run() -> dict[str, Any]:
        total = 0.0
        for part in parts:
            power = librosa.feature.melspectrogram(
                y=part, sr=RATE, n_fft=400, hop_length=160, n_mels=80, pad_mode="reflect"
            )
            found = np.log10(np.maximum(power[:, :-1], 1e-10))
            total += float(((np.maximum(found, found.max() - 8) + 4) / 4).astype(np.float64).sum())
        return {"sum": total}

    return run
