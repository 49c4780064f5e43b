from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media.audio import Audio
from conjure.studio.player import heard, peaks, player

SOUND = Audio(np.array([[0.0, 0.5, -1.0, 0.25]], np.float32), 8000)
SEGMENTS = [
    {"start": 0.5, "end": 2.0, "text": "Hi <b>you</b>",
     "words": [{"start": 0.5, "end": 0.9, "text": "Hi"}, {"start": 1.0, "end": 2.0, "text": "<b>you</b>"}]},
    {"start": 3725.25, "end": 3726.0, "text": "later"},
]  # fmt: skip


def test_the_waveform_is_the_largest_sample_of_each_part() -> None:
    np.testing.assert_array_equal(peaks(np.array([0.1, -0.9, 0.3, 0.2, 2.0], np.float32), 2),
                                  np.array([0.9, 1.0], np.float32))  # fmt: skip
    np.testing.assert_array_equal(peaks(np.array([0.1, -0.9], np.float32), 480), np.array([0.1, 0.9], np.float32))


def test_a_full_sample_fills_the_height_and_silence_is_seen() -> None:
    lines = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", player(SOUND, "/a.wav"))[:4]
    assert lines == [("0.5", "49.5", "50.5"), ("1.5", "16.1", "83.9"), ("2.5", "2.0", "98.0"), ("3.5", "26.0", "74.0")]


def test_words_have_their_times_and_stay_text() -> None:
    page = player(SOUND, "/x/a b.wav", SEGMENTS)
    assert '<span data-start="0.5" data-end="0.9">Hi</span> <span data-start="1.0"' in page
    assert "<b>" not in page and "&lt;b&gt;you&lt;/b&gt;" in page
    assert '<button type="button" data-start="3725.25">1:02:05</button><span data-start="3725.25"' in page
    assert 'src="gradio_api/file=/x/a%20b.wav"' in page


def test_languages_without_spaces_get_none() -> None:
    words = [{"start": 0, "end": 1, "text": "你"}, {"start": 1, "end": 2, "text": "好"}]
    page = player(SOUND, "/a.wav", [{"start": 0, "end": 2, "text": "你好", "words": words, "language": "zh"}])
    assert "你</span><span" in page


def test_who_speaks_stands_in_front() -> None:
    page = player(SOUND, "/a.wav", [SEGMENTS[1] | {"speaker": "Ann <1>"}])
    assert "</button><em>Ann &lt;1&gt;</em> <span" in page and "<em>" not in player(SOUND, "/a.wav", SEGMENTS)


def test_without_words_there_is_a_player_alone() -> None:
    assert "said" not in player(SOUND, "/a.wav") and "<audio" in player(SOUND, "/a.wav")


def test_what_browsers_play_stays_and_the_rest_becomes_wav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    plain, odd = tmp_path / "a.flac", tmp_path / "a.aiff"
    plain.write_bytes(media.encode(SOUND, ".flac"))
    sound, path = heard(str(plain))
    assert path == str(plain) and sound.seconds == SOUND.seconds
    odd.write_bytes(plain.read_bytes())
    _, path = heard(str(odd))
    assert path.endswith("sound.wav")
    np.testing.assert_allclose(media.read(Path(path)).samples, SOUND.samples, atol=1e-4)


def test_a_text_is_no_sound(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound at all")
    with pytest.raises(ConjureError, match=r"sound|text"):
        heard(str(tmp_path / "a.wav"))
