"""Front ends against transformers' feature extractors, and the scales against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from conjure.codecs.log_mel import (
    SPEECHT5,
    WHISPER,
    Mel,
    hertz_to_mel,
    levelled,
    log_mel,
    mel_filters,
    mel_to_hertz,
    spectrum,
    whisper_features,
)
from conjure.core.errors import ConjureError


def sound(samples: int = 40_000, seed: int = 1) -> Tensor:
    """A gliding tone in noise, loud and soft."""
    at = torch.arange(samples) / 16_000
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.3 * torch.sin(2 * torch.pi * (200 + 900 * at) * at) * torch.cos(3 * at) ** 2 + 0.003 * noise


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape and got.dtype == torch.float32
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("samples", [40_000, 480_000, 500_001])
def test_whisper_hears_what_the_reference_hears(bands: int, samples: int) -> None:
    reference = tf.WhisperFeatureExtractor(feature_size=bands)
    wave = sound(samples)
    wanted = reference(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_features[0]
    close(whisper_features(wave, dataclasses.replace(WHISPER, bands=bands)), wanted)


def test_rows_are_measured_against_their_own_loudest() -> None:
    reference = tf.WhisperFeatureExtractor(chunk_length=2)
    rows = torch.stack([sound(32_000), 0.001 * sound(32_000, seed=2), torch.zeros(32_000)])
    wanted = reference(list(rows.numpy()), sampling_rate=16_000, return_tensors="pt").input_features
    found = whisper_features(rows, WHISPER, 200)
    close(found, wanted)
    close(found[1], whisper_features(rows[1], WHISPER, 200))
    assert found[2].unique().tolist() == [-1.5]


def test_speecht5_spectrogram() -> None:
    reference = tf.SpeechT5FeatureExtractor()
    wave = sound()
    wanted = reference(audio_target=wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values[0]
    close(log_mel(wave, SPEECHT5), wanted.T)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("even", [True, False])
def test_filters(scale: str, even: bool) -> None:
    mel = Mel(rate=22_050, window=1024, fft=1024, bands=40, low=50.0, high=9000.0, scale=scale, even=even)  # type: ignore[arg-type]
    wanted = mel_filter_bank(513, 40, 50.0, 9000.0, 22_050, norm="slaney" if even else None, mel_scale=scale)
    close(mel_filters(mel), torch.from_numpy(wanted.T).float())


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_scales_turn_back(scale: str) -> None:
    hertz = torch.tensor([0.0, 440.0, 1000.0, 1000.1, 7999.0], dtype=torch.float64)
    assert torch.allclose(mel_to_hertz(hertz_to_mel(hertz, scale), scale), hertz, atol=1e-9)  # type: ignore[arg-type]
    assert float(hertz_to_mel(torch.tensor(1000.0, dtype=torch.float64), scale)) == pytest.approx(  # type: ignore[arg-type]
        15.0 if scale == "slaney" else 999.985, abs=1e-3
    )


def test_a_tone_stands_in_its_bin() -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    found = spectrum(tone, WHISPER)
    assert found.shape == (201, 101) and found[:, 50].argmax() == 25  # 1000 Hz / 40 Hz
    assert float(found[25, 50]) == pytest.approx(100.0**2, rel=1e-3)  # half the sum of the window, squared


def test_natural_logarithm() -> None:
    close(log_mel(sound(), Mel(base="e")), log_mel(sound(), WHISPER) * np.log(10))


def test_levelled_waves() -> None:
    reference = tf.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    rows = [sound(1600).numpy(), 0.01 * sound(1200, seed=3).numpy() + 0.4]
    wanted = reference(rows, sampling_rate=16_000, padding=True, return_tensors="pt").input_values
    padded = torch.zeros(2, 1600)
    padded[0], padded[1, :1200] = torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
    close(levelled(padded, [1600, 1200]), wanted)
    close(levelled(padded[0]), wanted[0])


def test_what_cannot_be() -> None:
    with pytest.raises(ConjureError, match="too few for a frame of 400"):
        log_mel(torch.zeros(200), WHISPER)
    with pytest.raises(ConjureError, match="expected 0 < window <= fft"):
        Mel(window=512)
    with pytest.raises(ConjureError, match="high <= 4000 Hz"):
        Mel(rate=8000)
