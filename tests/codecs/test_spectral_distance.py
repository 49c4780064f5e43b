"""Distances of sounds by their mel spectrograms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conjure.codecs.spectral_distance import WINDOWS, mel_decibels, resolutions, spectral_distance


def noise(seed: int = 0, seconds: float = 1.0, rate: int = 16_000) -> Tensor:
    return torch.randn(2, round(seconds * rate), generator=torch.Generator().manual_seed(seed))


def test_a_factor_is_its_logarithm_at_every_resolution() -> None:
    assert [mel.fft for mel in resolutions(16_000)] == [window for window, _ in WINDOWS]
    assert spectral_distance(2 * noise(), noise(), 16_000).tolist() == pytest.approx([math.log(2)] * 2, abs=2e-3)
    assert spectral_distance(noise(), noise(), 16_000).tolist() == [0, 0]
    assert float(spectral_distance(noise(1), noise(), 16_000).min()) > 0.3


def test_a_network_can_follow_it() -> None:
    sound = (0.1 * noise(1)).requires_grad_()
    apart = spectral_distance(sound, noise(), 16_000)
    (grad,) = torch.autograd.grad(apart.sum(), sound)
    assert bool(grad.isfinite().all())
    assert bool((spectral_distance(sound - 20 * grad, noise(), 16_000) < apart).all())


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_ten_times_as_loud_are_twenty_decibels(rate: int) -> None:
    sound = 0.05 * noise(rate=rate)
    assert mel_decibels(10 * sound, sound, rate).tolist() == pytest.approx([20.0, 20.0], abs=0.05)


def test_silence_is_far_from_sound_but_not_endlessly() -> None:
    silence = torch.zeros(2, 16_000)
    assert 0 < float(mel_decibels(silence, noise(), 16_000).max()) < 200
    assert mel_decibels(silence, silence, 16_000).tolist() == [0, 0]
