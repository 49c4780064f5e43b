from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from conjure.codecs import voice_activity
from conjure.codecs.voice_activity import Chunk, Floats, VoiceActivity, chunks, floor, levels, spans
from conjure.core.errors import ConjureError

RATE = 16_000
HOW = VoiceActivity()


def noise(seconds: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


def silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * RATE), np.float32)


def voice(seconds: float, seed: int = 1) -> Floats:
    """A buzz and some breath in syllables, four a second."""
    at = np.arange(round(seconds * RATE)) / RATE
    buzz = np.sum([np.sin(2 * np.pi * 140 * n * at) / n for n in range(1, 25)], axis=0)
    return (0.1 * (buzz + 0.3 * noise(seconds, seed)) * np.sin(np.pi * 4 * at) ** 2).astype(np.float32)


def brown(seconds: float) -> Floats:
    walk = np.cumsum(noise(seconds + 0.5))
    centred = walk[4000:-3999] - np.convolve(walk, np.ones(8000) / 8000, "valid")
    return centred[: round(seconds * RATE)].astype(np.float32)


def hum(seconds: float) -> Floats:
    at = np.arange(round(seconds * RATE)) / RATE
    return np.sum([np.sin(2 * np.pi * 50 * n * at + n) / n for n in range(1, 8)], axis=0).astype(np.float32)


@pytest.mark.parametrize(
    "sound",
    [
        silence(20), *(10 ** (level / 20) * noise(20, seed=-level) for level in (-75, -50, -30, -10)),
        0.01 * brown(20), 0.2 * hum(20), np.concatenate([silence(5), 0.05 * noise(8), silence(5)]),
        np.concatenate([0.001 * noise(5), 0.03 * noise(3), 0.001 * noise(5)]),
        np.concatenate([0.0001 * noise(5), 0.3 * hum(1), 0.0001 * noise(5)]),
        np.concatenate([silence(5), np.full(1, 0.9, np.float32), silence(5)]), silence(0.01),
    ],
)  # fmt: skip
def test_silence_and_what_is_steady_is_nobody(sound: Floats) -> None:
    assert spans(sound, RATE) == []


@pytest.mark.parametrize("behind", [0.0, 0.003, 0.02])
def test_a_voice_is_found_in_noise(behind: float) -> None:
    sound = np.concatenate([silence(6), voice(4), silence(5), voice(0.6), silence(6)])
    found = spans((sound + behind * noise(len(sound) / RATE)).astype(np.float32), RATE)
    wanted = [(6.0, 10.0), (15.0, 15.6)]
    assert len(found) == 2
    for (start, end), (first, last) in zip(found, wanted, strict=True):
        assert first - 0.35 < start / RATE <= first and last - 0.05 <= end / RATE < last + 0.4


def test_a_voice_from_end_to_end_is_found() -> None:
    assert spans(voice(1.5), RATE) == [(0, round(1.5 * RATE))]
    ((start, end),) = spans(voice(20), RATE)
    assert start == 0 and end == 20 * RATE


def test_a_hiss_does_not_hide_a_low_voice() -> None:
    hiss = np.diff(0.05 * noise(12), prepend=0).astype(np.float32)
    sound = hiss.copy()
    sound[5 * RATE : 7 * RATE] += 0.3 * voice(2)
    ((start, end),) = spans(sound, RATE)
    assert 4.6 < start / RATE <= 5 and 6.9 < end / RATE < 7.4


def test_short_pauses_stay_and_long_ones_go() -> None:
    sound = np.concatenate([silence(5), voice(2), silence(0.6), voice(2), silence(2), voice(2), silence(5)])
    first, second = spans(sound, RATE)
    assert first[1] - first[0] > 4.6 * RATE and second[0] - first[1] > 1.2 * RATE


def test_floor_follows_the_noise_and_not_the_voice() -> None:
    sound = np.concatenate([0.001 * noise(8), 0.03 * noise(10)])
    sound[2 * RATE : 3 * RATE] += voice(1)
    level = levels(sound, RATE, HOW)[1]
    found = floor(level, HOW)
    quiet, loud = float(np.median(level[:150])), float(np.median(level[900:]))
    assert loud - quiet == pytest.approx(29.5, abs=0.5)
    assert np.abs(found[:760] - quiet).max() < 2 and np.abs(found[840:] - loud).max() < 2


def test_levels_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = voice(2)
    whole = levels(sound, RATE, HOW)
    assert whole.shape == (3, 1 + (len(sound) - 512) // 160)
    monkeypatch.setattr(voice_activity, "BLOCK", 7)
    assert np.array_equal(levels(sound, RATE, HOW), whole)
    tone = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE).astype(np.float32)
    leaks = 10 * np.log10(1.5)  # the window spreads a tone over three bins
    assert levels(tone, RATE, HOW)[0].mean() == pytest.approx(leaks, abs=0.05)


def test_chunks_hold_what_fits() -> None:
    found = [(0, 10 * RATE), (12 * RATE, 25 * RATE), (27 * RATE, 34 * RATE), (60 * RATE, 61 * RATE)]
    made = chunks(found, silence(61), RATE, 30.0)
    assert [each.pieces for each in made] == [tuple(found[:3]), tuple(found[3:])]
    assert [each.seconds for each in made] == [30.0, 1.0]
    assert [len(each.pieces) for each in chunks(found, silence(61), RATE, 29.9)] == [2, 1, 1]


def test_long_speech_is_cut_where_it_is_softest() -> None:
    sound = voice(25)
    sound[round(8.2 * RATE) : round(8.5 * RATE)] *= 0.001
    made = chunks([(0, len(sound))], sound, RATE, 10.0)
    (((start, cut),), *rest) = (each.pieces for each in made)
    assert start == 0 and 8.2 <= cut / RATE <= 8.5 and len(rest) >= 2
    ends = [piece for each in made for piece in each.pieces]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends)) and ends[-1][1] == len(sound)
    assert all(each.seconds <= 10 for each in made)


def test_times_of_a_chunk_are_times_of_the_sound() -> None:
    chunk = Chunk(((2 * RATE, 4 * RATE), (7 * RATE, 8 * RATE)), RATE)
    assert chunk.seconds == 3 and chunk.at(0.5) == 2.5 and chunk.at(2.5) == 7.5
    assert chunk.at(2.0) == 7.0 and chunk.at(2.0, end=True) == 4.0 and chunk.at(99) == 8.0 and chunk.at(-1) == 2.0
    assert chunk.after(1.5) == Chunk(((round(3.5 * RATE), 4 * RATE), (7 * RATE, 8 * RATE)), RATE)
    assert chunk.after(2.5) == Chunk(((round(7.5 * RATE), 8 * RATE),), RATE) and chunk.after(3.0) is None
    at = np.arange(8 * RATE, dtype=np.float32)
    assert chunk.cut(at)[2 * RATE] == 7 * RATE and len(chunk.cut(at)) == chunk.samples


def test_settings_are_checked() -> None:
    with pytest.raises(ConjureError, match="0 < leave <= enter"):
        dataclasses.replace(HOW, leave=10.0)
    with pytest.raises(ConjureError, match="0 < hop <= frame"):
        VoiceActivity(hop=0.05)
