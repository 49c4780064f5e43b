"""The distance of sounds by their mel spectrograms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conjure.codecs.spectral_distance import mel_decibels


def noise(seed: int = 0, seconds: float = 1.0, rate: int = 16_000) -> Tensor:
    return torch.randn(2, round(seconds * rate), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
def test_ten_times_as_loud_are_twenty_decibels(rate: int) -> None:
    sound = 0.05 * noise(rate=rate)
    assert mel_decibels(10 * sound, sound, rate).tolist() == pytest.approx([20.0, 20.0], abs=0.05)


def test_silence_is_far_from_sound_but_not_endlessly() -> None:
    silence = torch.zeros(2, 16_000)
    assert 0 < float(mel_decibels(silence, noise(), 16_000).max()) < 200
    assert mel_decibels(silence, silence, 16_000).tolist() == [0, 0]
