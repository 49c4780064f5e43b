from __future__ import annotations

import numpy as np
import pytest

from conjure.metrics.voicing import pitches, voiced
from tests.data.sounds import buzz


@pytest.mark.parametrize("hertz", [80, 125, 230, 380])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_harmonics_are_a_voice_of_their_pitch(hertz: int, rate: int) -> None:
    at = np.arange(rate) / rate
    sound = np.sum([np.cos(2 * np.pi * hertz * n * at) / n for n in range(1, 12)], axis=0)
    share, high = voiced(pitches(0.01 * sound, rate))
    assert share == 1 and high == pytest.approx(hertz, rel=0.02)


def test_noise_silence_and_nothing_are_none() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000)
    assert voiced(pitches(noise, 16_000))[0] < 0.02
    for sound in (np.zeros(16_000), np.zeros(10)):
        share, high = voiced(pitches(sound, 16_000))
        assert share == 0 and np.isnan(high)


def test_pauses_are_counted_as_such() -> None:
    sound = np.concatenate([buzz(1, 2), np.zeros(16_000, np.float32)])
    share, high = voiced(pitches(sound, 16_000))
    assert 0.3 < share < 0.5 and high == pytest.approx(134, rel=0.02)
