"""Faults of voice leading: examples from textbooks, and a rule that never lets one through."""

from __future__ import annotations

import numpy as np

from conjure.core.seeds import rng
from conjure.metrics.voice_leading import COMFORT, Faults, allowed, cadence, closing, faults, opening

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


def test_beginnings_and_ends() -> None:
    piece_TV = np.array([[-1, -1, -1, -1], [72, 67, 64, -1], *CLEAN])
    assert opening(piece_TV, 4) and not opening(piece_TV, 0) and not opening(piece_TV[:1], 0)
    for last, ends in (
        ([72, 67, 64, 48], True), ([72, 67, 63, 48], True), ([72, 64, 60, 48], True),  # major, minor, without its fifth
        ([72, 67, 64, 52], False), ([72, 67, 60, 48], False), ([72, 67, 65, 48], False), ([72, 64, 63, 48], False),
        ([-1, -1, -1, -1], False),
    ):  # fmt: skip
        assert cadence(np.array([*CLEAN, last]), 0) == ends
    assert cadence(np.array([[74, 69, 66, 50]]), 2) and not cadence(np.array([[74, 69, 66, 50]]), 0)


def test_every_chord_that_is_closed_by_the_rule_is_a_cadence() -> None:
    draw, pitches_N, order = rng(1), np.arange(36, 82), (0, 3, 1, 2)
    for trial in range(200):
        tonic, minor = int(draw.integers(12)), bool(draw.integers(2))
        now_V = np.full(4, -1)
        for voice in order:
            ok_N = closing(now_V, voice, tonic, minor, pitches_N)
            assert 3 <= ok_N.sum() < len(pitches_N), trial
            now_V[voice] = draw.choice(pitches_N[ok_N])
        assert cadence(now_V[None], tonic) and (minor or 3 not in (now_V - tonic) % 12)
    assert closing(np.array([62, -1, -1, -1]), 3, 0, False, pitches_N).all()  # told: a D over what should be C major
    assert closing(np.array([-1, -1, -1, 43]), 0, 0, True, pitches_N).all()


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
