from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result, Warn
from conjure.media.audio import Audio
from conjure.media.captions import written
from conjure.models.transcriber import Heard, Transcriber
from conjure.tasks.abilities import abilities, writes_letters
from conjure.tasks.speech_to_text import Transcribe, TranscribeOptions
from tests.models import letters
from tests.models.speech_t5s import speecht5
from tests.models.whispers import whisper
from tests.tasks.small_models import decoder

RATE = 16_000
LAX: dict[str, Any] = {"no_speech": 1.0, "logprob": -20.0, "compression": 100.0, "language": "en"}
"""A random network says nothing likely."""


def voice(seconds: float, rate: int = RATE, seed: int = 1) -> np.ndarray:
    at = np.arange(round(seconds * rate)) / rate
    buzz = np.sum([np.sin(2 * np.pi * 140 * n * at) / n for n in range(1, 25)], axis=0)
    return (0.2 * buzz * np.sin(np.pi * 4 * at) ** 2).astype(np.float32)


def talk(rate: int = RATE) -> Audio:
    """Two phrases, 3 s of silence around each."""
    gap = np.zeros(3 * rate, np.float32)
    return Audio(np.concatenate([gap, voice(1.5, rate), gap, voice(1.0, rate), gap])[None], rate)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Transcribe:
    return Transcribe.load(whisper(tmp_path_factory.mktemp("whisper")))


@pytest.fixture
def scripted(task: Transcribe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transcribe]:
    """A model that says " blue" and then " the sea", whatever it hears."""
    transcriber = task.transcriber()
    first = transcriber.marks.times.first
    texts = [" blue", " the sea"]

    def hear(self: Transcriber, memory: Any, *_: Any) -> list[Heard]:
        made = []
        for n in range(len(memory)):
            ids = [first + 10, *self.model.tokenizer.encode(texts[n % 2]), first + 45]
            made.append(Heard(ids, -0.2, 0.0, 1.0, 0.0, False))
        return made

    monkeypatch.setattr(Transcriber, "hear", hear)
    yield task


def run(task: Transcribe, sound: Audio, seeds: tuple[int, ...] = (1,), **options: Any) -> tuple[list[Event], Result]:
    events = list(task.generate([sound], TranscribeOptions(**options), seeds))
    assert isinstance(events[-1], Result)
    return events, events[-1]


def shown(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize("layout", ["txt", "srt", "vtt", "json", "md"])
def test_every_format_comes_as_it_is_made(scripted: Transcribe, layout: str) -> None:
    events, result = run(scripted, talk(), language="en", format=layout)
    text = str(result.media[0])
    assert shown(events) == text
    told = result.facts["results"][0]
    assert [each["text"] for each in told["segments"]] == ["blue", "the sea"] and told["duration"] == 11.5
    assert told["language"] == "en"
    starts = [each["start"] for each in told["segments"]]
    assert starts == pytest.approx([3.0, 7.5], abs=0.2)
    wanted = {"txt": "blue\nthe sea", "md": "**[00:00:0"}.get(layout, "blue")
    assert wanted in text and (layout != "srt" or text.startswith("1\n00:00:0"))
    if layout == "json":
        assert json.loads(text)["segments"] == told["segments"]


def test_progress_is_seconds_and_silence_is_no_text(scripted: Transcribe) -> None:
    events, _ = run(scripted, talk(), language="en", batch=1)
    steps = [event for event in events if isinstance(event, Progress)]
    assert [step.unit for step in steps] == ["second"] * 2 and {step.total for step in steps} == {11}
    assert steps[0].step == 4 and steps[1].step == 8
    quiet = Audio(np.zeros((1, 5 * RATE), np.float32), RATE)
    for layout in ("txt", "srt", "vtt", "md"):
        events, result = run(scripted, quiet, format=layout)
        assert str(result.media[0]) == ("WEBVTT\n" if layout == "vtt" else "")
        assert any(isinstance(event, Warn) and "nothing was said" in event.text for event in events)
    noise = np.random.default_rng(1).standard_normal((1, 8 * RATE)).astype(np.float32)
    assert not str(run(scripted, Audio(0.02 * noise, RATE))[1].media[0])
    assert str(run(scripted, Audio(0.02 * noise, RATE), gate=False, language="en")[1].media[0])


def test_a_random_model_from_end_to_end(task: Transcribe) -> None:
    events, result = run(task, talk(), words=True, **LAX)
    told = result.facts["results"][0]
    assert shown(events) == str(result.media[0]) and told["segments"]
    assert any(each.get("words") for each in told["segments"])
    assert str(run(task, talk(), seeds=(1, 2), **LAX)[1].media[1]) == str(result.media[0])  # greedy knows no luck
    unlikely = {"language": "en", "temperature": 1.0, "compression": 100}
    assert str(run(task, talk(), **unlikely)[1].media[0])
    assert not str(run(task, talk(), no_speech=0.0, **unlikely)[1].media[0])


def test_any_rate_and_several_channels(task: Transcribe) -> None:
    plain = str(run(task, talk(), **LAX)[1].media[0])
    sound = talk()
    stereo = Audio(np.concatenate([sound.samples, 0 * sound.samples]), RATE)
    assert str(run(task, stereo, **LAX)[1].media[0]) == plain
    fast = run(task, talk(48_000), **LAX)[1].facts["results"][0]
    assert fast["duration"] == 11.5 and fast["segments"][0]["start"] == pytest.approx(3.0, abs=1.0)


def test_captions_have_lines_of_a_width(scripted: Transcribe) -> None:
    _, result = run(scripted, talk(), language="en", format="srt", width=4, lines=1)
    lines = str(result.media[0]).splitlines()
    assert max(len(line) for line in lines if "-->" not in line) <= 4 and {"blue", "the", "sea"} <= set(lines)
    assert lines.count("") == 3


def test_what_is_drawn_again_is_drawn_by_the_seed(task: Transcribe) -> None:
    sound = Audio(voice(1)[None], RATE)
    wild = {**LAX, "logprob": -0.001, "temperature": 1.0}
    both = run(task, sound, seeds=(3, 4), **wild)[1]
    assert str(both.media[0]) != str(both.media[1]) == str(run(task, sound, seeds=(4,), **wild)[1].media[0])


def test_what_cannot_be(task: Transcribe, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="at least 25 ms"):
        run(task, Audio(voice(0.01)[None], RATE))
    with pytest.raises(ConjureError, match="does not know the language 'Germn'") as caught:
        run(task, talk(), language="Germn")
    assert "German" in caught.value.hint
    with pytest.raises(ConjureError, match="expected one sound to listen to, got 2"):
        list(task.generate([talk(), talk()], TranscribeOptions(), [1]))
    english = Transcribe.load(whisper(tmp_path / "tiny.en", english=True))
    with pytest.raises(ConjureError, match="English alone, not French"):
        run(english, talk(), language="fr")
    with pytest.raises(ConjureError, match="cannot translate"):
        run(english, talk(), translate=True)
    with pytest.raises(ConjureError, match="hears nothing"):
        run(Transcribe.load(decoder(tmp_path / "llama")), talk())


def test_turbo_is_warned_of(scripted: Transcribe, monkeypatch: pytest.MonkeyPatch) -> None:
    network = scripted.transcriber().network
    config = network.config
    deep = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=32),
                               decoder=dataclasses.replace(config.decoder, layers=4))  # fmt: skip
    assert not any(isinstance(event, Warn) for event in run(scripted, talk(), language="fr", translate=True)[0])
    monkeypatch.setattr(network, "config", deep)
    events, result = run(scripted, talk(), language="fr", translate=True)
    assert any(isinstance(event, Warn) and "not taught to translate" in event.text for event in events)
    assert result.facts["results"][0]["language"] == "en"


def test_eight_bits(task: Transcribe) -> None:
    full = task.transcriber().memory([voice(2)])
    short = task.transcriber("int8").memory([voice(2)])
    assert 0 < float((full - short).abs().max()) < 0.1 * float(full.abs().max())
    assert written((), "txt") == "" and task.transcriber("int8") is task.transcriber("int8")


def test_a_file_has_the_format_of_its_name(task: Transcribe, tmp_path: Path) -> None:
    sound = talk().save(tmp_path / "talk.wav")
    wish: Any = {"model": str(task.path), "seed": 1} | LAX
    for name, begins in (("a.txt", ""), ("a.srt", "1\n00:00:0"), ("a.vtt", "WEBVTT\n\n00:00:0"), ("a.json", "{\n")):
        made = conjure.make(sound, output=tmp_path / name, **wish)
        assert (tmp_path / name).read_text().startswith(begins)
        assert made.record is not None
        assert made.record.options["format"] == {"a.srt": "srt", "a.vtt": "vtt"}.get(name, "txt")
    plain = (tmp_path / "a.txt").read_text()
    told = json.loads((tmp_path / "a.json").read_text())
    assert plain == told["text"] and told["segments"] and told["duration"] == pytest.approx(11.5)
    conjure.make(sound, output=tmp_path / "b.srt", format="txt", **wish)
    assert (tmp_path / "b.srt").read_text() == plain  # as it was asked for


# -- models that write letters -----------------------------------------------------------------------------------------


def test_letters_of_a_public_model(tmp_path: Path) -> None:
    folder = letters.letters(tmp_path / "base")
    assert abilities(folder) == ("transcribe",)
    sound = Audio(letters.voice(2)[None], RATE).at(48_000)
    options: dict[str, Any] = {"gate": False, "logprob": -20.0}
    task = Transcribe.load(folder)
    events, result = run(task, sound, format="json", words=True, **options)
    told = result.facts["results"][0]
    words = [word["text"] for each in told["segments"] for word in each["words"]]
    assert shown(events) == str(result.media[0]) and told["duration"] == 2.0 and len(words) > 2
    assert " ".join(words) == " ".join(each["text"] for each in told["segments"])
    assert not [event for event in events if isinstance(event, Warn)]
    made = conjure.make(sound, to="txt", model=str(folder), seed=1, **options)
    assert str(made).split() == words
    unlikely = run(task, sound, gate=False, logprob=-0.001)
    assert not str(unlikely[1].media[0]) and any(isinstance(event, Warn) for event in unlikely[0])
    events, _ = run(task, sound, language="en", prompt="blue", **options)
    assert [event.text.split(":")[1] for event in events if isinstance(event, Warn)] == [
        " --language changes nothing", " --prompt changes nothing"]  # fmt: skip
    with pytest.raises(ConjureError, match="cannot translate"):
        run(task, sound, translate=True)


def test_the_language_chooses_the_adapters(tmp_path: Path) -> None:
    task = Transcribe.load(letters.mms(tmp_path))
    sound = Audio(letters.voice(2)[None], RATE)
    options: dict[str, Any] = {"gate": False, "logprob": -20.0}
    texts = {}
    for language, code in (("", "eng"), ("German", "deu"), ("azj-script_latin", "azj-script_latin")):
        events, result = run(task, sound, language=language, **options)
        assert result.facts["results"][0]["language"] == code
        assert any(isinstance(event, Warn) and "--language chooses" in event.text for event in events) == (not language)
        texts[code] = str(result.media[0])
    assert set(texts["azj-script_latin"]) <= set("əğçsoa \n") and set(texts["deu"]) & set("äöüß")
    with pytest.raises(ConjureError, match="does not know the language 'Klingon'"):
        run(task, sound, language="Klingon")


def test_a_tower_without_letters_hears_nothing(tmp_path: Path) -> None:
    config = {"model_type": "wav2vec2", "architectures": ["Wav2Vec2Model"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert abilities(tmp_path) == () and not writes_letters(tmp_path)


def test_a_speecht5_writes_part_after_part(tmp_path: Path) -> None:
    folder, reference = speecht5(tmp_path / "asr", "text")
    assert abilities(folder) == ("transcribe",)
    gap = np.zeros(3 * RATE, np.float32)
    spoken = [letters.voice(1.5), letters.voice(1.0, 2)]
    sound = Audio(np.concatenate([gap, spoken[0], gap, spoken[1], gap])[None], RATE)
    task = Transcribe.load(folder)
    options: dict[str, Any] = {"logprob": -20.0}
    events, result = run(task, sound, words=True, weights="int8", **options)
    told = result.facts["results"][0]["segments"]
    assert [each["start"] for each in told] == pytest.approx([2.8, 7.3], abs=0.2) and len(told) == 2
    assert any("--words and --weights" in event.text for event in events if isinstance(event, Warn))
    assert [event.step for event in events if isinstance(event, Progress)] == [4, 8]
    whole = Audio(spoken[0][None], RATE)
    made = reference.generate(torch.from_numpy(spoken[0])[None], max_new_tokens=38, do_sample=False, num_beams=1)
    wanted = tf.SpeechT5Tokenizer.from_pretrained(folder).decode(made[0], skip_special_tokens=True)
    assert str(run(task, whole, gate=False, **options)[1].media[0]) == wanted.strip()
    assert not str(run(task, whole, gate=False, logprob=-0.0001)[1].media[0])
    with pytest.raises(ConjureError, match="cannot translate"):
        run(task, whole, translate=True)
    with pytest.raises(ConjureError, match="at least 25 ms"):
        run(task, Audio(voice(0.01)[None], RATE))
    speaker, _ = speecht5(tmp_path / "tts", "voice")
    with pytest.raises(ConjureError, match="writes no text"):
        run(Transcribe.load(speaker), whole)
