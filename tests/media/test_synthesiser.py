"""The synthesiser: pitch, level, envelopes, and nothing that clips or clicks."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.media.music import Music, Note
from conjure.media.synthesiser import ORGAN, PEAK, PLUCKED, STRINGS, envelope, rendered, timbre

RATE = 16_000


def tone(pitch: int, *, length: int = 960, start: int = 0, program: int = 19) -> Music:
    return Music(notes=(Note(start, length, pitch),), tempo=60.0, programs=(program,))


def test_a_note_has_its_pitch_and_its_harmonics() -> None:
    sound_CT = rendered(tone(69, program=0), RATE)
    middle_N = sound_CT[0, RATE // 2 : RATE // 2 + 8192] * np.hanning(8192)
    power = np.abs(np.fft.rfft(middle_N))
    frequencies = np.fft.rfftfreq(8192, 1 / RATE)
    assert abs(frequencies[power.argmax()] - 440) < 2
    first, second = (np.square(power[np.abs(frequencies - wanted) < 10]).sum() for wanted in (440, 880))
    assert np.sqrt(second / first) == pytest.approx(PLUCKED.harmonics[1], rel=1e-4)
    assert power[np.abs(frequencies - 660) < 50].max() < 0.01 * power.max()


def test_harmonics_are_the_closed_form() -> None:
    music = Music(notes=(Note(0, 480, 60),), tempo=60.0, programs=(0,))
    found_T = rendered(music, RATE)[0]
    at_T = np.arange(len(found_T)) / RATE
    phase_T = 2 * np.pi * 440 * 2 ** (-9 / 12) * at_T
    waves = sum(a * np.sin(k * phase_T) for k, a in enumerate(PLUCKED.harmonics, 1))
    expected_T = waves * envelope(at_T, 1.0, PLUCKED)
    expected_T *= PEAK / np.abs(expected_T).max()
    assert float(np.abs(found_T - expected_T).max()) < 1e-5


@pytest.mark.parametrize("program", [0, 19, 48])
def test_nothing_clips_or_clicks(program: int) -> None:
    draw = np.random.default_rng(0)
    notes = [Note(int(t) * 120, int(draw.integers(60, 900)), int(draw.integers(36, 84)), int(draw.integers(1, 128)), v)
             for t in range(24) for v in range(4)]  # fmt: skip
    sound_CT = rendered(Music(notes=tuple(notes), tempo=90.0, programs=(program,) * 4), RATE)
    assert sound_CT.dtype == np.float32 and sound_CT.shape[0] == 2 and np.isfinite(sound_CT).all()
    assert float(np.abs(sound_CT).max()) == pytest.approx(PEAK, rel=1e-6)
    assert not sound_CT[:, 0].any() and float(np.abs(sound_CT[:, -1]).max()) < 1e-4
    # A click is a jump that the harmonics, all well below half the rate, could not make.
    high = np.abs(np.fft.rfft(sound_CT[0]))[np.fft.rfftfreq(sound_CT.shape[1], 1 / RATE) > 0.47 * RATE]
    assert float(high.max()) < 1e-3 * float(np.abs(np.fft.rfft(sound_CT[0])).max())


def test_an_envelope_rises_settles_and_dies_away() -> None:
    at_N = np.linspace(0, 2, 20_001)
    level_N = envelope(at_N, 1.5, STRINGS)
    assert level_N[0] == 0 and level_N[-1] == pytest.approx(0, abs=1e-12) and level_N.max() <= 1
    assert level_N[np.searchsorted(at_N, 1.0)] == pytest.approx(STRINGS.sustain)
    assert float(np.abs(np.diff(level_N)).max()) < 2e-3 / STRINGS.attack / 5


def test_time_and_voices() -> None:
    music = Music(notes=(Note(480, 480, 60, 80, 0), Note(480, 480, 60, 80, 1)), tempo=120.0, tempos=((480, 60.0),))
    sound_CT = rendered(music, RATE)
    first = int(np.flatnonzero(np.abs(sound_CT[0]) > 1e-6)[0])
    assert abs(first - RATE // 2) < 50 and sound_CT.shape[1] == int((1.5 + ORGAN[0].release) * RATE) + 2
    left, right = (np.square(rendered(Music(notes=(Note(0, 480, 60, 80, v), Note(0, 1, 20, 1, 1 - v))), RATE)).sum(1)
                   for v in (0, 1))  # fmt: skip
    assert left[0] > 2 * left[1] and right[1] > 2 * right[0]
    assert np.array_equal(rendered(music, RATE), sound_CT)


def test_silence_bounds_and_instruments() -> None:
    assert not rendered(Music(notes=()), RATE).any()
    with pytest.raises(ConjureError, match="at most an hour"):
        rendered(tone(60, start=480 * 3600), RATE)
    with pytest.raises(ConjureError, match="sample rate"):
        rendered(tone(60), 100)
    assert timbre(48, 0) is STRINGS and timbre(0, 2) is PLUCKED and timbre(19, 3) is ORGAN[3]
    assert not rendered(tone(127), 8_000).any()  # its first harmonic is above half the rate
