from __future__ import annotations

import io
import wave

import pytest

from conjure.core.errors import ConjureError
from conjure.media import riff

NOTES = {b"INAM": "odd", b"ICMT": "even "}


def test_the_standard_library_reads_what_is_written() -> None:
    for samples in (b"\1\0\2\0", b"\1\0\2\0\3\0"):
        data = riff.written([samples[:2], samples[2:]], 8000, 1, 16, NOTES)
        assert len(data) == int.from_bytes(data[4:8], "little") + 8
        with wave.open(io.BytesIO(data)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
            assert file.readframes(9) == samples


def test_notes_are_found_by_name() -> None:
    file = io.BytesIO(riff.written([bytes(2)], 8000, 1, 16, NOTES))
    assert riff.info(file, b"INAM", 99) == "odd" and riff.info(file, b"ICMT", 99) == "even "
    assert riff.info(file, b"ICMT", 3) == "eve" and riff.info(file, b"IART", 99) == ""
    assert riff.info(io.BytesIO(riff.written([bytes(2)], 8000, 1, 16, {})), b"ICMT", 99) == ""


def test_boxes_and_what_they_promise() -> None:
    data = riff.written([bytes(1600)], 8000, 1, 16, NOTES)
    assert [name for name, _, _ in riff.chunks(io.BytesIO(data))] == [b"fmt ", b"data", b"LIST"]
    assert riff.promised_seconds(io.BytesIO(data), len(data)) == 0
    assert riff.promised_seconds(io.BytesIO(data[:100]), 100) == 0.1


@pytest.mark.parametrize("rest", [b"", bytes(100_000), b"LIST\xff\xff\xff\xffINFO" + bytes(100_000), b"fmt \x10\0\0\0"])
def test_damaged_boxes_end(rest: bytes) -> None:
    file = io.BytesIO(b"RIFF\0\0\0\0WAVE" + rest)
    assert riff.info(file, b"ICMT", 99) == ""
    assert riff.promised_seconds(file, 12 + len(rest)) == 0
    assert sum(1 for _ in riff.chunks(file)) <= 1000


def test_four_gibibytes_are_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riff, "_MOST", 1000)
    assert len(riff.written([bytes(900)], 8000, 1, 16, {})) < 1008
    with pytest.raises(ConjureError, match="at most 4 GiB") as caught:
        riff.written([bytes(1000)], 8000, 1, 16, {})
    assert caught.value.hint == "write a .flac"
