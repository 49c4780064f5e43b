from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data.speech_clips import HELD_OUT, RATE, ClipData, SpeechClips, as_audio, held, held_texts, readers
from tests.data.sounds import placed


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return placed(tmp_path, monkeypatch)


def test_a_clip_is_a_function_of_its_number(sets: Path) -> None:
    data = ClipData(seconds=0.5)
    first, again, other = SpeechClips(data, 1), SpeechClips(data, 1), SpeechClips(data, 2)
    made = [first.example(index) for index in range(20)]
    assert all(clip.shape == (8000,) and clip.dtype == np.float32 and np.abs(clip).max() <= 1 for clip in made)
    assert all(np.array_equal(clip, again.example(index)) for index, clip in reversed(list(enumerate(made))))
    assert not np.array_equal(made[0], other.example(0))
    assert len({clip.tobytes() for clip in made}) == 20 and all(np.abs(clip).max() > 0.02 for clip in made)


def test_held_out_speakers_are_never_in_a_clip(sets: Path) -> None:
    clips = SpeechClips(ClipData(seconds=0.5, people=1.0, digits=0.0))
    speakers = {speaker for speaker, _, _ in readers()}
    assert set(HELD_OUT) < speakers and len(clips.people) == 4
    trained = {sound.tobytes() for sound in clips.people}
    assert not trained & {sound.tobytes() for sound in held("librispeech")}


def test_digits_follow_one_another(sets: Path) -> None:
    clips = SpeechClips(ClipData(seconds=1.0, people=0.0, digits=1.0))
    assert len(clips.digits) == 6  # takes 0 are for tests
    assert all(np.abs(clips.example(index)[-3000:]).max() > 0.02 for index in range(5))


def test_short_sounds_are_followed_by_silence(sets: Path) -> None:
    clips = SpeechClips(ClipData(seconds=4.0, people=0.0, digits=0.0))
    assert np.abs(clips.example(0)[:16_000]).max() > 0.02 and not clips.example(0)[3 * RATE :].any()


def test_texts_stand_beside_the_sentences_that_are_held_out(sets: Path) -> None:
    rows = [{"file": f"LJ001-000{number}.flac", "text": f"said {number}"} for number in (1, 0)]
    (sets / "speech_lj24" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert held_texts("lj") == ["said 0", "said 1"] and held_texts("teacher") == ["text 0", "text 5"]
    with pytest.raises(ConjureError, match="expected lj or teacher"):
        held_texts("librispeech")


def test_what_is_held_out(sets: Path) -> None:
    assert [len(held(name)) for name in ("librispeech", "lj", "teacher")] == [4, 2, 2]
    assert len(held("librispeech", 1)) == 1 and held("lj")[0].shape == (round(1.3 * RATE),)
    assert as_audio(held("teacher")[0]).rate == RATE
    with pytest.raises(ConjureError, match="librispeech, lj, teacher"):
        held("radio")


def test_bad_shares_and_empty_sets_are_refused(sets: Path) -> None:
    with pytest.raises(ConjureError, match="shares within 1"):
        ClipData(people=0.7, digits=0.5)
    for path in (sets / "fsdd" / "recordings").iterdir():
        path.unlink()
    with pytest.raises(ConjureError, match="0_george_5"):
        SpeechClips(ClipData(digits=1.0, people=0.0)).example(0)
