"""What was said, as the official client asks for it."""

from __future__ import annotations

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
