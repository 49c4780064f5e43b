"""What was said, as the official client asks for it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import conjure
from conjure import media
from conjure.media.audio import Audio
from conjure.serve.settings import Limits, Settings
from tests.models.whispers import whisper
from tests.serve.running import running

RATE = 16_000
OPTIONS: Any = {"gate": False, "no_speech": 1.0, "logprob": -20.0, "compression": 100.0}
"""A random network is sure of nothing: what it writes is to be kept."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whisper(tmp_path_factory.mktemp("models") / "tiny-ear")


@pytest.fixture(scope="module")
def place(model: Path) -> Iterator[str]:
    with running(Settings(models=(model,), limits=Limits(sound_seconds=30))) as url:
        yield url


def sound(seconds: float = 3.0) -> Audio:
    time = np.arange(int(seconds * RATE)) / RATE
    return Audio((0.4 * np.sin(2 * np.pi * 220 * time) * np.sin(3 * time)).astype(np.float32)[None], RATE)


def file(suffix: str = ".wav", seconds: float = 3.0) -> io.BytesIO:
    made = io.BytesIO(media.encode(sound(seconds), suffix))
    made.name = f"talk{suffix}"
    return made


def test_it_is_the_text_that_make_writes(client: openai.OpenAI, model: Path) -> None:
    here = str(conjure.make(media.read(file().read()), to="text", model=str(model), task="transcribe", **OPTIONS))
    assert here
    plain = client.audio.transcriptions.create(file=file(), model="tiny-ear", extra_body=OPTIONS)
    assert plain.text == here
    assert plain.usage is not None and plain.usage.type == "duration" and plain.usage.seconds == 3
    text = client.audio.transcriptions.create(file=file(), model="tiny-ear", response_format="text", extra_body=OPTIONS)
    assert text == here


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".ogg"])
def test_other_files_are_heard(client: openai.OpenAI, suffix: str) -> None:
    made = client.audio.transcriptions.create(file=file(suffix), model="tiny-ear", extra_body=OPTIONS)
    assert made.text


def test_captions_are_files_of_captions(client: openai.OpenAI) -> None:
    srt = client.audio.transcriptions.create(file=file(), model="tiny-ear", response_format="srt", extra_body=OPTIONS)
    vtt = client.audio.transcriptions.create(file=file(), model="tiny-ear", response_format="vtt", extra_body=OPTIONS)
    assert srt.startswith("1\n00:00:0") and " --> " in srt
    assert vtt.startswith("WEBVTT\n")


def test_everything_about_it(client: openai.OpenAI) -> None:
    made = client.audio.transcriptions.create(
        file=file(), model="tiny-ear", language="de", response_format="verbose_json", extra_body=OPTIONS,
        timestamp_granularities=["word", "segment"],
    )  # fmt: skip
    assert made.language == "german" and float(made.duration) == 3 and made.text
    assert made.segments and made.words
    assert [each.id for each in made.segments] == list(range(len(made.segments)))
    assert all(0 <= each.start <= each.end <= 3.1 for each in made.segments)
    assert all(0 <= each.start <= each.end <= 3.1 for each in made.words)


def test_with_those_who_speak(client: openai.OpenAI) -> None:
    made = client.audio.transcriptions.create(
        file=file(), model="tiny-ear", response_format="diarized_json", chunking_strategy="auto", extra_body=OPTIONS
    )
    assert made.task == "transcribe" and made.duration == 3
    assert made.text == " ".join(each.text for each in made.segments) != ""
    assert [each.id for each in made.segments] == [f"seg_{n}" for n in range(len(made.segments))]
    assert {each.speaker for each in made.segments} == {"A"}


@pytest.fixture(scope="module")
def people() -> tuple[io.BytesIO, dict[str, str]]:
    """Ann says a sentence and then Ben says one; and another sentence of each, as the links that clients send."""
    said = {
        "Ann": ("The old man went down to the sea, and nobody saw him again that day.",
                "Good morning, this is how I speak when I am at home."),
        "Ben": ("She wrote a long letter to her sister about the garden and the birds.",
                "My name does not matter, but my voice does, I am told."),
    }  # fmt: skip
    turns, voices = [], dict[str, str]()
    for (name, texts), voice in zip(said.items(), ("rms", "slt"), strict=True):
        first, other = (conjure.make(text, to="audio", voice=voice, seed=1, check=False) for text in texts)
        turns += [first.samples, np.zeros((1, RATE // 2), np.float32)]
        voices[name] = link(other)
    talk = io.BytesIO(media.encode(Audio(np.concatenate(turns, 1), RATE), ".wav"))
    talk.name = "talk.wav"
    return talk, voices


def link(sound: Audio) -> str:
    return "data:audio/wav;base64," + base64.b64encode(media.encode(sound, ".wav")).decode()


@pytest.mark.parametrize(("known", "called"), [
    (("Ann", "Ben"), ["Ann", "Ben"]), (("Ben",), ["A", "Ben"]), ((), ["A", "B"]),
])  # fmt: skip
def test_with_those_whose_voices_are_known(
    client: openai.OpenAI, people: tuple[io.BytesIO, dict[str, str]], known: tuple[str, ...], called: list[str]
) -> None:
    talk, voices = people
    talk.seek(0)
    made = client.audio.transcriptions.create(
        file=talk, model="starter/ear", response_format="diarized_json", known_speaker_names=known,
        known_speaker_references=[voices[name] for name in known],
    )  # fmt: skip
    assert list(dict.fromkeys(each.speaker for each in made.segments)) == called


def test_a_letter_that_somebody_is_called_stands_for_nobody_else(
    client: openai.OpenAI, people: tuple[io.BytesIO, dict[str, str]]
) -> None:
    talk, voices = people
    talk.seek(0)
    made = client.audio.transcriptions.create(
        file=talk, model="starter/ear", response_format="diarized_json", known_speaker_names=["A"],
        known_speaker_references=[voices["Ben"]],
    )  # fmt: skip
    assert list(dict.fromkeys(each.speaker for each in made.segments)) == ["B", "A"]


@pytest.mark.parametrize(("names", "voices", "status", "said"), [
    (["Ann", "Ben"], [link(sound())], 400, "a sound for each of 2 names, got 1"),
    ([], [link(sound())], 400, "a sound for each of 0 names, got 1"),
    (list("abcde"), [link(sound())] * 5, 400, "known_speaker_names: .* at most 4"),
    (["Ann", "Ann"], [link(sound())] * 2, 400, "expected different names"),
    (["Ann\nBen"], [link(sound())], 400, "each in one line"), ([""], [link(sound())], 400, "known_speaker_names.0"),
    (["Ann"], ["data:audio/wav;base64,no!"], 400, r"known_speaker_references\[0\]: expected base64"),
    (["Ann"], ["data:audio/wav,abcd"], 400, r"known_speaker_references\[0\]: expected data:TYPE;base64"),
    (["Ann"], ["data:text/plain;base64,SGVsbG8="], 400, r"known_speaker_references\[0\]: expected a sound, got text"),
    (["Ann"], ["http://127.0.0.1/ann.wav"], 400, "links are not followed"),
    (["Ann"], [link(Audio(np.zeros((1, RATE), np.float32), RATE))], 400, "the known voice Ann: nobody speaks"),
    (["Ann"], [link(sound(28))], 413, r"known_speaker_references\[0\]: expected sound of at most 30 seconds"),
])  # fmt: skip
def test_voices_that_do_not_serve(
    client: openai.OpenAI, names: list[str], voices: list[str], status: int, said: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=said) as caught:
        client.audio.transcriptions.create(
            file=file(), model="starter/ear", response_format="diarized_json", known_speaker_names=names,
            known_speaker_references=voices,
        )  # fmt: skip
    assert caught.value.status_code == status


def test_no_file_of_the_server_is_a_known_voice(
    client: openai.OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, silence = sound().save(tmp_path / "ann.wav"), link(Audio(np.zeros((1, RATE), np.float32), RATE))
    monkeypatch.chdir(tmp_path)

    def ask(**more: Any) -> None:
        wish: Any = {"file": file(), "model": "starter/ear", "response_format": "diarized_json", **more}
        client.audio.transcriptions.create(**wish)

    own = {"known_speaker_names": ["ann"], "known_speaker_references": [link(sound())]}
    for more, said in (
        ({**own, "known_speaker_references": [str(path)]}, "expected base64"),
        ({"extra_body": {"known": str(path)}}, "names files of this machine"),
        ({**own, "extra_body": {"known": str(path)}}, "names files of this machine"),
        ({"known_speaker_names": ["ann.wav"], "known_speaker_references": [silence]}, "ann.wav: nobody speaks"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match=said):
            ask(**more)


def test_it_comes_as_it_is_written(client: openai.OpenAI) -> None:
    events = list(client.audio.transcriptions.create(file=file(), model="tiny-ear", stream=True, extra_body=OPTIONS))
    assert {each.type for each in events[:-1]} == {"transcript.text.delta"}
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.text == "".join(each.delta for each in events[:-1] if each.type == "transcript.text.delta")


@pytest.mark.filterwarnings("ignore:deprecated")  # the client's own view of that endpoint
def test_into_english(client: openai.OpenAI) -> None:
    made = client.audio.translations.create(
        file=file(), model="tiny-ear", response_format="verbose_json", extra_body=OPTIONS
    )
    assert made.text and made.to_dict()["task"] == "translate"


@pytest.mark.parametrize(("asked", "status", "said"), [
    ({"model": "starter/nothing"}, 404, "there is no model"),
    ({"model": "starter/story"}, 400, "story"),
    ({"language": "Klingon"}, 400, "Klingon"),
    ({"temperature": 3}, 400, "temperature"),
    ({"stream": True, "response_format": "diarized_json"}, 400, "expected json or text"),
    ({"timestamp_granularities": ["word"]}, 400, "only verbose_json"),
    ({"stream": True, "response_format": "srt"}, 400, "expected json or text"),
    ({"extra_body": {"loudness": 3}}, 400, "loudness"),
    ({"include": ["logprobs"]}, 400, "include"),
    ({"known_speaker_names": ["Ann"], "known_speaker_references": ["data:,"]}, 400, "only diarized_json"),
])  # fmt: skip
def test_what_cannot_be_is_refused(client: openai.OpenAI, asked: dict[str, Any], status: int, said: str) -> None:
    wish: Any = {"file": file(), "model": "tiny-ear"} | asked
    with pytest.raises(openai.APIStatusError, match=said) as caught:
        client.audio.transcriptions.create(**wish)
    assert caught.value.status_code == status


def test_what_is_no_sound_or_too_long_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="expected a sound, got text"):
        client.audio.transcriptions.create(file=("talk.wav", b"no sound at all"), model="tiny-ear")
    with pytest.raises(openai.APIStatusError, match="at most 30 seconds") as caught:
        client.audio.transcriptions.create(file=file(seconds=31), model="tiny-ear")
    assert caught.value.status_code == 413
