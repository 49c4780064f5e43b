"""Prompts of a telephone exchange, out of small packages that are written here."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data.spoilt_sound import RATE
from conjure.data.telephone_prompts import PROMPTS, TENTH, decoded, telephone_prompts
from tests.data.debian import write_deb

LIST = """; Core sounds
digits/1: one hundred
digits/6: six
slow: very
vm-goodbye: Good-bye, Dr. Who!
press: Please press 1 or 2 for Mr. O'Neil.
beep: [this is a beep]
letters/w: w
quick: nobody says all of these many words within a single second of sound, never ever
lost: There is no recording of this one.
"""


def g722(seconds: float, hertz: float = 440.0) -> bytes:
    """A tone as a file without header."""
    samples = (9000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)
    out = io.BytesIO()
    with av.open(out, "w", format="g722") as container:
        stream = container.add_stream("g722", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The set, with sentences enough for a test part."""
    place = tmp_path / PROMPTS
    place.mkdir()
    many = "".join(f"menu/{n:02d}: To hear this again, press {n}.\n" for n in range(1, 2 * TENTH))
    sounds = {"digits/1": 1.0, "digits/6": 0.9, "vm-goodbye": 2.0, "press": 3.0, "slow": 2.0, "quick": 1.0}
    sounds |= {"beep": 1.0, "letters/w": 1.0}
    sounds |= {f"menu/{n:02d}": 2.5 for n in range(1, 2 * TENTH)}
    write_deb(place / "a-texts.deb", {"./usr/share/doc/a/core-sounds-en.txt.gz": gzip.compress((LIST + many).encode())})
    write_deb(place / "b-sounds.deb",
              {f"./usr/share/sounds/voice/{name}.g722": g722(length) for name, length in sounds.items()})  # fmt: skip
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    telephone_prompts.cache_clear()
    yield place
    telephone_prompts.cache_clear()


def test_what_is_said_is_in_words_and_what_is_not_said_is_left_out(folder: Path) -> None:
    said = dict([*telephone_prompts("train"), *telephone_prompts("test")])
    assert {"six", "one hundred", "good bye doctor who", "please press one or two for mister o'neil"} <= said.keys()
    wrong = ("beep", "many words", "recording", "very")
    assert not [text for text in said if text == "w" or any(each in text for each in wrong)]
    assert len(said["one hundred"]) == RATE


def test_every_tenth_sentence_is_for_tests(folder: Path) -> None:
    train, test = ([text for text, _ in telephone_prompts(part)] for part in ("train", "test"))
    # By name: 19 of the menu, then "press"; shorter ones are no sentences.
    assert test == ["to hear this again press ten", "please press one or two for mister o'neil"]
    assert not set(train) & set(test)
    assert len(train) + len(test) == 23


def test_a_tone_is_read_as_it_was_written() -> None:
    samples_N = decoded(g722(1.0), "tone")
    assert (samples_N.dtype, len(samples_N)) == (np.float32, RATE)
    assert np.abs(np.fft.rfft(samples_N)).argmax() == 440
    assert float(np.abs(samples_N).max()) == pytest.approx(9000 / 2**15, rel=0.1)


def test_without_the_set_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    telephone_prompts.cache_clear()
    assert telephone_prompts("train") == telephone_prompts("test") == ()
    telephone_prompts.cache_clear()


def test_no_sound_is_said_so() -> None:
    with pytest.raises(ConjureError, match="empty: "):
        decoded(b"", "empty")


def test_without_pyav_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConjureError, match="PyAV") as caught:
        decoded(b"", "tone")
    assert caught.value.hint == "pip install 'conjure[sound]'"
