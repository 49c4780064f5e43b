"""SI-SDR in closed form, and STOI by pystoi."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.metrics.sound_quality import si_sdr, stoi


def noise(seed: int, samples: int = 32_000) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal(samples)
    return (made - made.mean()).astype(np.float32)


def test_noise_at_a_level_and_at_any_scale() -> None:
    true, other = noise(0).astype(np.float64), noise(1).astype(np.float64)
    other -= (other @ true) / (true @ true) * true  # at right angles
    other *= np.linalg.norm(true) / np.linalg.norm(other)
    for decibels in (-10, 0, 7):
        made = true + other * 10 ** (-decibels / 20)
        assert si_sdr(made, true) == pytest.approx(decibels, abs=1e-6)
        assert si_sdr(-3 * made + 5, true) == pytest.approx(decibels, abs=1e-6)


def test_ends_of_the_scale() -> None:
    true, silence = noise(0), np.zeros(32_000, np.float32)
    assert si_sdr(true, true) > 100
    assert si_sdr(silence, true) == si_sdr(true, silence) == -math.inf
    with pytest.raises(ConjureError, match="one length"):
        si_sdr(true, true[1:])


def test_stoi_falls_with_noise() -> None:
    swell = np.sin(np.arange(32_000) / 16_000 * 2 * np.pi * 4) ** 2
    speech = noise(0) * swell
    found = [stoi(speech + level * noise(1), speech, 16_000) for level in (0, 0.1, 1, 10)]
    assert found[0] == pytest.approx(1, abs=1e-6) and found == sorted(found, reverse=True) and found[3] < 0.4
    assert math.isnan(stoi(speech[:3000], speech[:3000], 16_000))
