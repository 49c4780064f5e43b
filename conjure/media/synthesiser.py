"""A small synthesiser: notes to sound by sums of harmonics, in the manner of a calm organ or of strings.

A note is a tone of a few harmonics with an envelope that rises, settles and dies away in raised cosines, so nothing
begins or ends with a step. Harmonics follow from the first one by sin(k x) = 2 cos(x) sin((k - 1) x) - sin((k - 2) x).

Legend: C channels, T samples of the piece, N samples of a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conjure.core.errors import ConjureError
from conjure.media.music import Music, Note

PEAK = 0.8
MAX_SECONDS = 3600
NYQUIST_SHARE = 0.45
"""Harmonics above this share of the sample rate are left out."""
_BLOCK = 1 << 16  # samples that are computed at once


@dataclass(frozen=True)
class Timbre:
    """How a voice sounds; times in seconds, levels as shares of the full one."""

    harmonics: tuple[float, ...]
    """Strength of the first harmonic, the second, ..."""
    attack: float
    decay: float
    sustain: float
    release: float
    ranks: tuple[float, ...] = (0.0,)
    """Cents by which each of several pipes or strings is out of tune; together they beat slowly."""


FLUTE = Timbre((1.0, 0.32, 0.1, 0.06, 0.02), 0.06, 0.15, 0.9, 0.25, (-1.5, 1.5))
PRINCIPAL = Timbre((1.0, 0.55, 0.28, 0.2, 0.09, 0.06, 0.03, 0.02), 0.04, 0.12, 0.85, 0.22, (-1.2, 1.2))
STRINGS = Timbre((1.0, 0.5, 0.33, 0.22, 0.16, 0.11, 0.08, 0.05), 0.12, 0.2, 0.85, 0.35, (-4.0, 0.0, 4.0))
PLUCKED = Timbre((1.0, 0.45, 0.25, 0.12, 0.06), 0.006, 0.9, 0.25, 0.3)
ORGAN = (FLUTE, FLUTE, PRINCIPAL, PRINCIPAL)
"""Of the four voices from the highest on."""


def timbre(program: int, voice: int) -> Timbre:
    """The nearest one to an instrument of General MIDI: strings from 40 to 55, what is plucked or struck up to 15 and
    from 24 to 39, else the organ."""
    if 40 <= program < 56:
        return STRINGS
    if program < 16 or 24 <= program < 40:
        return PLUCKED
    return ORGAN[voice % len(ORGAN)]


def rendered(music: Music, rate: int = 32_000) -> np.ndarray:
    """The sound of a piece, float32 `[2, T]`: its voices from left to right, the last release included, the loudest
    sample at `PEAK`; silence stays silence.

    `ConjureError` where the piece is longer than an hour or the rate out of 8,000 to 192,000.
    """
    if not 8_000 <= rate <= 192_000:
        raise ConjureError(f"expected a sample rate of 8,000 to 192,000 Hz, got {rate:,}")
    if music.seconds > MAX_SECONDS:
        raise ConjureError(f"expected a piece of at most an hour, got {music.seconds / 60:,.0f} minutes")
    count = max((note.voice for note in music.notes), default=0) + 1
    sounds = [timbre((*music.programs, *(19,) * count)[voice], voice) for voice in range(count)]
    longest = max((each.release for each in sounds), default=0.0)
    out_CT = np.zeros((2, max(1, int((music.seconds + longest) * rate) + 2)), np.float32)
    starts = music.times([note.start for note in music.notes])
    ends = music.times([note.start + note.length for note in music.notes])
    for note, start, end in zip(music.notes, starts, ends, strict=True):
        angle = np.pi / 4 * (1 + (0.0 if count == 1 else 1.2 * note.voice / (count - 1) - 0.6))
        _add(out_CT, note, start, end, sounds[note.voice], rate, np.array([np.cos(angle), np.sin(angle)]))
    peak = float(np.abs(out_CT).max())
    if peak > 0:
        out_CT *= PEAK / peak
    return out_CT


def envelope(at_N: np.ndarray, length: float, timbre: Timbre) -> np.ndarray:
    """The level at each time, in seconds from the beginning of a note that is let go after `length`."""

    def risen(share_N: np.ndarray) -> np.ndarray:
        return 0.5 - 0.5 * np.cos(np.pi * np.clip(share_N, 0, 1))

    settled = 1 - (1 - timbre.sustain) * risen((at_N - timbre.attack) / timbre.decay)
    return risen(at_N / timbre.attack) * settled * (1 - risen((at_N - length) / timbre.release))


def _add(
    out_CT: np.ndarray, note: Note, start: float, end: float, timbre: Timbre, rate: int, pan_C: np.ndarray
) -> None:
    """One note into the piece, a block at a time."""
    first, last = int(np.ceil(start * rate)), min(out_CT.shape[1], int((end + timbre.release) * rate) + 1)
    # Low notes need more strength to sound as loud as high ones.
    level = (note.velocity / 127) ** 1.5 * 2 ** ((60 - note.pitch) / 48)
    for begin in range(first, last, _BLOCK):
        at_N = np.arange(begin, min(last, begin + _BLOCK)) / rate - start
        tone_N = np.zeros(len(at_N))
        for rank, cents in enumerate(timbre.ranks):
            frequency = 440 * 2 ** ((note.pitch - 69 + cents / 100) / 12)
            _harmonics(tone_N, 2 * np.pi * frequency * at_N + rank, frequency, timbre, rate)
        tone_N *= envelope(at_N, end - start, timbre) * (level / len(timbre.ranks))
        out_CT[:, begin : begin + len(at_N)] += (pan_C[:, None] * tone_N).astype(np.float32)


def _harmonics(tone_N: np.ndarray, phase_N: np.ndarray, frequency: float, timbre: Timbre, rate: int) -> None:
    """Adds the harmonics of one phase that fit below the limit of the rate."""
    double_N, older_N, newer_N = 2 * np.cos(phase_N), np.zeros(len(phase_N)), np.sin(phase_N)
    total = sum(timbre.harmonics)
    for k, strength in enumerate(timbre.harmonics, 1):
        if k * frequency >= NYQUIST_SHARE * rate:
            return
        tone_N += strength / total * newer_N
        older_N, newer_N = newer_N, double_N * newer_N - older_N
