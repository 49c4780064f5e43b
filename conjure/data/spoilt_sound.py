"""Sound made worse on purpose, so that a listener hears in rooms, in noise and through a telephone; and sounds in which
nobody speaks.

Legend: N samples, F frequencies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RATE = 16_000
_NARROW = (3300.0, 3950.0)
"""Hz above which a telephone carries nothing."""
_NOISE = 1 << 15


def at_speed(samples_N: Floats, factor: float) -> Floats:
    """The sound `factor` times as fast, and as much higher; by straight lines between samples."""
    at = np.arange(0, len(samples_N) - 1, factor)
    return np.interp(at, np.arange(len(samples_N)), samples_N).astype(np.float32)


def noise(count: int, draw: np.random.Generator) -> Floats:
    """Noise of power 1 whose spectrum falls with f^-a, a drawn from 0 (white) to 2 (brown); the same again after two
    seconds."""
    bins = np.fft.rfft(draw.standard_normal(_NOISE, dtype=np.float32))
    bins *= np.maximum(np.arange(len(bins), dtype=np.float32), 20) ** np.float32(-draw.uniform(0, 2) / 2)
    return np.resize(_even(np.fft.irfft(bins).astype(np.float32)), count)


def echoing(samples_N: Floats, draw: np.random.Generator) -> Floats:
    """In a room whose sound dies away by 60 dB within 0.1 to 0.6 s; the direct sound is 0 to 12 dB above the rest."""
    seconds = draw.uniform(0.1, 0.6)
    count = int(seconds * RATE)
    tail = draw.standard_normal(count, dtype=np.float32) * 10 ** (-3 * np.arange(count, dtype=np.float32) / count)
    tail[: int(0.002 * RATE)] = 0
    tail *= 10 ** (-draw.uniform(0, 12) / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1
    return _filtered(samples_N, tail)


def narrow(samples_N: Floats, draw: np.random.Generator) -> Floats:
    """Without what lies above about 3.5 kHz."""
    size = _fast(len(samples_N))
    bins = np.fft.rfft(samples_N, size)
    bins[int(draw.uniform(*_NARROW) / RATE * size) :] = 0
    return np.fft.irfft(bins, size)[: len(samples_N)].astype(np.float32)


def mixed(samples_N: Floats, other_N: Floats, decibels: float) -> Floats:
    """With the other sound so far below it."""
    power = float((samples_N**2).mean())
    return (samples_N + other_N * (power**0.5 * 10 ** (-decibels / 20))).astype(np.float32)


def spoilt(samples_N: Floats, draw: np.random.Generator) -> tuple[Floats, int]:
    """(the sound after what chance wants: silence around it, a room, noise, a telephone; how many samples came in
    front of it)."""
    before, after = (int(draw.uniform(0, 0.35) * RATE) for _ in range(2))
    made = np.concatenate([np.zeros(before, np.float32), samples_N, np.zeros(after, np.float32)])
    if draw.random() < 0.2:
        made = echoing(made, draw)
    if draw.random() < 0.4:
        # Speech backwards is as loud, as quick and as coloured as speech, and says nothing.
        other = np.roll(_even(made[::-1]), int(draw.integers(len(made)))) if draw.random() < 0.2 else \
            noise(len(made), draw)  # fmt: skip
        made = mixed(made, other, float(draw.uniform(8, 35)))
    if draw.random() < 0.1:
        made = narrow(made, draw)
    return made, before


def nobody(draw: np.random.Generator) -> Floats:
    """One to five seconds of noise, of tones, or of nearly nothing."""
    count = int(draw.uniform(1, 5) * RATE)
    made = noise(count, draw) * np.float32(0.1)
    if draw.random() < 0.6:
        made = mixed(_tones(count, draw), made, float(draw.uniform(10, 40)))
    return made


def _tones(count: int, draw: np.random.Generator) -> Floats:
    """Chords of tones with harmonics, struck and dying away, one after the other."""
    made, at = np.zeros(count, np.float32), 0
    while at < count:
        length = min(int(draw.uniform(0.1, 0.8) * RATE), count - at)
        t = np.arange(length, dtype=np.float32) / RATE
        chord = np.zeros(length, np.float32)
        for _ in range(int(draw.integers(1, 4))):
            hertz = 55 * 2 ** draw.uniform(0, 4.5)
            for k in range(1, int(draw.integers(2, 8))):
                if k * hertz < RATE / 2:
                    chord += np.sin(2 * np.pi * k * hertz * t).astype(np.float32) / k
        made[at : at + length] = chord * np.exp(-t * draw.uniform(0, 6)).astype(np.float32)
        at += length
    return made * np.float32(0.1)


def _even(samples_N: Floats) -> Floats:
    return samples_N / np.float32(max(float((samples_N**2).mean()) ** 0.5, 1e-6))


def _filtered(samples_N: Floats, kernel: Floats) -> Floats:
    size = _fast(len(samples_N) + len(kernel))
    bins = np.fft.rfft(samples_N, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(bins, size)[: len(samples_N)].astype(np.float32)


def _fast(count: int) -> int:
    """The next power of two: transforms of other lengths take up to ten times as long."""
    return 1 << (count - 1).bit_length()
