"""The teaching of the ear, by voices that hum."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conjure.codecs.plain_letters import spelled
from conjure.core.errors import ConjureError
from conjure.data import teacher, teaching_speech
from conjure.data.spoilt_sound import RATE
from conjure.data.teaching_speech import (
    ESPEAK,
    GROUP,
    TeachingSpeech,
    chosen_by,
    espeak,
    kept_texts,
    real_clips,
    real_digits,
    teaching_texts,
    units,
)
from tests.data.talk import hummed, write_talk

COUNT = 14 * 64 * 4


@pytest.fixture(scope="module", autouse=True)
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_talk(folder, train=COUNT)
    kept_texts.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        patch.setenv("CONJURE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(teacher, "spoken", hummed)
        patch.setattr(teaching_speech, "espeak", lambda text, **how: hummed(text, ESPEAK).samples)
        yield
    kept_texts.cache_clear()


@pytest.fixture(scope="module")
def source(talk: None) -> TeachingSpeech:
    return TeachingSpeech(4, blocks=1, grow=10)


def test_voices_take_turns_and_say_every_text() -> None:
    found = units()
    assert [unit.voice for unit in found] == [*teacher.VOICES, ESPEAK] * (COUNT // 4 // 64)
    for quick, count in ((False, COUNT), (True, COUNT // 4)):
        texts = [text for unit in found if (unit.voice == ESPEAK) is quick for text in unit.texts]
        assert len(texts) == len(set(texts)) == count


def test_what_settings_are_chosen_by_is_not_taught() -> None:
    apart = set(chosen_by())
    assert len(apart) == COUNT // 125
    assert not apart & set(teaching_texts())
    taught = {text for unit in units() for text, letters in zip(unit.texts, unit.lengths, strict=True) if letters}
    assert not apart & taught and len(taught) > 3000


def test_the_pool_grows(source: TeachingSpeech) -> None:
    assert len(source.pool(0)) == len(source.pool(9)) == 5
    assert len(source.pool(10)) == 10
    assert source.pool(10**6) == source.units


def test_an_example_is_the_same_alone_and_again(source: TeachingSpeech) -> None:
    for index in (0, 5, 40):
        one, two = source.example(index), TeachingSpeech(4, blocks=1, grow=10).example(index)
        np.testing.assert_array_equal(one.samples, two.samples)
        assert one.text == two.text
    assert any(source.example(n).text != TeachingSpeech(5, blocks=1).example(n).text for n in range(4))


def test_a_group_is_of_about_one_length_and_kept_sentences_are_in_none(source: TeachingSpeech) -> None:
    kept = {spelled(text) for text in kept_texts()}
    assert kept
    for group in range(4):
        clips = [source.example(group * GROUP + n) for n in range(GROUP)]
        said = [len(clip.text) for clip in clips if clip.text]
        assert not kept & {clip.text for clip in clips}
        assert max(said) - min(said) < 40


def test_phones_end_where_the_sound_does_at_every_speed(source: TeachingSpeech) -> None:
    seen = 0
    for index in range(3 * GROUP):
        clip = source.example(index)
        if clip.ends is not None and clip.phones is not None:
            seen += 1
            assert len(clip.ends) == len(clip.phones) == len(clip.text)
            assert 0 < clip.ends[-1] <= len(clip.samples) + 2
            assert (np.diff(clip.ends) > 0).all()
    assert seen > 5


def test_real_people_have_their_shares_of_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    said = tuple((text, np.full(int(seconds * RATE), 0.1, np.float32))
                 for text, seconds in (("goodbye", 0.8), ("press two", 1.9), ("a long one", 30.0)))  # fmt: skip
    monkeypatch.setattr(teaching_speech, "telephone_prompts", lambda part: said if part == "train" else ())
    (Path(os.environ["CONJURE_DATA"]) / teaching_speech.PROMPTS).mkdir()
    source = TeachingSpeech(4, blocks=1, digits=0.25, prompts=0.25)
    kinds = {"digits": {"one", "seven"}, "prompts": {"goodbye", "press", "two"}}
    count = dict.fromkeys(kinds, 0)
    for group in range(80):
        words = {word for n in range(3) for word in source.example(group * GROUP + n).text.split()}
        for kind, own in kinds.items():
            count[kind] += bool(words) and words <= own  # the one that is longer than any example is never there
    assert all(8 < number < 32 for number in count.values())
    none = TeachingSpeech(4, blocks=1, digits=0, prompts=0)
    texts = [none.example(group * GROUP).text for group in range(20)]
    assert not [text for text in texts if text and set(text.split()) <= kinds["digits"] | kinds["prompts"]]


def test_shares_of_more_than_all_are_refused() -> None:
    for digits, prompts in ((0.6, 0.5), (-0.1, 0.0)):
        with pytest.raises(ConjureError, match="expected shares"):
            TeachingSpeech(digits=digits, prompts=prompts)


def test_digits_of_the_speaker_that_is_held_out_are_in_the_test_alone() -> None:
    train, test = real_digits("train"), real_digits("test")
    assert {(speaker, digit) for speaker, digit, _ in train} == {("george", 1), ("george", 7)}
    assert len(train) == 2  # takes 0 to 4 are for others' tests
    assert {speaker for speaker, _, _ in test} == {"yweweler"}
    assert len(test) == 4
    assert len(train[0][2]) == 2 * (2400 + 720)


def test_real_sentences_have_their_text() -> None:
    (clip,) = real_clips()
    assert clip.text == "the cat sat"
    assert len(clip.samples) == 960 * len(clip.text)


def test_espeak_ng_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConjureError, match="espeak-ng is not installed"):
        espeak("good morning")
