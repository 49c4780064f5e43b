from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from conjure.codecs.log_mel import log_mel
from conjure.core import seeds as randomness
from conjure.core.errors import ConjureError
from conjure.models.istft_vocoder import AT_ONCE, SPEECH, Vocoder, VocoderConfig, magnitudes, spectral_loss
from tests.models.small_voice import VOCODER


@pytest.fixture(scope="module")
def network() -> Vocoder:
    with randomness.drawing_weights(0):
        return Vocoder(VOCODER).eval().requires_grad_(False)


def test_frames_added_up_are_the_sound_they_came_from(network: Vocoder) -> None:
    samples_BN = randomness.normal([0, 1], (3000,))
    spectrum = torch.stft(samples_BN, SPEECH.fft, SPEECH.hop, SPEECH.window, network.window_N, return_complex=True)
    back_BN = network.sound(spectrum.abs(), spectrum.angle())
    assert back_BN.shape == samples_BN.shape
    assert float((back_BN - samples_BN).abs().max()) < 1e-5 * float(samples_BN.abs().max())


def test_one_frame_is_a_windowed_cosine() -> None:
    """Only frame 5 sounds, in one frequency: what comes is the cosine under the window over the sum of squares."""
    network = Vocoder(VOCODER)
    mel, frames, at, frequency = SPEECH, 11, 5, 20
    magnitude, phase = torch.zeros(1, mel.fft // 2 + 1, frames), torch.zeros(1, mel.fft // 2 + 1, frames)
    magnitude[0, frequency, at], phase[0, frequency, at] = 3.0, 0.7
    window = np.hanning(mel.fft + 1)[:-1]
    wanted = np.zeros((frames - 1) * mel.hop + mel.fft)
    weights = np.zeros_like(wanted)
    for t in range(frames):
        weights[t * mel.hop : t * mel.hop + mel.fft] += window**2
    n = np.arange(mel.fft)
    wanted[at * mel.hop : at * mel.hop + mel.fft] = (
        window * np.cos(2 * np.pi * frequency * n / mel.fft + 0.7) * 6 / mel.fft
    )
    half = mel.fft // 2
    wanted = (wanted[half:-half] / weights[half:-half])[: (frames - 1) * mel.hop]
    made = network.sound(magnitude, phase)[0].numpy()
    assert np.abs(made - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_length_and_pieces(network: Vocoder) -> None:
    assert network(torch.zeros(2, 80, 7)).shape == (2, 6 * SPEECH.hop)
    mel_MT = randomness.normal([0], (80, 2 * AT_ONCE + 100))[0] - 5
    whole, pieces = network(mel_MT[None])[0], network.whole(mel_MT)
    assert whole.shape == pieces.shape
    assert float((whole - pieces).abs().max()) < 1e-5 * float(whole.abs().max())


def test_the_loss_is_nothing_for_the_same_and_grows_with_distance() -> None:
    wanted = 0.3 * randomness.normal([0, 1], (4000,))
    assert float(spectral_loss(wanted, wanted, SPEECH).abs().max()) < 1e-6
    near, far = (
        spectral_loss(wanted + each * randomness.normal([2, 3], (4000,)), wanted, SPEECH) for each in (0.01, 0.3)
    )
    assert bool((near < far).all()) and bool((near > 0).all())
    halved = spectral_loss(wanted / 2, wanted, SPEECH)  # 2 ln 2 of the mel, and 1 / 2 + ln 2 of the spectra
    assert halved.numpy() == pytest.approx(2 * np.log(2) + 0.5 + np.log(2), rel=0.02)


def test_magnitudes_of_a_tone() -> None:
    tone = torch.cos(2 * torch.pi * 8 * torch.arange(2048) / 256)[None]
    found = magnitudes(tone, 256, 64)[0, :, 16]
    assert int(found.argmax()) == 8 and float(found[8]) == pytest.approx(64, rel=1e-4)
    assert float(found[40]) == pytest.approx(1e-3, rel=0.5)


def test_it_learns() -> None:
    with randomness.drawing_weights(1):
        network = Vocoder(VOCODER)
    samples = 0.3 * torch.sin(2 * torch.pi * 200 * torch.arange(8000) / 16000)[None]
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = spectral_loss(network(log_mel(samples, SPEECH)), samples, SPEECH).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_flops_count_the_products(network: Vocoder) -> None:
    c = VOCODER
    products = 80 * c.dim * 7 + c.dim * (SPEECH.fft + 2) + c.layers * (2 * c.dim * c.hidden + 7 * c.dim)
    assert network.flops(5) == 2 * 5 * products


def test_what_cannot_be() -> None:
    with pytest.raises(ConjureError, match="odd kernel"):
        VocoderConfig(kernel=4)
    with pytest.raises(ConjureError, match="whole hops"):
        VocoderConfig(mel=dataclasses.replace(SPEECH, hop=300))
