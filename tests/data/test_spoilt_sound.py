"""What makes sound worse does what it says, by levels and spectra."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.core.seeds import rng
from conjure.data.spoilt_sound import RATE, at_speed, echoing, mixed, narrow, nobody, noise, spoilt


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def peak(samples_N: np.ndarray) -> float:
    """Hz of the strongest frequency."""
    return float(np.abs(np.fft.rfft(samples_N)).argmax()) * RATE / len(samples_N)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_speed_moves_pitch_and_length(factor: float) -> None:
    made = at_speed(tone(400), factor)
    assert len(made) == pytest.approx(RATE / factor, abs=2)
    assert peak(made) == pytest.approx(400 * factor, abs=2)
    assert made.dtype == np.float32


def test_noise_has_power_one_and_any_length() -> None:
    for seed, count in enumerate((100, 32_768, 50_001)):
        made = noise(count, rng(seed))
        assert (made.shape, made.dtype) == ((count,), np.float32)
    assert float((noise(1 << 15, rng(5)) ** 2).mean()) == pytest.approx(1, rel=1e-3)


def test_a_mixture_has_the_ratio_that_was_asked_for() -> None:
    voice, other = tone(300), noise(RATE, rng(1))
    added = mixed(voice, other, 10.0) - voice
    ratio = 10 * np.log10((voice**2).mean() / (added**2).mean())
    assert ratio == pytest.approx(10, abs=0.3)


def test_a_room_leaves_the_direct_sound_where_it_was_and_a_tail_behind_it() -> None:
    click = np.zeros(RATE, np.float32)
    click[1000] = 1
    made = echoing(click, rng(3))
    assert made.argmax() == 1000
    assert np.abs(made[:1000]).max() < 1e-5
    assert (made[1100:3000] ** 2).sum() > 10 * (made[9000:] ** 2).sum() > 0


def test_a_telephone_carries_nothing_high() -> None:
    made = narrow(tone(400) + tone(5000), rng(0))
    bins = np.abs(np.fft.rfft(made))
    assert bins[5000] < 0.02 * bins[400]


def test_what_is_spoilt_is_the_same_for_the_same_draw_and_tells_what_came_in_front() -> None:
    voice = tone(300)
    for seed in range(12):
        made, before = spoilt(voice, rng(seed))
        again, _ = spoilt(voice, rng(seed))
        np.testing.assert_array_equal(made, again)
        assert len(made) >= len(voice) + before
        assert np.isfinite(made).all()
        part = made[before : before + len(voice)]
        assert np.corrcoef(part, voice)[0, 1] > 0.6


def test_nobody_is_a_sound_of_some_seconds() -> None:
    for seed in range(6):
        made = nobody(rng(seed))
        assert RATE <= len(made) <= 5 * RATE
        assert made.dtype == np.float32
        assert 0 < np.abs(made).max() < 3
