"""A text said aloud, as the official client asks for it."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile

import conjure
from conjure import media
from conjure.media.audio import Audio
from conjure.serve.settings import Settings
from tests.models import small_voice
from tests.models.voices import vits, vits_reference
from tests.serve.running import running

TEXT = "Hello. The cat. The bat."
MORE: Any = {"steps": 1, "temperature": 0.0, "check": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_voice.folder(tmp_path_factory.mktemp("models") / "tiny-voice")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vits(tmp_path_factory.mktemp("vits"), vits_reference(num_speakers=3, speaker_embedding_size=6))


@pytest.fixture(scope="module")
def place(model: Path, public: Path) -> Iterator[str]:
    with running(Settings(models=(model, public))) as url:
        yield url


@pytest.fixture(scope="module")
def here(model: Path) -> Audio:
    return conjure.make(TEXT, to="audio", model=str(model), voice="awb", **MORE)


def said(client: openai.OpenAI, form: Any, **more: Any) -> bytes:
    wish: Any = {"model": "tiny-voice", "input": TEXT, "voice": "awb", "response_format": form, "extra_body": MORE}
    return client.audio.speech.create(**(wish | more)).read()


def test_a_wav_is_what_make_writes(client: openai.OpenAI, here: Audio) -> None:
    sound = media.read(said(client, "wav"))
    assert isinstance(sound, Audio) and sound.rate == here.rate
    assert np.abs(sound.samples - here.samples).max() < 1e-4


@pytest.mark.parametrize("form", ["mp3", "opus", "flac"])
def test_other_files(client: openai.OpenAI, here: Audio, form: str) -> None:
    sound = media.read(said(client, form))
    assert isinstance(sound, Audio) and sound.seconds == pytest.approx(here.seconds, abs=0.15)


def test_bare_samples(client: openai.OpenAI, here: Audio) -> None:
    samples = np.frombuffer(said(client, "pcm"), "<i2") / 32768
    wanted = here.at(24_000).samples[0]
    assert len(samples) == len(wanted) and np.abs(samples - wanted).max() < 1e-4


def test_aac_where_there_is_a_writer(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(openai.BadRequestError, match="aac needs PyAV"):
        said(client, "aac")


def test_speed_and_a_voice_by_its_id(client: openai.OpenAI, here: Audio) -> None:
    slow = media.read(said(client, "wav", speed=0.5, voice={"id": "awb"}))
    assert isinstance(slow, Audio) and slow.seconds > 1.3 * here.seconds
    for speed in (0.25, 4):  # the ends of what the API knows
        sound = media.read(said(client, "wav", speed=speed))
        assert isinstance(sound, Audio) and (sound.seconds - here.seconds) * (speed - 1) < 0


def test_speakers_of_a_public_voice_have_numbers(client: openai.OpenAI, public: Path) -> None:
    def made(voice: str, **more: Any) -> Any:
        wish: Any = {"model": public.name, "input": "hello there", "response_format": "wav", "voice": voice,
                     "extra_body": {"noise": 0, "duration_noise": 0} | more}  # fmt: skip
        return media.read(client.audio.speech.create(**wish).read())

    first, plain, third = made("0"), made("default"), made("2")
    assert (first.samples == plain.samples).all() and first.digest() != third.digest()
    for voice, words in (("7", "speaker"), ("nova", "numbers its speakers"), ("x.npy", "numbers its speakers")):
        with pytest.raises(openai.BadRequestError, match=words):
            made(voice)
    with pytest.raises(openai.BadRequestError, match=r"options\.vocoder: names files"):
        made("0", vocoder="ann")


def test_a_stream_of_sound(client: openai.OpenAI, here: Audio) -> None:
    asked = client.audio.speech.with_streaming_response
    with asked.create(model="tiny-voice", input=TEXT, voice="awb", response_format="wav", stream_format="audio",
                      extra_body=MORE) as answer:  # fmt: skip
        data = b"".join(answer.iter_bytes())
    assert data[:4] == b"RIFF"
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == here.rate and len(samples) == here.samples.shape[1]
    assert np.abs(samples - here.samples[0]).max() < 1e-4


@pytest.mark.parametrize("form", ["pcm", "mp3", "flac"])
def test_a_stream_of_events(place: str, here: Audio, form: str) -> None:
    wish = {"model": "tiny-voice", "input": TEXT, "voice": "awb", "response_format": form, "stream_format": "sse"}
    with httpx.stream("POST", f"{place}/v1/audio/speech", json=wish | MORE) as answer:
        events = [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]
    *deltas, done = events
    assert {each["type"] for each in deltas} == {"speech.audio.delta"} and done["type"] == "speech.audio.done"
    assert len(deltas) == (1 if form == "flac" else 3)
    assert done["usage"]["output_tokens"] == round(100 * here.seconds)
    data = b"".join(base64.b64decode(each["audio"]) for each in deltas)
    if form == "pcm":
        assert len(data) / 2 / 24_000 == pytest.approx(here.seconds, abs=0.01)
    else:
        sound = media.read(data)
        assert isinstance(sound, Audio) and sound.seconds == pytest.approx(here.seconds, abs=0.4)


def test_wishes_that_cannot_be(client: openai.OpenAI) -> None:
    def ask(**more: Any) -> None:
        wish: Any = {"model": "tiny-voice", "input": TEXT, "voice": "awb", "response_format": "wav", **more}
        client.audio.speech.create(**wish)

    for more, words in (
        ({"voice": "alloy"}, "no voice 'alloy'"), ({"voice": "ann.wav"}, "expected a name, got that of a file"),
        ({"extra_body": {"sample": "ann.wav"}}, "sample: expected a sound"),
        ({"input": ""}, "empty text"), ({"speed": 4.5}, "speed"),
        ({"instructions": "like a pirate"}, "instructions"), ({"response_format": "midi"}, "response_format"),
        ({"input": "你好"}, "Chinese"), ({"stream_format": "audio", "voice": "alloy"}, "no voice 'alloy'"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match=words):
            ask(**more)
    with pytest.raises(openai.NotFoundError):
        ask(model="no-such-voice")
