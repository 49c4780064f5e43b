"""Training our codec, sending sounds through it and through public ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Result
from conjure.data.speech_clips import ClipData
from conjure.media.audio import Audio
from conjure.models import speech_codec
from conjure.models.speech_codec import SpeechCodecConfig
from conjure.tasks import codec_figures, sound_codec
from conjure.tasks.abilities import abilities, is_language_model
from conjure.tasks.sound_codec import CodecOptions, Reconstruct, ReconstructPublic, figures, through
from tests.data.sounds import buzz, placed
from tests.models.codecs import dac, encodec

TINY = SpeechCodecConfig(
    window=320, bands=20, fine=16, encoder=16, encoder_layers=1, dim=8, books=3, codes=16, coarse=16, coarse_layers=1,
    decoder=16, decoder_layers=1,
)  # fmt: skip
CLIPS = ClipData(seconds=0.2, texts=8)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reconstruct:
    placed(tmp_path / "sets", monkeypatch)
    return Reconstruct.create(TINY, CLIPS, seed=1)


def result(task: Reconstruct | ReconstructPublic, sound: Audio, bandwidth: float = 0.0, count: int = 1) -> Result:
    *_, last = task.generate([sound], CodecOptions(bandwidth=bandwidth), list(range(count)))
    assert isinstance(last, Result)
    return last


def test_a_large_batch_is_the_sum_of_small_ones(task: Reconstruct) -> None:
    task.network.eval()  # in training the codes follow each pass
    parts = [task.loss(task.batch([index]))[0].item() for index in range(3)]
    whole, count = task.loss(task.batch(range(3)))
    assert int(count) == 3 and whole.item() == pytest.approx(sum(parts), rel=1e-4)
    assert task.tokens(task.batch(range(3))) == 3 * 20 * 3 and task.flops(task.batch([0])) > 1e6
    assert task.describe(task.batch([0])).startswith("1 clips of 0.2 s")


def test_it_learns(task: Reconstruct) -> None:
    optimizer = torch.optim.AdamW(task.network.parameters(), 5e-3)
    batch = task.batch(range(4))
    assert batch["samples"].shape == (4, 1, 3200) and set(batch["books"].tolist()) <= {1, 2, 3}
    losses = []
    for _ in range(10):
        loss, count = task.loss(batch)
        losses.append(loss.item() / int(count))
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]


def test_loudness_does_not_matter_to_the_loss(task: Reconstruct) -> None:
    task.network.eval()
    batch = task.batch(range(4))
    softer = {**batch, "samples": batch["samples"] * 0.1}
    assert task.loss(softer)[0].item() == pytest.approx(task.loss(batch)[0].item(), rel=1e-3)
    silent = {**batch, "samples": batch["samples"] * 0}
    assert task.loss(silent)[0].isfinite()


def test_it_is_saved_and_read_again(task: Reconstruct, tmp_path: Path) -> None:
    task.save(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (saved["kind"], saved["task"]) == ("speech_codec", "sound_codec")
    sound = Audio(buzz(0.7, 3)[None], 16_000)
    made = result(Reconstruct.load(tmp_path / "model"), sound)
    task.network.eval()
    assert made.media[0].digest() == result(task, sound).media[0].digest()
    assert made.facts["books"] == 3
    assert made.facts["kilobits_per_second"] == pytest.approx((100 * 3 * 4 + 32 / 0.7) / 1000, abs=1e-3)
    fewer = result(task, sound, bandwidth=0.8, count=2)
    assert fewer.facts["books"] == 2 and len(fewer.media) == 2
    with pytest.raises(ConjureError, match="one sound, got 2"):
        list(task.generate([sound, sound], CodecOptions(), [0]))
    again = conjure.make(sound, to="audio", task="reconstruct", model=str(tmp_path / "model"), seed=1)
    assert again.digest() == made.media[0].digest() and again.record.task == "reconstruct"


def test_figures_over_held_out_sentences(task: Reconstruct, monkeypatch: pytest.MonkeyPatch) -> None:
    task.network.eval()
    while_training = task.evaluate(2)
    assert next(iter(while_training)) == "mel_db" and 1 <= while_training["codes_first"] <= 16
    monkeypatch.setattr(codec_figures, "held_texts", lambda name: ["some words", "and more"])
    # The recogniser is a package of its own: here it hears the first sentence, and of the second nothing.
    monkeypatch.setattr(codec_figures, "heard", lambda sounds, *more: ["Some words.", ""][: len(list(sounds))])
    found = task.evaluate_published(["librispeech", "lj"])
    assert found["wer_before_lj"]["value"] == found["wer_after_lj"]["value"] == 0.5
    assert "wer_after_librispeech" not in found
    assert found["mel_db_librispeech"]["n"] == 4 and found["stoi_lj"]["n"] == 2 and "mel_db_teacher" not in found
    for figure in found.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["codes_used"]["n"] == 3 and 1 <= found["perplexity"]["value"] <= found["codes_used"]["value"]
    assert task.preview(0)["sentence"].rate == 16_000


def test_what_does_not_fit_the_clips_is_refused(task: Reconstruct) -> None:
    for model, data, message in (
        (SpeechCodecConfig(rate=24_000), CLIPS, "at 16,000 Hz"),
        (TINY, ClipData(seconds=0.201, texts=8), "whole frames"),
    ):
        with pytest.raises(ConjureError, match=message):
            Reconstruct.create(model, data)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["encodec", "stereo", "dac"])
def test_public_codecs_are_recognised_and_run(tmp_path: Path, kind: str, channels: int) -> None:
    more = {"audio_channels": 2, "chunk_length_s": 0.05, "overlap": 0.1, "normalize": True, "use_causal_conv": False,
            "norm_type": "time_group_norm"}  # fmt: skip
    folder = dac(tmp_path) if kind == "dac" else encodec(tmp_path, **(more if kind == "stereo" else {}))
    assert abilities(folder) == ("reconstruct",) and not is_language_model(folder)
    sound = Audio(np.stack([buzz(0.3, seed, 44_100) for seed in range(channels)]), 44_100)
    task = ReconstructPublic.load(folder)
    last = result(task, sound)
    (made,) = last.media
    assert isinstance(made, Audio) and made.rate == 16_000
    assert made.channels == channels and made.seconds == pytest.approx(0.3, abs=1e-3)
    assert last.facts["kilobits_per_second"] > 1 and last.facts["mel_db"] > 0
    assert result(task, sound, bandwidth=1.0).facts["books"] == 1
    assert conjure.make(sound, to="audio", model=str(folder), seed=1).rate == 16_000


def test_long_sounds_go_in_pieces_that_fit(task: Reconstruct, monkeypatch: pytest.MonkeyPatch) -> None:
    network = task.network.eval()
    # With one loudness for each piece the codes would differ a little.
    monkeypatch.setattr(speech_codec, "loudness", lambda x_BN: torch.full((len(x_BN), 1), 0.1))
    sound = Audio(buzz(2.0, 1)[None], 16_000)
    whole, bits = through(network, sound, 0)
    monkeypatch.setattr(sound_codec, "PIECE", 0.6)
    monkeypatch.setattr(sound_codec, "CONTEXT", 0.4)
    pieces, more = through(network, sound, 0)
    assert pieces.samples.shape == whole.samples.shape and more == pytest.approx(bits, rel=0.02)
    assert np.abs(pieces.samples - whole.samples).max() < 1e-5 * np.abs(whole.samples).max()


def test_silence_and_clicks_have_no_ratio() -> None:
    silence = np.zeros((1, 16_000), np.float32)
    assert figures(silence, silence, 16_000) == {"mel_db": 0}
    assert figures(silence[:, :100] + 1, silence[:, :100], 16_000) == {}


def test_silence_stereo_and_a_single_sample_go_through(task: Reconstruct) -> None:
    task.network.eval()
    dead = np.stack([buzz(0.3, 1, 44_100), np.zeros(13_230, np.float32)])
    for samples_CN, rate in ((np.zeros((1, 8000), np.float32), 16_000), (dead, 44_100), (dead[:1, :1], 16_000)):
        (made,) = result(task, Audio(samples_CN, rate)).media
        assert isinstance(made, Audio) and np.isfinite(made.samples).all() and made.channels == len(samples_CN)
        assert made.samples.shape[1] == round(samples_CN.shape[1] / rate * 16_000)
        assert np.abs(made.samples[-1]).max() < 0.01 or len(samples_CN) == samples_CN.shape[1] == 1
