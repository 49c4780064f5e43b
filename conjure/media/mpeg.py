"""What the first frame of an MP3 file says about the rest of it.

libsndfile takes the length from there, or guesses it from the first frame's bit rate, and reads no further. Files with
a varying bit rate and without that note (radio that was recorded), and files that were appended to each other, would
lose their end, so they are read through `Endless`.
"""

from __future__ import annotations

import io
from typing import IO

_NOTES = (b"Xing", b"Info", b"VBRI")
_FIRST = 256
"""Bytes of the first frame among which the note stands."""
_TAGS = 8
"""How many tags in front of the sound are skipped."""
_SLOWEST = 64
"""No file holds more seconds than its size, at the bit rate of its first frame, times this."""
_OLD_TAG = 128
"""Bytes at the end of a file where libsndfile looks for a tag of the first kind."""


class Endless(io.RawIOBase):
    """A file that seems to be far longer than it is, with some bytes blanked; what is read in order ends where the file
    does. At its seeming end there is no tag."""

    def __init__(self, file: IO[bytes], length: int, blank: range) -> None:
        self._file, self._length, self._blank, self._place = file, length, blank, 0
        self._end = length * _SLOWEST

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._end - _OLD_TAG <= self._place:
            data = bytearray(max(0, min(len(view), self._end - self._place)))
        else:
            self._file.seek(min(self._place, self._length))
            data = bytearray(self._file.read(len(view)))
        for at in self._blank:
            if self._place <= at < self._place + len(data):
                data[at - self._place] = 0
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._end}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def trusted(file: IO[bytes], length: int) -> tuple[bool, range]:
    """Whether the note of the first frame is there and counts all bytes of the file, and where the note stands (an
    empty range where there is none)."""
    start = _sound(file)
    file.seek(start)
    frame = file.read(_FIRST)
    found = min((at for name in _NOTES if (at := frame.find(name)) > 0), default=-1)
    if found < 0:
        return False, range(0)
    note = range(start + found, start + found + 4)
    if frame[found : found + 4] == b"VBRI":
        counted = int.from_bytes(frame[found + 10 : found + 14], "big")
    else:
        flags = frame[found + 7]
        at = found + 8 + 4 * (flags & 1)
        counted = int.from_bytes(frame[at : at + 4], "big") if flags & 2 else length
    return length - start - counted < max(16_384, counted // 20), note


def _sound(file: IO[bytes]) -> int:
    """Where the first frame is, behind tags."""
    place = 0
    for _ in range(_TAGS):
        file.seek(place)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        place += 10 + size + 10 * bool(head[5] & 0x10)
    return place
