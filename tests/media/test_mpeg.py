from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media import mpeg
from conjure.media.audio import Audio

RATE, SECONDS = 44_100, 4
KILOBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)


def encoded(mode: str = "VARIABLE") -> bytes:
    """Quiet first, then loud: the first frames say little about the rest."""
    loud = np.repeat([0.001, 0.3], RATE * SECONDS // 2) * np.random.default_rng(0).normal(0, 0.5, RATE * SECONDS)
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", RATE, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode,
                             compression_level=0.3) as file:  # fmt: skip
        file.write(loud)
    return out.getvalue()


def without_note(data: bytes) -> bytes:
    """Without the first frame, as a recorder of radio writes it."""
    length = 144_000 * KILOBITS[data[2] >> 4] // RATE + (data[2] >> 1 & 1)
    assert data[length] == 0xFF
    return data[length:]


def tagged(data: bytes, size: int = 3000) -> bytes:
    return b"ID3\x03\0\0" + bytes([0, 0, size >> 7, size & 127]) + bytes(size) + data


def trusted(data: bytes) -> bool:
    return mpeg.trusted(io.BytesIO(data), len(data))[0]


def seconds(data: bytes) -> float:
    sound = media.read(data)
    assert isinstance(sound, Audio)
    return sound.seconds


def test_whom_to_trust() -> None:
    for mode in ("VARIABLE", "CONSTANT"):
        data = encoded(mode)
        assert trusted(data) and trusted(tagged(data)) and trusted(data + bytes(128))
        assert trusted(data[: len(data) // 2])  # what is missing shows when it is read
        assert not trusted(without_note(data))
        assert not trusted(data + data)
        for cut in (b"", b"\xff", b"ID3", data[:40], data[:100]):
            trusted(cut)


def test_a_varying_bit_rate_without_a_note_is_read_to_its_end() -> None:
    data = without_note(encoded())
    with soundfile.SoundFile(io.BytesIO(data)) as file:  # why all this is here
        assert abs(len(file.read()) / RATE - SECONDS) > 0.5
    assert abs(seconds(data) - SECONDS) < 0.1
    assert abs(seconds(tagged(data)) - SECONDS) < 0.1


def test_files_that_were_appended_to_each_other_are_read_to_the_last() -> None:
    assert abs(seconds(encoded() * 3) - 3 * SECONDS) < 0.3


def test_a_whole_file_is_exact() -> None:
    for mode in ("VARIABLE", "CONSTANT"):
        assert seconds(encoded(mode)) == SECONDS == seconds(tagged(encoded(mode)))


def test_the_bound_holds_where_no_length_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_MAX_SECONDS", "3")
    with pytest.raises(ConjureError, match="at most 3 seconds of sound, got"):
        media.read(without_note(encoded()))
