"""Speech that goes on: rows of codes, training, and what comes out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result
from conjure.data.speech_clips import ClipData
from conjure.media.audio import Audio
from conjure.models.speech_codec import SpeechCodecConfig
from conjure.models.transformer import TransformerConfig
from conjure.nn.cross_entropy import IGNORED
from conjure.nn.position import Rope
from conjure.tasks import continue_figures
from conjure.tasks.continue_sound import ContinueSound, ContinueSoundOptions, SpeechWriterConfig, SpeechWriterData
from conjure.tasks.sound_codec import Reconstruct
from tests.data.sounds import buzz, placed

STACK = TransformerConfig(vocab=0, dim=32, layers=2, heads=2, rope=Rope(dim=16))
CODEC = SpeechCodecConfig(
    window=320, bands=20, fine=16, encoder=16, encoder_layers=1, dim=8, books=3, codes=16, coarse=16, coarse_layers=1,
    decoder=16, decoder_layers=1,
)  # fmt: skip


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContinueSound:
    placed(tmp_path / "sets", monkeypatch)
    Reconstruct.create(CODEC, ClipData(seconds=0.2, texts=8), seed=1).save(tmp_path / "codec")
    model = SpeechWriterConfig(codec=str(tmp_path / "codec"), transformer=STACK)
    return ContinueSound.create(model, SpeechWriterData(frames=30, texts=8), seed=2)


def made(task: ContinueSound, sound: Audio, *seeds: int, **options: float) -> Result:
    *_, last = task.generate([sound], ContinueSoundOptions(**options), seeds or [1])  # type: ignore[arg-type]
    assert isinstance(last, Result)
    return last


def test_rows_are_delayed_codes(task: ContinueSound) -> None:
    batch = task.batch(range(6))
    ids_BQS, targets_BQS = batch["ids"], batch["targets"]
    assert ids_BQS.shape == targets_BQS.shape == (6, 3, 32) and task.tokens(batch) == 6 * 3 * 32
    assert bool((ids_BQS[:, :, 0] == 16).all()), "the first step reads no code"
    told = targets_BQS.masked_fill(targets_BQS == IGNORED, 16)
    shown_BQS = ids_BQS[:, :, 1:] != 16
    assert torch.equal(ids_BQS[:, :, 1:][shown_BQS], told[:, :, :-1][shown_BQS])
    assert 0.65 < shown_BQS.float().mean() < 0.8
    assert (targets_BQS[0] == IGNORED).sum(1).tolist() == [2, 2, 2]
    for row in range(6):
        alone = task.batch([row])
        assert torch.equal(alone["ids"][0], ids_BQS[row])
    assert int(task.loss(batch)[1]) == 6 * 3 * 30
    assert "6 stretches" in task.describe(batch) and task.flops(batch) > 1e6


def test_it_learns_what_follows(task: ContinueSound) -> None:
    optimizer, batch, losses = torch.optim.AdamW(task.network.parameters(), 1e-2), task.batch(range(4)), []
    for _ in range(30):
        loss, count = task.loss(batch)
        losses.append(loss.item() / int(count))
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(16), abs=0.15) and losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.3])
def test_what_was_given_stays_and_something_follows(task: ContinueSound, seconds: float) -> None:
    task.network.eval()
    sound = Audio(buzz(0.8, 3)[None], 16_000)
    last = made(task, sound, 1, 2, seconds=seconds)
    frames = round(seconds * 100)
    assert last.facts == {"seconds_added": pytest.approx(frames / 100), "codes": 3 * frames}
    for audio in last.media:
        assert isinstance(audio, Audio) and audio.samples.shape == (1, 12_800 + 160 * frames)
        assert np.array_equal(audio.samples[:, :12_400], sound.samples[:, :12_400])
    one, other = last.media
    assert one.digest() != other.digest() and made(task, sound, 2, seconds=seconds).media[0].digest() == other.digest()


def test_other_rates_channels_and_very_little(task: ContinueSound) -> None:
    task.network.eval()
    for samples, rate in ((4410, 44_100), (70, 16_000), (1, 16_000)):
        stereo = Audio(np.stack([buzz(1, 2, rate)[5000 : 5000 + samples]] * 2), rate)
        last = made(task, stereo, seconds=0.1)
        (audio,) = last.media
        assert isinstance(audio, Audio) and audio.rate == 16_000 and audio.channels == 1
        assert audio.samples.shape[1] >= 16 * 100
    with pytest.raises(ConjureError, match="one sound, got 0"):
        list(task.generate([], ContinueSoundOptions(), [1]))


def test_it_is_saved_and_knows_its_codec(task: ContinueSound, tmp_path: Path) -> None:
    task.save(tmp_path / "model")
    again = ContinueSound.load(tmp_path / "model")
    task.network.eval()
    sound = Audio(buzz(0.5, 3)[None], 16_000)
    wanted = made(task, sound, 7, seconds=0.2, temperature=0.0).media[0]
    assert isinstance(wanted, Audio)
    assert made(again, sound, 8, seconds=0.2, temperature=0.0).media[0].digest() == wanted.digest()
    made_by = conjure.make(sound, to="audio", model=str(tmp_path / "model"), seed=7, seconds=0.2)
    assert made_by.record.task == "continue" and made_by.samples.shape == wanted.samples.shape
    events = list(again.generate([sound], ContinueSoundOptions(seconds=0.2), [1]))
    assert [e.step for e in events if isinstance(e, Progress)][-1] == 20
    assert not (tmp_path / "model" / "codec.safetensors").exists()
    Reconstruct.create(CODEC, ClipData(seconds=0.2, texts=8), seed=5).save(tmp_path / "codec")
    with pytest.raises(ConjureError, match="another codec"):
        ContinueSound.load(tmp_path / "model")


def test_figures(task: ContinueSound, monkeypatch: pytest.MonkeyPatch) -> None:
    task.network.eval()
    monkeypatch.setattr(continue_figures, "heard", lambda sounds, *more: ["one two three" for _ in sounds])
    monkeypatch.setattr(continue_figures, "GIVEN", 0.5)
    monkeypatch.setattr(continue_figures, "MADE", 0.6)
    found, figures = task.evaluate_published(["librispeech", "lj"]), task.evaluate()
    assert found["nats_per_code_librispeech"]["value"] == pytest.approx(figures["nats_per_code"], rel=1e-4)
    assert found["nats_first_book_librispeech"]["value"] == pytest.approx(figures["nats_first"], rel=1e-4)
    assert figures["nats_per_code"] == pytest.approx(math.log(16), abs=0.15) and found["words_made_lj"]["value"] == 5
    assert found["voiced_real_lj"]["n"] == 2 and found["voiced_real_lj"]["value"] > 0.4
    assert task.preview(0)["continued"].rate == 16_000
