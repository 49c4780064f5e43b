"""Cleaning speech: any rate, length and number of channels; what is nothing; training and figures on stand-ins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result, Warn
from conjure.data.noisy_speech import NoisyData
from conjure.media.audio import Audio
from conjure.models.speech_cleaner import CleanerConfig
from conjure.tasks import enhance, enhance_figures
from conjure.tasks.enhance import Enhance, EnhanceOptions, cleaned, pieces, ratio, spectral
from tests.data.sounds import buzz
from tests.data.test_noisy_speech import with_effects
from tests.models.test_speech_cleaner import gains, network

MODEL = CleanerConfig(dim=16, hidden=32, kernel=3, dilations=(1, 2), low=20)


def task(value: float | None = None) -> Enhance:
    """Of random weights, or with one gain for everything."""
    made = network(MODEL)
    return Enhance(made if value is None else gains(made, value), NoisyData())


def run(made: Enhance, sound: Audio, **options: Any) -> tuple[Audio, list[str], list[Progress], Result]:
    events = list(made.generate([sound], EnhanceOptions(**options), [0]))
    result = events[-1]
    assert isinstance(result, Result) and isinstance(result.media[0], Audio)
    told = [event.text for event in events if isinstance(event, Warn)]
    return result.media[0], told, [event for event in events if isinstance(event, Progress)], result


def stereo(seconds: float, rate: int) -> Audio:
    return Audio(np.stack([buzz(seconds, 3, rate), 0.1 * buzz(seconds, 5, rate)]), rate)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 192_000])
def test_full_gain_gives_the_sound_back_at_any_rate(rate: int) -> None:
    sound = stereo(0.7, rate)
    made, told, progress, _ = run(task(50.0), sound)
    assert made.rate == rate and made.samples.shape == sound.samples.shape
    middle = slice(rate // 20, -(rate // 20))  # at the ends a resampler has half of its filter only
    near = {8000: 0.02, 16_000: 1e-5}.get(rate, 2e-3)  # at 8 kHz the uppermost tenth of the band is resampled away
    assert np.abs(made.samples - sound.samples)[:, middle].max() < near
    assert bool(told) == (rate > 16_000) and progress[-1].step == progress[-1].total


def test_no_gain_leaves_nothing_above_8_khz_either() -> None:
    hiss = (0.1 * np.random.default_rng(1).standard_normal((1, 48_000))).astype(np.float32)
    made, _, _, result = run(task(-6.9), Audio(hiss, 48_000))  # a thousandth
    np.testing.assert_allclose(made.samples[:, 2000:-2000], hiss[:, 2000:-2000] / 1000, atol=2e-5)
    assert result.facts["decibels_quieter"] == pytest.approx(60, abs=0.5)


def test_strength_is_a_mix() -> None:
    sound, made = stereo(0.5, 16_000), task()
    whole, half, none = (run(made, sound, strength=each)[0].samples for each in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(none, sound.samples)
    np.testing.assert_allclose(half, (whole + none) / 2, atol=1e-6)
    assert np.abs(whole - none).max() > 0.01


@pytest.mark.parametrize(("rate", "near"), [(16_000, 1e-6), (24_000, 1e-4)])
def test_a_long_sound_in_pieces_is_the_same(rate: int, near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made, samples_N = network(MODEL), buzz(11.3, 4, rate)
    ((_, whole_N),) = pieces(made, samples_N, rate)
    monkeypatch.setattr(enhance, "PIECE", 2)
    parts = list(pieces(made, samples_N, rate))
    assert [start for start, _ in parts] == [2 * rate * k for k in range(6)]
    np.testing.assert_allclose(np.concatenate([part for _, part in parts]), whole_N, atol=near)


def test_channels_do_not_meet() -> None:
    sound, made = stereo(0.5, 16_000), task()
    both = run(made, sound)[0].samples
    for channel in range(2):
        alone = run(made, Audio(sound.samples[channel : channel + 1], 16_000))[0].samples
        np.testing.assert_array_equal(both[channel], alone[0])


def test_loudness_does_not_matter() -> None:
    sound, made = buzz(0.5, 3)[None], network(MODEL)
    loud = cleaned(made, Audio(sound, 16_000)).samples
    soft = cleaned(made, Audio(sound * np.float32(0.01), 16_000)).samples
    np.testing.assert_allclose(soft * 100, loud, atol=1e-4)


def test_silence_stays_silent_and_a_dead_channel_is_named() -> None:
    made, told, _, result = run(task(), Audio(np.zeros((1, 9000), np.float32), 16_000))
    assert not made.samples.any() and told == ["the sound is silent and stays as it is"] and not result.facts
    dead = Audio(np.stack([buzz(0.3, 1), np.zeros(4800, np.float32)]), 16_000)
    made, told, _, _ = run(task(), dead)
    assert not made.samples[1].any() and made.samples[0].any() and told == ["channel 2 is silent and stays as it is"]


@pytest.mark.parametrize("rate", [4000, 16_000, 44_100])
def test_ten_milliseconds_and_one_sample(rate: int) -> None:
    for count in (1, rate // 100):
        made = run(task(), Audio(np.full((1, count), 0.1, np.float32), rate))[0]
        assert made.samples.shape == (1, count) and np.isfinite(made.samples).all()


def test_clipped_sound_is_named_and_what_comes_is_within_full_scale() -> None:
    made, told, _, _ = run(task(), Audio(np.clip(9 * buzz(0.5, 3)[None], -1, 1), 16_000))
    assert told == ["the sound is clipped: what was cut off is not brought back"] and np.abs(made.samples).max() <= 1


def test_several_sounds_and_such_as_do_not_fit_are_refused() -> None:
    sound = stereo(0.1, 16_000)
    with pytest.raises(ConjureError, match="one sound, got 2"):
        list(task().generate([sound, sound], EnhanceOptions(), [0]))
    with pytest.raises(ConjureError, match="this long"):
        list(task().generate([object()], EnhanceOptions(), [0]))  # type: ignore[list-item]


def test_losses_in_closed_form() -> None:
    made, noise_BN = network(MODEL), 0.05 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    clean_BTF = made.spectrogram(noise_BN)
    assert float(spectral(clean_BTF, clean_BTF, clean_BTF).abs().max()) == 0
    torch.testing.assert_close(spectral(clean_BTF / 2, clean_BTF, clean_BTF), torch.full((2,), (1 - 0.5**0.3) ** 2))
    torch.testing.assert_close(ratio(1.1 * noise_BN, noise_BN), torch.full((2,), 20.0), rtol=0, atol=0.5)
    assert ratio(noise_BN, noise_BN).tolist() == pytest.approx([enhance.BEST] * 2)
    assert ratio(noise_BN, 0 * noise_BN).tolist() == [0, 0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enhance]:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        with_effects(folder, patch)
        enhance_figures._held.cache_clear()
        enhance_figures._noises.cache_clear()
        yield Enhance.create(MODEL, NoisyData(seconds=0.5, texts=6), seed=1)
    enhance_figures._held.cache_clear()
    enhance_figures._noises.cache_clear()


def test_training_makes_the_loss_smaller(trained: Enhance) -> None:
    batch = trained.batch(range(6))
    assert batch["heard"].shape == batch["clean"].shape == (6, 8000)
    same = trained.batch([3])
    torch.testing.assert_close(same["heard"][0], batch["heard"][3])
    optimiser = torch.optim.AdamW(trained.network.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        total, count = trained.loss(batch)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
        losses.append(float(total.detach() / count))
    assert count == 6 and losses[-1] < losses[0] - 0.03
    assert trained.tokens(batch) == 6 * 8000 // 256 and trained.flops(batch) > 0
    assert "6 clips" in trained.describe(batch)


def test_what_is_saved_does_the_same(trained: Enhance, tmp_path: Path) -> None:
    trained.save(tmp_path)
    loaded, sound = Enhance.load(tmp_path), stereo(0.5, 16_000)
    np.testing.assert_array_equal(run(loaded, sound)[0].samples, run(trained, sound)[0].samples)
    assert loaded.source is None and set(trained.preview(0)) == {"heard", "clean"}


def test_figures_tell_before_and_after(trained: Enhance) -> None:
    assert all(math.isfinite(value) for value in trained.evaluate(1).values())
    nothing = Enhance(gains(network(MODEL), 50.0), trained.data)
    seen: list[Any] = []
    found = nothing.evaluate_published(["lj"], seen.append)
    assert len(found) == 8 and len(seen) == 8
    assert all(abs(figure["value"]) < 1e-3 and figure["low"] <= figure["value"] for figure in found.values())
    assert found["si_sdr_db_gained_5db_lj"]["n"] == 2 and " before)" in found["si_sdr_db_gained_5db_lj"]["protocol"]
    with pytest.raises(ConjureError, match="radio"):
        nothing.evaluate_published(["radio"])


def test_held_out_noise_is_the_same_at_each_level(trained: Enhance) -> None:
    (loud_N, clean_N), (soft_N, _) = (enhance_figures.mixture("librispeech", 1, each) for each in (0.0, 20.0))
    np.testing.assert_allclose(loud_N - clean_N, 10 * (soft_N - clean_N), atol=1e-5)
    in_room_N, _ = enhance_figures.mixture("librispeech", 1, None)
    assert not np.allclose(in_room_N, clean_N, atol=1e-3)
