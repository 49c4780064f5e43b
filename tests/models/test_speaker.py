from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from conjure.codecs.spoken_text import Pause, Utterance, Word, read
from conjure.core.errors import ConjureError
from conjure.models.speaker import MOST, Saying, Speaker
from tests.models import small_voice

HOW = Saying(voice="slt", steps=2)


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return small_voice.speaker()


def said(speaker: Speaker, text: str, how: Saying = HOW, seed: int = 0) -> list:
    return list(speaker.say(read(text).utterances, how, seed))


def test_every_phone_that_was_asked_for_is_said(speaker: Speaker) -> None:
    (sound,) = said(speaker, "Hello, cats.")
    assert sound.phones == ("pau", *"hh ax l ow".split(), "pau", *"k ae t s".split(), "pau")
    lengths = np.diff([0, *sound.ends])
    frame = speaker.voice.config.mel.hop / speaker.rate
    assert (lengths >= frame * 0.999).all()
    assert 0 <= sound.ends[-1] - len(sound.samples) / speaker.rate < frame
    assert np.isfinite(sound.samples).all() and sound.samples.dtype == np.float32 and np.abs(sound.samples).max() > 0


def test_sentences_are_the_same_alone_and_in_a_batch(speaker: Speaker) -> None:
    text = "Hello. The cat. Hello, world, the bat and the apple. Tab."
    alone = said(speaker, text, dataclasses.replace(HOW, batch=1))
    together = said(speaker, text, dataclasses.replace(HOW, batch=3))
    assert [each.source for each in alone] == ["Hello.", "The cat.", "Hello, world, the bat and the apple.", "Tab."]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.ends, other.ends, rtol=1e-5)
        assert len(one.samples) == len(other.samples)
        assert np.abs(one.samples - other.samples).max() < 1e-4 * np.abs(one.samples).max()


def test_seeds(speaker: Speaker) -> None:
    first, again, other = (said(speaker, "Hello world.", seed=seed)[0].samples for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()
    still = dataclasses.replace(HOW, temperature=0.0)
    assert (said(speaker, "Hello.", still, 1)[0].samples == said(speaker, "Hello.", still, 2)[0].samples).all()


@pytest.mark.parametrize("speed", [0.25, 0.4, 3.0, 4.0])
def test_far_from_the_usual_speed(speaker: Speaker, speed: float) -> None:
    """Beyond what the network is asked for, frames are spread: the nearest speed that it knows, times the rest."""
    text = 'Hello, the cat <break time="400ms"/> and the bat.'
    (found,) = said(speaker, f"<speak>{text}</speak>", dataclasses.replace(HOW, speed=speed))
    known = min(max(speed, 0.5), 2.0)
    (nearest,) = said(speaker, f"<speak>{text}</speak>", dataclasses.replace(HOW, speed=known))
    frame = speaker.voice.config.mel.hop / speaker.rate
    assert found.ends[-1] == pytest.approx(len(found.samples) / speaker.rate, abs=2 * frame)
    still, longest = (max(np.diff(each.ends)) for each in (found, nearest))
    assert still == pytest.approx(0.4, abs=frame) and longest == pytest.approx(0.4, abs=frame)
    assert found.ends[-1] - 0.4 == pytest.approx((nearest.ends[-1] - 0.4) * known / speed, abs=2 * frame)


def test_speed_and_pauses(speaker: Speaker) -> None:
    text = "Hello, world, the cat."
    (plain,), (slow,) = said(speaker, text), said(speaker, text, dataclasses.replace(HOW, speed=0.5))
    assert slow.ends[-1] == pytest.approx(2 * plain.ends[-1], rel=0.02)
    (long,) = said(speaker, text, dataclasses.replace(HOW, pause=3.0))
    inside = [k for k, phone in enumerate(plain.phones) if phone == "pau"][1:-1]
    before, after = (np.diff([0, *each.ends]) for each in (plain, long))
    assert len(inside) == 2 and after[inside] == pytest.approx(3 * before[inside], rel=1e-4)
    assert np.delete(after, inside) == pytest.approx(np.delete(before, inside), rel=1e-4)
    assert long.after == 3 * plain.after
    parts = (Word("hello"), Pause(0.7), Word("world"))
    (sound,) = speaker.say([Utterance(parts, "hello world", voice="awb")], HOW, 0)
    assert np.diff([0, *sound.ends])[5] == pytest.approx(0.7)
    other = said(speaker, "Hello world.")[0]
    assert sound.phones[5] == "pau" and other.phones[5] == "w"


def test_phones_can_be_told(speaker: Speaker) -> None:
    (sound,) = speaker.say([Utterance((Word("x", ("t", "uw")), Word("cat")), "x cat")], HOW, 0)
    assert sound.phones == ("pau", "t", "uw", "k", "ae", "t", "pau")


def test_long_sentences_and_words_are_cut_and_whole(speaker: Speaker) -> None:
    parts = tuple(Word("hello") for _ in range(60))
    sounds = list(speaker.say([Utterance(parts, "hello " * 60, after=0.4)], HOW, 0))
    assert len(sounds) > 1 and max(len(each.phones) for each in sounds) <= MOST + 2
    assert [phone for each in sounds for phone in each.phones if phone != "pau"] == "hh ax l ow".split() * 60
    assert [each.after for each in sounds] == [0.0] * (len(sounds) - 1) + [0.4]
    word = "cat" * 130
    wanted = speaker.pronunciation.of(word)
    sounds = list(speaker.say([Utterance((Word(word),), word)], HOW, 0))
    assert tuple(phone for each in sounds for phone in each.phones if phone != "pau") == wanted


def test_a_voice_that_there_is_not(speaker: Speaker) -> None:
    with pytest.raises(ConjureError, match="no voice 'slr'") as error:
        said(speaker, "Hello.", dataclasses.replace(HOW, voice="slr"))
    assert "slt" in error.value.hint
    with pytest.raises(ConjureError, match="no voice 'bob'"):
        said(speaker, '<speak><voice name="bob">hello</voice></speak>')


def test_a_folder(tmp_path: Path, speaker: Speaker) -> None:
    again = Speaker.load(small_voice.folder(tmp_path / "voice"))
    one, other = said(speaker, "Hello.")[0], said(again, "Hello.")[0]
    assert (one.samples == other.samples).all()
    stages = again.stages
    assert min(stages.text, stages.phones, stages.spectrogram, stages.vocoder) > 0
