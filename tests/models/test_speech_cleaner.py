"""Spectrograms there and back, what a network of chosen gains does, and how loud a sound is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import drawing_weights
from conjure.models.speech_cleaner import SILENCE, CleanerConfig, SpeechCleaner, level

TINY = CleanerConfig(window=64, dim=16, hidden=32, kernel=3, dilations=(1, 2), low=9, taps=3)


def network(config: CleanerConfig = TINY, seed: int = 1) -> SpeechCleaner:
    with drawing_weights(seed):
        return SpeechCleaner(config).eval().requires_grad_(False)


def gains(made: SpeechCleaner, value: float) -> SpeechCleaner:
    """The same gain for all bins, no phase turned."""
    for parameter in (made.gain.weight, made.filter.weight):
        parameter.zero_()
    made.gain.bias.fill_(value - 1)
    made.filter.bias.zero_()
    return made


def noise(count: int, rows: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(rows, count, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 1000, 1024])
def test_a_spectrogram_gives_the_sound_back(count: int) -> None:
    made, sound_BN = network(), noise(count, 2)
    spectrogram_BTF = made.spectrogram(sound_BN)
    assert spectrogram_BTF.shape == (2, -(-count // 32) + 1, 33)
    torch.testing.assert_close(made.sound(spectrogram_BTF, count), sound_BN, rtol=0, atol=1e-6)


def test_a_spectrogram_is_that_of_torch() -> None:
    made, sound_BN = network(), noise(960)
    wanted_BFT = torch.stft(sound_BN, 64, 32, window=made.window_W, pad_mode="constant", return_complex=True)
    torch.testing.assert_close(made.spectrogram(sound_BN), wanted_BFT.transpose(1, 2), rtol=0, atol=1e-5)


def test_full_gain_changes_nothing_and_none_leaves_nothing() -> None:
    sound_BN = noise(500)
    made_BN, gain_BTF = gains(network(), 50.0).clean(sound_BN)
    torch.testing.assert_close(made_BN, sound_BN, rtol=0, atol=1e-6)
    assert torch.all(gain_BTF == 1)
    made_BN, _ = gains(network(), -50.0).clean(sound_BN)
    assert float(made_BN.abs().max()) < 1e-6


def test_the_filter_takes_its_taps_from_the_frames_around() -> None:
    made = gains(network(), -50.0)
    bias_LK2 = made.filter.bias.view(9, 3, 2)
    bias_LK2[4, 0, 1] = 2.0  # of bin 4: twice the frame before, turned by a quarter
    noisy_BTF = made.spectrogram(noise(500))
    made_BTF, _ = made(noisy_BTF)
    wanted_BTF = torch.zeros_like(noisy_BTF)
    wanted_BTF[:, 1:, 4] = 2j * noisy_BTF[:, :-1, 4]
    torch.testing.assert_close(made_BTF, wanted_BTF, rtol=0, atol=1e-6)


def test_nothing_beyond_its_reach_takes_part() -> None:
    made, config = network(), TINY
    sound_BN = noise(3000)
    other_BN = sound_BN.clone()
    other_BN[:, 1500] += 1
    apart_N = (made.clean(sound_BN)[0] - made.clean(other_BN)[0])[0].abs()
    changed = apart_N.nonzero()[:, 0]
    assert 1500 - config.reach <= int(changed.min()) < 1500 < int(changed.max()) <= 1500 + config.reach
    assert int(changed.max() - changed.min()) > config.reach  # it does look around


def test_everything_learns() -> None:
    made = network().requires_grad_(True)
    made_BTF, _ = made(made.spectrogram(noise(500)))
    made.sound(made_BTF, 500).square().sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in made.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_flops_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    made = network()
    with FlopCounterMode(display=False) as counter:
        made.clean(noise(32 * 100))
    assert counter.get_total_flops() == pytest.approx(made.flops(32 * 101), rel=0.02)


def test_loudness_leaves_pauses_out() -> None:
    tone_N = np.sin(np.arange(16_000) * 2 * np.pi * 1000 / 16_000).astype(np.float32)
    assert level(0.1 * tone_N) == pytest.approx(0.1 / 2**0.5, rel=1e-4)
    with_pause_N = np.concatenate([0.1 * tone_N, np.zeros(160_000, np.float32)])
    assert level(with_pause_N) == pytest.approx(0.1 / 2**0.5, rel=1e-4)
    assert level(tone_N[:16]) == pytest.approx(0.5**0.5, rel=1e-4)
    assert level(np.zeros(5000, np.float32)) == level(np.full(9, SILENCE / 2, np.float32)) == 0


@pytest.mark.parametrize(
    "wrong", [{"window": 33}, {"low": 34}, {"kernel": 2}, {"taps": 2}, {"dilations": ()}, {"dim": 0}]
)
def test_bad_shapes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConjureError, match="model"):
        CleanerConfig(**{"window": 64, "low": 9, **wrong})  # type: ignore[arg-type]
