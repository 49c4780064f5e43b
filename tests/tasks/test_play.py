from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conjure
from conjure.core.errors import ConjureError
from conjure.media import read, read_provenance
from conjure.media.audio import Audio
from conjure.media.music import Music, Note
from conjure.media.synthesiser import rendered


def piece(pitch: int = 69) -> Music:
    return Music(notes=(Note(start=0, length=480, pitch=pitch), Note(start=480, length=480, pitch=pitch + 12)))


def test_a_piece_is_heard_at_its_pitches_and_can_be_played_again(tmp_path: Path) -> None:
    piece().save(tmp_path / "a.mid")
    conjure.make(tmp_path / "a.mid", output=tmp_path / "a.wav", rate=16000)
    made = read(tmp_path / "a.wav")
    assert isinstance(made, Audio) and made.rate == 16000
    written = read(tmp_path / "a.mid")
    assert isinstance(written, Music)
    assert np.abs(made.samples - rendered(written, 16000)).max() < 1e-4  # 16 bits
    beat = round(0.75 * made.rate)  # 80 in a minute
    for start, hertz in ((0, 440), (beat, 880)):
        power = np.abs(np.fft.rfft(made.mono()[start + 800 : start + 5600] * np.hanning(4800)))
        assert abs(np.argmax(power) * made.rate / 4800 - hertz) < 10
    record = read_provenance(tmp_path / "a.wav")
    assert record is not None and (record.task, record.model) == ("play", "")
    again = conjure.make(tmp_path / "a.mid", to="audio", rate=16000)
    assert np.array_equal(conjure.remake(tmp_path / "a.wav").samples, again.samples)


def test_what_cannot_be() -> None:
    with pytest.raises(ConjureError, match="rate"):
        conjure.make(piece(), to="audio", rate=12345)
    with pytest.raises(ConjureError, match="no model takes part"):
        conjure.make(piece(), to="audio", model="starter/pictograms")
