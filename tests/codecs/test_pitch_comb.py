from __future__ import annotations

import numpy as np
import pytest
import torch

from conjure.codecs.log_mel import Mel, log_mel
from conjure.codecs.pitch_comb import SMOOTH, Comb, smoothed

MEL = Mel(window=800, fft=800, hop=200, power=1.0, floor=1e-5, base="e")


@pytest.fixture(scope="module")
def comb() -> Comb:
    return Comb(MEL)


def buzz(hertz: float, seconds: float = 0.5) -> torch.Tensor:
    """Cosines of one height at all multiples of a pitch."""
    n = np.arange(round(seconds * MEL.rate))
    turns = 2 * np.pi * hertz / MEL.rate * np.outer(np.arange(1, int(7900 / hertz)), n)
    phases = np.random.default_rng(1).uniform(0, 2 * np.pi, (len(turns), 1))
    return torch.from_numpy(np.cos(turns + phases).sum(0).astype(np.float32))


@pytest.mark.parametrize("hertz", [95.0, 210.0])
def test_without_its_comb_a_buzz_is_flat(comb: Comb, hertz: float) -> None:
    mel_TM = log_mel(buzz(hertz), MEL).T[3:-3]
    plain_TM = mel_TM - comb(np.full(len(mel_TM), hertz))
    low = slice(2, 25)  # bands in which harmonics lie apart
    assert plain_TM.mean(0)[low].std() < 0.35 * mel_TM.mean(0)[low].std()
    wrong_TM = mel_TM - comb(np.full(len(mel_TM), 1.25 * hertz))
    assert wrong_TM.mean(0)[low].std() > 2 * plain_TM.mean(0)[low].std()


def test_no_pitch_has_no_ripples(comb: Comb) -> None:
    found_TM = comb(np.array([0.0, 120.0, 30.0, 5000.0]))
    assert not found_TM[0].any() and found_TM[1].abs().max() > 0.5
    assert torch.equal(found_TM[2], comb.ripples[0]) and torch.allclose(found_TM[3], comb.ripples[-1])


def test_smoothed_is_a_projection() -> None:
    mel_TM = torch.randn(4, 80, generator=torch.Generator().manual_seed(0))
    once = smoothed(mel_TM)
    torch.testing.assert_close(smoothed(once), once, atol=1e-4, rtol=0)
    torch.testing.assert_close(smoothed(mel_TM, 80), mel_TM, atol=1e-4, rtol=0)
    at_M = torch.arange(80) + 0.5
    for k, kept in ((SMOOTH - 1, 1.0), (SMOOTH, 0.0)):
        wave_1M = torch.cos(torch.pi / 80 * at_M * k)[None]
        torch.testing.assert_close(smoothed(wave_1M), kept * wave_1M, atol=1e-3, rtol=0)
