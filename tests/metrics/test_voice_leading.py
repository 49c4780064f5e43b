"""Faults of voice leading: examples from textbooks, and a rule that never lets one through."""

from __future__ import annotations

import numpy as np

from conjure.core.seeds import rng
from conjure.metrics.voice_leading import COMFORT, Faults, allowed, faults

CLEAN = [[67, 64, 60, 48], [69, 65, 60, 53], [71, 67, 62, 55], [72, 67, 60, 48]]


def found(*chords: list[int]) -> Faults:
    return faults(np.array(chords))


def test_a_clean_cadence() -> None:
    # From F major to G major soprano, alto and tenor go up with the bass: no fifth or octave stays one.
    clean = found([72, 69, 65, 53], [71, 67, 62, 55], [72, 67, 64, 48])
    assert clean == Faults(3, 0, 0, 0, 0, 0) and clean.total == 0


def test_parallels() -> None:
    fifths = found([72, 67, 60, 53], [74, 67, 62, 55])  # soprano and tenor over the bass, and an octave apart
    assert (fifths.parallel_octaves, fifths.parallel_fifths) == (1, 2)
    assert found([72, 67, 64, 48], [72, 69, 65, 50]).parallel_fifths == 1  # alto over bass: 67/48 and 69/50
    assert found([67, 64, 60, 48], [67, 64, 60, 48]).chords == 1
    assert found([72, 67, 60, 53], [60, 67, 60, 41]).parallel_octaves == 0
    twelfth = found([67, -1, -1, 48], [69, -1, -1, 50])
    assert twelfth.parallel_fifths == 1 and found([67, -1, -1, 48], [65, -1, -1, 50]).parallel_fifths == 0
    octave = found([72, -1, -1, 48], [74, -1, -1, 50])
    assert octave.parallel_octaves == 1 and found([72, -1, -1, -1], [74, -1, -1, 50]).total == 0


def test_crossing_spacing_and_range() -> None:
    assert found([60, 64, 55, 48]).crossing == 1 and found([60, 60, 60, 60]).crossing == 0
    assert found([79, 65, 60, 48]).spacing == 1 and found([72, 60, 48, 48]).spacing == 0
    assert found([72, 67, 60, 40]).spacing == 0  # tenor and bass may be far apart
    assert found([84, 74, 65, 39]).range == 2 and found([84, 74, 65, 50], [84, 74, 65, 48]).range == 1
    assert found([-1, -1, -1, -1]) == Faults(1, 0, 0, 0, 0, 0)


def test_held_chords_are_one() -> None:
    piece_TV = np.repeat(np.array(CLEAN), 4, axis=0)
    assert faults(piece_TV) == faults(np.array(CLEAN)) and faults(piece_TV).chords == 4


def test_what_is_allowed_is_no_fault_and_what_is_not_is_one() -> None:
    draw, pitches_N = rng(0), np.arange(33, 87, 2)
    bad = good = 0
    for _ in range(24):
        before_V, now_V = (np.sort(draw.integers(45, 75, 4))[::-1] for _ in range(2))
        voice = int(draw.integers(4))
        ok_N = allowed(before_V, np.where(np.arange(4) == voice, -1, now_V), voice, pitches_N)
        rest_V = now_V.copy()
        rest_V[voice] = -1
        least = faults(np.stack([before_V, rest_V])).total
        for pitch, ok in zip(pitches_N.tolist(), ok_N.tolist(), strict=True):
            chord_V = now_V.copy()
            chord_V[voice] = pitch
            if pitch == before_V[voice] and not COMFORT[voice][0] <= pitch <= COMFORT[voice][1]:
                continue  # held, so counted once before
            total = faults(np.stack([before_V, chord_V])).total
            # A chord is counted once however many of its neighbours cross: only the direction is sure.
            if ok:
                assert total == least
                good += 1
            else:
                bad += 1
    assert good > 50 and bad > 50
    assert allowed(np.full(4, -1), np.array([-1, 67, 60, 48]), 0, np.array([66, 67, 79, 80, -1])).tolist() == [
        False, True, True, False, True
    ]  # fmt: skip
    fifth = allowed(np.array([67, 64, 60, 48]), np.array([-1, 65, 60, 50]), 0, np.array([69, 67, 62]))
    assert fifth.tolist() == [False, True, False]
