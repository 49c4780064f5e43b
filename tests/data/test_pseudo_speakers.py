"""Speakers made of few voices: what is changed and what is not, on stand-ins for the voices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data import pseudo_speakers
from conjure.data.pseudo_speakers import ACCENTS, VARIANTS, PseudoSpeakers, SpeakerData, altered, curve
from tests.data.sounds import RATE, buzz

DATA = SpeakerData(speakers=40, sentences=3, seconds=(0.3, 0.5), texts=4)
FLAT = np.zeros(257, np.float32)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three voices instead of those of programs and sets."""
    made = {"people a": 1, "flite b": 5, "espeak c": 9}
    sounds = {name: [buzz(1.5, seed + k) for k in range(3)] for name, seed in made.items()}
    monkeypatch.setattr(pseudo_speakers, "voices", lambda part, texts: sounds)
    yield


def vowel(formant: float, pitch: float = 125.0) -> np.ndarray:
    """Harmonics of a pitch, strongest around a formant."""
    at = np.arange(RATE) / RATE
    parts = [np.exp(-(((n * pitch - formant) / 250) ** 2)) * np.sin(2 * np.pi * n * pitch * at) for n in range(1, 60)]
    made = np.sum(parts, axis=0) + 0.001 * np.random.default_rng(0).standard_normal(RATE)
    return (0.3 * made / np.abs(made).max()).astype(np.float32)


def loudest(sound: np.ndarray) -> float:
    """Hz around which most of the power is."""
    power = np.abs(np.fft.rfft(sound[2000:-2000] * np.hanning(len(sound) - 4000))) ** 2
    hertz = np.fft.rfftfreq(len(sound) - 4000, 1 / RATE)
    return float((power * hertz).sum() / power.sum())


def test_nothing_asked_for_changes_nothing() -> None:
    sound = buzz(0.6, 2)
    np.testing.assert_allclose(altered(sound, 1.0, 1.0, FLAT), sound, atol=1e-4)
    louder = altered(sound, 1.0, 1.0, FLAT + np.float32(np.log(1.5)))
    np.testing.assert_allclose(louder, 1.5 * sound, atol=1e-4)


def test_formants_move_and_the_pitch_stays() -> None:
    sound = vowel(1500.0)
    moved = altered(sound, 1.15, 1.15, FLAT)
    assert loudest(sound) == pytest.approx(1500, rel=0.02)
    assert 1600 < loudest(moved) < 1800  # a bin does not change without bound, so not quite 1725
    bins = np.abs(np.fft.rfft(moved[:16_000] * np.hanning(16_000)))  # 1 Hz each
    comb = [bins[125 * n - 3 : 125 * n + 4].max() / bins[125 * n + 40 : 125 * n + 85].max() for n in range(10, 17)]
    assert min(comb) > 5  # there is still a line every 125 Hz


def test_curves_are_slow_or_not() -> None:
    draw = np.random.default_rng(0)
    assert curve(64, range(1, 4), 0.0, draw).tolist() == [0.0] * 64
    slow, fine = (np.abs(np.diff(curve(64, waves, 1.0, draw))).mean() for waves in (range(1, 4), range(4, 13)))
    assert fine > 2 * slow


def test_examples_are_pure_and_go_in_pairs(few: None) -> None:
    source, again = PseudoSpeakers(DATA, 3), PseudoSpeakers(DATA, 3)
    for index in (5, 4, 31):
        (speaker, sound), (same, other) = source.example(index), again.example(index)
        assert speaker == same and np.array_equal(sound, other) and np.isfinite(sound).all()
    for pair in range(6):
        (one, first), (two, second) = source.example(2 * pair), source.example(2 * pair + 1)
        assert one == two and first.any() and not np.array_equal(first, second)
    assert sorted({source.example(2 * pair)[0] for pair in range(40)}) == list(range(40))  # all in an epoch
    assert not np.array_equal(PseudoSpeakers(DATA, 4).example(0)[1][:500], source.example(0)[1][:500])


def test_neighbours_are_made_of_one_voice(few: None) -> None:
    source = PseudoSpeakers(SpeakerData(speakers=200, sentences=2, texts=4))
    made_of = [source.traits(int(each)).voice for each in source._order(0)]
    changes = sum(a != b for a, b in itertools.pairwise(made_of))
    assert set(made_of) == {"people a", "flite b", "espeak c"} and changes <= 200 // 8 + 3
    assert made_of.count("people a") / 200 == pytest.approx(0.35, abs=0.1)


def test_a_speaker_sounds_like_itself(few: None) -> None:
    """The same traits in each sentence, to a few percent; those of another speaker are others."""
    source = PseudoSpeakers(DATA)
    assert source.traits(1) is source.traits(1)
    assert source.traits(1).faster != source.traits(2).faster
    assert len(source.said(1, 0)) >= 0.5 * RATE and np.abs(source.said(1, 0)).max() == 20_000


def test_voices_of_espeak_are_distinct_and_what_is_asked_for_must_make_sense() -> None:
    assert len(set(VARIANTS)) == len(VARIANTS) > 60 and len(set(ACCENTS)) == len(ACCENTS)
    with pytest.raises(ConjureError, match="2 speakers"):
        SpeakerData(speakers=1)
    with pytest.raises(ConjureError, match="shares"):
        SpeakerData(people=0.7, flite=0.4)
    with pytest.raises(ConjureError, match="seconds"):
        SpeakerData(seconds=(2.0, 1.0))
