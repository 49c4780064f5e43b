from __future__ import annotations

import io

import numpy as np
import soundfile

from conjure.media import ogg


def encoded(coding: str = "VORBIS") -> bytes:
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8000, 1, coding, format="OGG") as file:
        for _ in range(40):
            file.write(np.random.default_rng(0).normal(0, 0.1, 1000))
    return out.getvalue()


def naive(page: bytes) -> int:
    """RFC 3533, section 6: polynomial 0x04c11db7, from 0, highest bit first."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)) & 0xFFFFFFFF
    return value


def test_the_checksum_is_that_of_the_standard() -> None:
    for text in (b"", b"\0", b"a", b"123456789", bytes(range(256))):
        assert ogg.checksum(text) == naive(text)


def test_a_number_of_the_streams_own_and_of_ours() -> None:
    for coding in ("VORBIS", "OPUS"):
        one, other = encoded(coding), encoded(coding)
        assert one != other
        assert ogg.steady(one) == ogg.steady(other)
        serial = int.from_bytes(one[14:18], "little")
        assert ogg.steady(one, serial) == one  # libogg's own checksums come out
        ours, theirs = (soundfile.read(io.BytesIO(data))[0] for data in (ogg.steady(one), one))
        assert np.array_equal(ours, theirs) and len(ours) == 40_000


def test_the_end_of_a_stream() -> None:
    data = encoded()
    assert ogg.ended(io.BytesIO(data), len(data))
    assert ogg.ended(io.BytesIO(data + bytes(100)), len(data) + 100)
    last = data.rindex(b"OggS")
    for cut in (data[:last], data[: last + 20], data[:-1], b"", b"OggS", data[: last // 2]):
        assert not ogg.ended(io.BytesIO(cut), len(cut))
