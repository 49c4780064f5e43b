from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conjure
from conjure.codecs.voice_activity import VoiceActivity
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.core.provenance import COMPOSITE_MEDIA
from conjure.media.audio import Audio, read_record
from conjure.tasks.abilities import abilities
from conjure.tasks.convert_voice import ConvertVoice, ConvertVoiceOptions, parts
from tests.models.letters import voice
from tests.models.speech_t5s import speecht5, vocoder
from tests.tasks.small_models import decoder

RATE = 16_000
AGREED = "Ann Lee, by letter of 3 May"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = speecht5(tmp_path_factory.mktemp("vc") / "vc", "change", over=2.0)
    vocoder(folder / "vocoder")
    np.save(folder / "ann.npy", np.random.default_rng(1).standard_normal(10))
    return folder


def talk() -> Audio:
    gap = np.zeros(2 * RATE, np.float32)
    return Audio(np.concatenate([gap, voice(1.5), gap, voice(1.0, 2), gap])[None], RATE)


def run(folder: Path, sound: Audio, seeds: tuple[int, ...] = (1,), **options: Any) -> tuple[list[Event], Result]:
    given = {"voice": str(folder / "ann.npy"), "consent": AGREED, **options}
    events = list(ConvertVoice.load(folder).generate([sound], ConvertVoiceOptions(**given), seeds))
    assert isinstance(events[-1], Result)
    return events, events[-1]


def test_what_is_said_is_said_again(folder: Path) -> None:
    assert abilities(folder) == ("convert",)
    events, result = run(folder, talk(), (1, 2))
    first, other = result.media
    assert first.rate == RATE and result.facts["parts"] == 2 and result.facts["cut"] == 0
    assert [each.step for each in events if isinstance(each, Progress)] == [0, 1, 2, 3, 4]
    assert np.array_equal(run(folder, talk(), (2,))[1].media[0].samples, other.samples)
    assert first.samples.shape != other.samples.shape or not np.array_equal(first.samples, other.samples)
    (start, _), _ = parts(talk().samples[0], RATE, VoiceActivity())
    assert start == pytest.approx(1.8 * RATE, abs=0.1 * RATE)
    assert not first.samples[:, :start].any() and first.samples[:, start : start + 256].any()
    stereo = Audio(np.repeat(talk().samples, 2, 0), RATE).at(48_000)
    assert run(folder, stereo)[1].media[0].seconds == pytest.approx(first.seconds, abs=0.5)


def test_consent_is_asked_for_and_stamped(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="takes that person's consent"):
        run(folder, talk(), consent="")
    made = conjure.make(talk(), output=tmp_path / "a.flac", task="convert", model=str(folder), seed=1,
                        voice=str(folder / "ann.npy"), consent=AGREED)  # fmt: skip
    stamped = read_record(tmp_path / "a.flac")
    assert stamped is not None and stamped.options["consent"] == AGREED and stamped.source_type == COMPOSITE_MEDIA
    assert made.record.task == "convert"


def test_what_comes_to_no_end_is_cut(tmp_path: Path) -> None:
    folder, _ = speecht5(tmp_path / "vc", "change", over=-40, max_speech_positions=8)
    vocoder(folder / "vocoder")
    np.save(folder / "ann.npy", np.ones(10))
    events, result = run(folder, Audio(voice(1.0)[None], RATE), gate=False)
    assert result.facts["cut"] == 1 and result.media[0].samples.shape[1] == 8 * 2 * 256
    assert any("1 of 1 parts came to no end" in each.text for each in events if isinstance(each, Warn))


def test_what_cannot_be_converted(folder: Path, tmp_path: Path) -> None:
    quiet = Audio(np.zeros((1, 3 * RATE), np.float32), RATE)
    with pytest.raises(ConjureError, match="nobody speaks"):
        run(folder, quiet)
    with pytest.raises(ConjureError, match="nobody speaks"):
        run(folder, Audio(voice(0.01)[None], RATE), gate=False)
    with pytest.raises(ConjureError, match="one sound to convert, got 2"):
        list(ConvertVoice.load(folder).generate([talk(), talk()], ConvertVoiceOptions(), [1]))
    with pytest.raises(ConjureError, match="cannot convert"):
        conjure.make(talk(), to="audio", task="convert", model=str(decoder(tmp_path / "llama")))
    with pytest.raises(ConjureError, match="no published figures"):
        ConvertVoice.load(folder).evaluate_published()
    odd, _ = speecht5(tmp_path / "odd", "change")
    vocoder(odd / "vocoder")
    for rate in ("fast", 0):
        (odd / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": rate}))
        with pytest.raises(ConjureError, match="sampling_rate: expected a number of Hz"):
            run(odd, talk())
    long = parts(np.tile(voice(10), 4), RATE, None)
    assert long[0][0] == 0 and long[-1][1] == 40 * RATE and max(b - a for a, b in long) <= 15 * RATE


def test_without_a_vocoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = speecht5(tmp_path / "vc", "change")
    np.save(folder / "ann.npy", np.ones(10))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ConjureError, match="unknown model 'microsoft/speecht5_hifigan'") as caught:
        run(folder, talk())
    assert "conjure models get microsoft/speecht5_hifigan" in caught.value.hint
