"""Faults of voice leading in four parts: parallel fifths and octaves, crossings, wide spacing, notes out of range.

Counted over changes: a step in which no voice moves is part of the chord before it.

Legend: T steps, V voices from the highest to the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

COMFORT = ((60, 81), (53, 74), (48, 69), (40, 62))
"""Ranges that textbooks of harmony give soprano, alto, tenor and bass: C4 to A5, F3 to D5, C3 to A4, E2 to D4."""
FIFTH, OCTAVE = 7, 0
SPAN = 12
"""At most so many semitones lie between soprano and alto, and between alto and tenor."""


@dataclass(frozen=True)
class Faults:
    """How often each fault occurs in a piece of so many `chords`."""

    chords: int
    parallel_fifths: int
    parallel_octaves: int
    range: int
    """Notes struck out of `COMFORT`."""
    crossing: int
    """Chords in which a voice lies below its lower neighbour."""
    spacing: int
    """Chords in which neighbours but tenor and bass are more than an octave apart."""

    @property
    def total(self) -> int:
        return self.parallel_fifths + self.parallel_octaves + self.range + self.crossing + self.spacing


def faults(grid_TV: np.ndarray) -> Faults:
    """Of a piece, int `[T, 4]` with -1 for rests."""
    moved_T = np.ones(len(grid_TV), bool)
    moved_T[1:] = (grid_TV[1:] != grid_TV[:-1]).any(1)
    chords_TV = grid_TV[moved_T].astype(int)
    struck_TV = np.ones_like(chords_TV, bool)
    struck_TV[1:] = chords_TV[1:] != chords_TV[:-1]
    low_V, high_V = np.array(COMFORT).T
    outside_TV = struck_TV & (chords_TV >= 0) & ((chords_TV < low_V) | (chords_TV > high_V))
    both_TV = (chords_TV[:, :-1] >= 0) & (chords_TV[:, 1:] >= 0)
    gaps_TV = chords_TV[:, :-1] - chords_TV[:, 1:]
    return Faults(
        chords=len(chords_TV),
        parallel_fifths=parallels(chords_TV, FIFTH),
        parallel_octaves=parallels(chords_TV, OCTAVE),
        range=int(outside_TV.sum()),
        crossing=int((both_TV & (gaps_TV < 0)).any(1).sum()),
        spacing=int((both_TV[:, :2] & (gaps_TV[:, :2] > SPAN)).any(1).sum()),
    )


def parallels(chords_TV: np.ndarray, interval: int) -> int:
    """How often two voices move in one direction from an interval to the same one, octaves apart counted as one."""
    count = 0
    for upper, lower in combinations(range(chords_TV.shape[1]), 2):
        a_T, b_T = chords_TV[:, upper], chords_TV[:, lower]
        sounding_T = (a_T >= 0) & (b_T >= 0)
        same_T = sounding_T & ((a_T - b_T) % 12 == interval)
        up_T, down_T = np.diff(a_T), np.diff(b_T)
        count += int((same_T[1:] & same_T[:-1] & (up_T * down_T > 0)).sum())
    return count


def opening(grid_TV: np.ndarray, tonic: int) -> bool:
    """Whether the first chord that sounds has the tonic, 0 to 11, in its lowest voice."""
    chords = [chord_V[chord_V >= 0] for chord_V in grid_TV if (chord_V >= 0).any()]
    return bool(chords) and int(chords[0][-1]) % 12 == tonic


def cadence(grid_TV: np.ndarray, tonic: int) -> bool:
    """Whether the last step is the triad of the tonic, major or minor, with its root in the lowest voice. Its fifth may
    be missing."""
    last = grid_TV[-1][grid_TV[-1] >= 0] if len(grid_TV) else np.empty(0, int)
    tones = {int(pitch - tonic) % 12 for pitch in last}
    return len(last) > 0 and int(last[-1]) % 12 == tonic and len(tones & {3, 4}) == 1 and tones <= {0, 3, 4, 7}


def closing(now_V: np.ndarray, voice: int, tonic: int, minor: bool, pitches_N: np.ndarray) -> np.ndarray:
    """Which of some pitches `voice` can take so that the chord becomes the triad that ends a piece, bool `[N]`: see
    `cadence`. In minor its third may be major.

    `now_V` is the chord so far, -1 for what is not chosen; all pitches are right where it is another chord already.
    """
    tones = {int(pitch - tonic) % 12 for pitch in now_V[now_V >= 0]}
    thirds = tones & {3, 4}
    bass = int(now_V[-1])
    if not tones <= {0, 3, 4, 7} or len(thirds) > 1 or (bass >= 0 and (bass - tonic) % 12 != 0):
        return np.ones(len(pitches_N), bool)
    wanted = thirds or ({3, 4} if minor else {4})
    if voice == len(now_V) - 1:
        wanted = {0}
    elif thirds or (np.delete(now_V, voice) < 0).any():  # else this is the last one who can sing the third
        wanted = wanted | {0, 7}
    return (pitches_N >= 0) & np.isin((pitches_N - tonic) % 12, list(wanted))


def allowed(before_V: np.ndarray, now_V: np.ndarray, voice: int, pitches_N: np.ndarray) -> np.ndarray:
    """Which of some pitches `voice` can take without a fault, bool `[N]`.

    `before_V` is the step before and `now_V` the notes of this step so far, -1 for rests and for what is not chosen.
    A rest is never a fault.
    """
    ok_N = np.ones(len(pitches_N), bool)
    sounding_N = pitches_N >= 0
    for other in range(len(now_V)):
        if other == voice or now_V[other] < 0:
            continue
        gap_N = (pitches_N - now_V[other]) * (1 if voice < other else -1)
        ok_N &= ~sounding_N | (gap_N >= 0)
        if abs(other - voice) == 1 and max(voice, other) < len(now_V) - 1:
            ok_N &= ~sounding_N | (gap_N <= SPAN)
        if before_V[voice] >= 0 and before_V[other] >= 0:
            old = (before_V[min(voice, other)] - before_V[max(voice, other)]) % 12
            moves_N = (pitches_N - before_V[voice]) * (now_V[other] - before_V[other]) > 0
            if old in (FIFTH, OCTAVE):
                ok_N &= ~(sounding_N & moves_N & (gap_N % 12 == old))
    low, high = COMFORT[voice]
    return ok_N & (~sounding_N | ((pitches_N >= low) & (pitches_N <= high)))
