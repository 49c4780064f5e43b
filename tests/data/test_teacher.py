from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from conjure.data import teacher
from conjure.data.read_sentences import ReadData, ReadSentences
from conjure.data.teacher import PHONES, VOICES, Renderings, phones_of, spoken
from conjure.data.word_sounds import word_sounds, words
from tests.data import fake_flite


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_flite.install(tmp_path, monkeypatch)
    fake_flite.sentences(tmp_path)
    return tmp_path


def test_what_is_said_has_its_phones_and_their_ends(place: Path) -> None:
    said = spoken("Ab, c.", "slt")
    assert [phone for phone, _ in said.phones] == ["pau", "ae", "b", "pau", "k", "pau"]
    assert [end for _, end in said.phones] == pytest.approx([0.1, 0.15, 0.2, 0.3, 0.35, 0.45])
    assert said.samples.dtype == np.int16 and len(said.samples) == round(0.45 * said.rate)
    assert phones_of("Ab") == ("pau", "ae", "b", "pau")


def test_what_cannot_be_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConjureError, match="no voice 'slit'") as error:
        spoken("hello", "slit")
    assert "slt" in error.value.hint
    for text in ("", " ... "):
        with pytest.raises(ConjureError, match="a word in it"):
            spoken(text, "slt")
    with pytest.raises(ConjureError, match="at most 10,000 bytes"):
        spoken("word " * 3000, "slt")


def test_the_program_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConjureError, match="not installed") as error:
        spoken("hello", "slt")
    assert "apt install flite" in error.value.hint
    broken = tmp_path / "flite"
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ConjureError, match=r"flite failed \(3\): no such thing"):
        spoken("hello", "slt")


def test_renderings_are_made_once_and_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'abcd'[k % 4]}ef{'gh'[k % 2]}" for k in range(teacher.BLOCK + 3)]
    told: list[Progress] = []
    first = Renderings(texts, "awb", tell=told.append)
    assert len(first) == len(texts) and [each.step for each in told] == [teacher.BLOCK, len(texts)]
    calls: list[str] = []
    monkeypatch.setattr(teacher, "spoken", lambda text, voice: calls.append(text))
    again = Renderings(texts, "awb")
    assert not calls
    monkeypatch.undo()
    for k in (0, 5, teacher.BLOCK, len(texts) - 1):
        alone = fake_flite.phones_of(texts[k])
        assert [PHONES[each] for each in again[k].phones] == alone and again[k].text == texts[k]
        assert again[k].ends[-1] == len(again[k].samples) == round(samples_of(alone))
        np.testing.assert_array_equal(first[k].samples, again[k].samples)
    assert again.seconds == pytest.approx(sum(len(again[k].samples) for k in range(len(texts))) / teacher.RATE)


def samples_of(phones: list[str]) -> float:
    return teacher.RATE * sum(0.1 if phone == "pau" else 0.05 for phone in phones)


def test_each_voice_reads_its_own_sentences(place: Path) -> None:
    read = ReadSentences("train", 8, seed=3)
    assert len(read) == 8 and [read[k][0] for k in range(8)] == [0, 1, 2, 3] * 2
    every = teacher.sentences("train")
    assert [read[k][1].text for k in range(8)] == list(every)
    epoch = sorted(read.example(k)[1].text for k in range(8, 16))
    assert epoch == sorted(every)
    again = ReadSentences("train", 8, seed=3)
    assert [read.example(k)[1].text for k in range(20)] == [again.example(k)[1].text for k in range(20)]
    assert set(every) & set(teacher.sentences("val")) == set()
    with pytest.raises(ConjureError, match="texts >= 4"):
        ReadData(texts=len(VOICES) - 1)


def test_the_dictionary_is_what_the_teacher_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = words()
    assert {"ships", "sail", "clouds", "train"} <= set(known) and "val" not in known
    sounds = word_sounds(known)
    assert set(sounds) == set(known) and sounds["sail"] == ("s", "ae", "ih", "l")
    monkeypatch.setattr(teacher, "_flite", None)
    assert word_sounds(known) == sounds  # from the cache


def test_words_that_fall_apart_are_left_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "_flite", lambda *given: fake_flite.said(*given).replace("s k", "s pau k"))
    sounds = word_sounds(("ask", "bad", "cat"))
    assert set(sounds) == {"bad", "cat"} and sounds["cat"] == ("k", "ae", "t")
