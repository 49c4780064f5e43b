"""RIFF, the boxes of a WAV file: written here, so that 16 bits stay what they were and the record has all the room it
needs. libsndfile scales floats by 32,767 where it reads them by 32,768, and reads no comment of 4,000 characters.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import IO

from conjure.core.errors import ConjureError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
_GUID = bytes.fromhex("000000001000800000aa00389b71")
"""What follows the two bytes of the format in the long form of its name."""
_STREAM = 0x7FFF_0000
"""Sizes from here on (and 0) are written by programs that did not yet know how long the sound would be."""
_MOST = 0xFFFF_FFFF
_BOXES = 1000
"""How many are looked at: a damaged file may seem to hold millions of empty ones."""


def written(pieces: Iterable[bytes], rate: int, channels: int, bits: int, info: dict[bytes, str]) -> bytes:
    """A WAV file of interleaved little-endian samples, integers of 16 bits or floats of 32.

    `info` is put behind the samples, where no program trips over it: b"ICMT" is the comment, b"INAM" the title.
    """
    data = b"".join(pieces)
    frame = channels * bits // 8
    tag = PCM if bits == 16 else FLOAT
    facts = struct.pack("<HIIHH", channels, rate, rate * frame, frame, bits)
    if channels > 2:
        form = struct.pack("<H", EXTENSIBLE) + facts + struct.pack("<HHIH", 22, bits, 0, tag) + _GUID
    else:
        form = struct.pack("<H", tag) + facts
    texts = b"".join(_chunk(name, text.encode("utf-8") + b"\0") for name, text in info.items())
    chunks = [_chunk(b"fmt ", form), b"data" + struct.pack("<I", len(data)), data, b"\0" * (len(data) % 2)]
    chunks += [_chunk(b"LIST", b"INFO" + texts)] if texts else []
    size = 4 + sum(map(len, chunks))
    if size > _MOST:
        raise ConjureError(f"a .wav holds at most 4 GiB, got {size:,} bytes", hint="write a .flac")
    return b"".join([b"RIFF", struct.pack("<I", size), b"WAVE", *chunks])


def chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(name, place, size as it is promised) of each box of a WAV file; the file is left anywhere."""
    place = 12
    for _ in range(_BOXES):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], "little")
        yield head[:4], place + 8, size
        place += 8 + size + size % 2


def promised_seconds(file: IO[bytes], length: int) -> float:
    """How long the header says the sound is; 0 where it does not say, or says no more than what is there."""
    rate_of_bytes = 0
    for name, place, size in chunks(file):
        if name == b"fmt " and size >= 16:
            file.seek(place + 8)
            rate_of_bytes = int.from_bytes(file.read(4), "little")
        if name == b"data":
            known = 0 < size < _STREAM and place + size > length
            return size / rate_of_bytes if known and rate_of_bytes else 0.0
    return 0.0


def info(file: IO[bytes], wanted: bytes, most: int) -> str:
    """The text of that name among the notes, "" where there is none; `most` bounds its bytes."""
    for name, place, size in chunks(file):
        file.seek(place)
        if name != b"LIST" or file.read(4) != b"INFO":
            continue
        at = place + 4
        for _ in range(_BOXES):
            file.seek(at)
            head = file.read(8)
            length = int.from_bytes(head[4:], "little")
            if len(head) < 8 or at >= place + size:
                break
            if head[:4] == wanted:
                return file.read(min(length, most)).split(b"\0")[0].decode("utf-8", "replace")
            at += 8 + length + length % 2
    return ""


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
