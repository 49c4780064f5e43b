"""Ogg, the pages in which Vorbis and Opus come (RFC 3533)."""

from __future__ import annotations

import zlib
from typing import IO

_HEAD, _LARGEST = 27, 27 + 255 + 255 * 255
_LAST = 4
"""The bit of a page that says that the stream ends with it."""
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def steady(data: bytes, serial: int = 1) -> bytes:
    """The same pages with a number of our choice for the stream, so that the same sound gives the same bytes: encoders
    draw it by lot."""
    out, place = bytearray(data), 0
    while place < len(data):
        end = place + _length(data[place : place + _HEAD + 255])
        out[place + 14 : place + 18] = serial.to_bytes(4, "little")
        out[place + 22 : place + 26] = bytes(4)
        out[place + 22 : place + 26] = checksum(bytes(out[place:end])).to_bytes(4, "little")
        place = end
    return bytes(out)


def checksum(page: bytes) -> int:
    """CRC-32 with the bits in the order of Ogg, from 0: zlib's goes the other way around, and from -1."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def ended(file: IO[bytes], length: int) -> bool:
    """Whether the last page is whole and says that it is the last."""
    start = max(0, length - 2 * _LARGEST)
    file.seek(start)
    tail = file.read(length - start)
    place = tail.rfind(b"OggS")
    page = tail[place:] if place >= 0 else b""
    return len(page) >= _HEAD and bool(page[5] & _LAST) and len(page) >= _length(page)


def _length(page: bytes) -> int:
    segments = page[26]
    return _HEAD + segments + sum(page[_HEAD : _HEAD + segments])
