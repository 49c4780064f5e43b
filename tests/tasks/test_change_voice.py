from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import conjure
from conjure.core import paths
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Result, Warn
from conjure.core.history import History
from conjure.core.provenance import COMPOSITE_MEDIA
from conjure.media.audio import Audio, read_record
from conjure.media.text import Text
from conjure.models.folder import weights_digest
from conjure.tasks import sampled_voice
from conjure.tasks.change_voice import ChangeVoice, ChangeVoiceOptions
from conjure.tasks.keeping import obstacle
from conjure.tasks.remake import provenance
from conjure.tasks.sampled_voice import as_loud
from conjure.tasks.speak import Speak, SpeakOptions
from tests.models import small_ear, small_voice
from tests.models.letters import voice

RATE = 16_000
AGREED = "Ann Lee, by letter of 3 May"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_voice.folder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(autouse=True)
def starters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a small ear is the only starter, which is as sure of phones as one that was taught."""
    monkeypatch.setattr(paths, "starters_dir", lambda: tmp_path / "starters")
    monkeypatch.setattr(sampled_voice, "CLEAR", 0.0)
    small_ear.folder(tmp_path / "starters" / "ear")
    sampled_voice.changer.cache_clear()
    yield tmp_path / "starters"
    sampled_voice.changer.cache_clear()


def talk(seconds: float = 1.5, seed: int = 1, rate: int = RATE, channels: int = 1) -> Audio:
    still = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([still, voice(seconds, seed), still])
    return Audio(np.repeat(samples[None], channels, 0), RATE).at(rate)


def run(folder: Path, said: Audio, sample: Audio, **options: Any) -> tuple[list[Event], Result]:
    given: dict[str, Any] = {"voice": "ann.wav", "consent": AGREED, **options}
    events = list(ChangeVoice.load(folder).generate([said, sample], ChangeVoiceOptions(**given), [1, 2]))
    assert isinstance(events[-1], Result)
    return events, events[-1]


def test_it_is_as_long_and_as_loud(folder: Path) -> None:
    said = talk(rate=44_100, channels=2)
    events, result = run(folder, said, talk(2.0, 2, 8000))
    made, again = result.media
    assert isinstance(made, Audio) and made.rate == RATE and made.channels == 1
    assert made.seconds == pytest.approx(said.seconds, abs=1e-3) and made.digest() == again.digest()
    level = np.sqrt(np.mean(np.square(said.at(RATE).mono())))
    assert np.sqrt(np.mean(np.square(made.samples))) == pytest.approx(level, rel=0.02)
    (warning,) = [each.text for each in events if isinstance(each, Warn)]
    assert "s of speech: from 10 s on" in warning and result.facts["sample_seconds"] > 1
    assert run(folder, said, talk(2.0, 2), like=1.0)[1].media[0].digest() != made.digest()


def test_consent_is_asked_for_and_stamped(folder: Path, tmp_path: Path) -> None:
    sample = talk(2.0, 2).save(tmp_path / "ann.wav") or tmp_path / "ann.wav"
    given: dict[str, Any] = {"task": "convert", "model": str(folder), "voice": str(sample)}
    for consent in ("", "  yes  "):
        with pytest.raises(ConjureError, match="takes that person's consent"):
            conjure.make(talk(), output=tmp_path / "a.flac", consent=consent, **given)
    conjure.make(talk(), output=tmp_path / "a.flac", consent=AGREED, **given)
    stamped = read_record(tmp_path / "a.flac")
    assert stamped is not None and stamped.options["consent"] == AGREED and stamped.source_type == COMPOSITE_MEDIA
    assert stamped.options["voice"] == "ann.wav" and stamped.inputs[1]["option"] == "voice"


def test_the_ear_that_heard_the_sample_is_recorded_too(
    folder: Path, starters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conjure.tasks.spoken_sample.HEARD", "Hello. The cat and the bat.")
    sample, said = talk(2.0, 2).save(tmp_path / "ann.wav"), talk().save(tmp_path / "said.wav")
    given: dict[str, Any] = {"model": str(folder), "voice": str(sample), "consent": AGREED, "seed": 1}
    files = [tmp_path / "changed.flac", tmp_path / "spoken.flac"]
    conjure.make(said, output=files[0], task="convert", **given)
    conjure.make("The cat.", output=files[1], steps=1, check=False, **given)
    ear, history = weights_digest(starters / "ear"), History(tmp_path / "history")
    for file in files:
        record = provenance(file)
        assert record.options["also"] == {"starter/ear": ear} and record.weights != ear
        assert conjure.remake(file, files=[sample, said]).record == record
    entry = history.get(history.add(files[0].read_bytes(), ".flac", "audio", provenance(files[0])))
    assert obstacle(history, entry) == ""
    path = starters / "ear" / "model.safetensors"
    save_file({name: each + 1 for name, each in load_file(path).items()}, path, {"format": "pt"})
    for file in files:
        with pytest.raises(ConjureError, match="made with starter/ear of sha256:"):
            conjure.remake(file, files=[sample, said])
    assert obstacle(history, entry) == "starter/ear has other weights now"


def test_samples_that_hold_no_voice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sample, told in (
        (Audio(np.zeros((1, 3 * RATE), np.float32), RATE), r"the sample holds 0\.0 s of speech"),
        (Audio(voice(0.3, 2)[None], RATE), r"the sample holds 0\.\d s of speech, expected at least 1 s"),
        (Audio(voice(0.005, 2)[None], RATE), "expected at least 1 s"),
    ):
        with pytest.raises(ConjureError, match=told):
            run(folder, talk(), sample)
    monkeypatch.setattr(sampled_voice, "CLEAR", 1.1)
    with pytest.raises(ConjureError, match="does not sound like somebody speaking"):
        run(folder, talk(), talk(2.0, 2))


def test_what_cannot_be_converted(folder: Path, starters: Path) -> None:
    same = talk(2.0)
    assert any("the sample is the sound itself" in each.text for each in run(folder, same, same)[0]
               if isinstance(each, Warn))  # fmt: skip
    with pytest.raises(ConjureError, match="in whose voice"):
        run(folder, same, same, voice="")
    with pytest.raises(ConjureError, match="one sound to convert, got 2"):
        list(ChangeVoice(folder).generate([same] * 3, ChangeVoiceOptions(voice="a.wav", consent=AGREED), [0]))
    with pytest.raises(ConjureError, match="at least 25 ms"):
        run(folder, Audio(np.zeros((1, 100), np.float32), RATE), same)
    (starters / "ear" / "config.json").unlink()
    sampled_voice.changer.cache_clear()
    with pytest.raises(ConjureError, match="starter/ear"):
        run(folder, same, same)


def test_a_text_in_the_voice_of_a_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conjure.tasks.spoken_sample.HEARD", "Hello. The cat and the bat.")
    speak, sample = Speak.load(folder), talk(2.0, 2)

    def events(text: str, **options: Any) -> list[Event]:
        how = SpeakOptions(**{"steps": 1, "check": False, "sample": "ann.wav", "consent": AGREED, **options})
        return list(speak.generate([Text(text), sample], how, [3]))

    plain = list(speak.generate([Text("Hello. The cat.")], SpeakOptions(steps=1, check=False), [3]))[-1]
    made = events("Hello. The cat.")[-1]
    assert isinstance(made, Result) and isinstance(plain, Result)
    first, other = made.media[0], plain.media[0]
    assert isinstance(first, Audio) and isinstance(other, Audio) and first.digest() != other.digest()
    assert len(made.facts["results"][0]["sentences"]) == 2 and np.isfinite(first.samples).all()
    with pytest.raises(ConjureError, match="takes that person's consent"):
        events("Hello.", consent="")
    with pytest.raises(ConjureError, match="one sound as the sample"):
        list(speak.generate([Text("Hello.")], SpeakOptions(sample="ann.wav", consent=AGREED), [3]))


def test_as_loud() -> None:
    loud = as_loud(np.full(8, 0.01, np.float32), np.full(10, 0.5, np.float32))
    assert len(loud) == 10 and loud.dtype == np.float32 and 0.5 < loud.max() < 0.6
    assert np.abs(as_loud(np.array([1.0, 0, 0, 0], np.float32), np.ones(4, np.float32))).max() <= 0.99
    assert not as_loud(np.zeros(4, np.float32), np.zeros(4, np.float32)).any()


def test_the_voice_may_be_the_name_of_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conjure.tasks.spoken_sample.HEARD", "Hello. The cat and the bat.")
    talk(2.0, 2).save(tmp_path / "ann.wav")
    given: dict[str, Any] = {"model": str(folder), "to": "audio", "steps": 1, "check": False, "seed": 1}
    made = conjure.make("The cat.", voice=str(tmp_path / "ann.wav"), consent=AGREED, **given)
    same = conjure.make("The cat.", sample=str(tmp_path / "ann.wav"), consent=AGREED, **given)
    assert made.digest() == same.digest() != conjure.make("The cat.", **given).digest()
    assert made.record.options["sample"] == "ann.wav" and made.record.inputs[1]["option"] == "sample"
    with pytest.raises(ConjureError, match="consent"):
        conjure.make("The cat.", voice=str(tmp_path / "ann.wav"), **given)
    with pytest.raises(ConjureError, match="expected a name beside --sample"):
        conjure.make("The cat.", voice="a.wav", sample="b.wav", **given)
