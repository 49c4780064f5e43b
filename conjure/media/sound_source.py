"""Sound files as they are read: opened, measured, and decoded piece by piece in bounded memory.

libsndfile (through soundfile) reads WAV, FLAC, MP3, Ogg Vorbis, Opus and AIFF; films and AAC go through FFmpeg, where
PyAV is installed. What is damaged, cut off or not a number becomes an error that says where.

Legend: C channels, t samples of a piece.
"""

from __future__ import annotations

import io
import math
import os
import stat
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.provenance import MAX_CHARACTERS
from conjure.media import mpeg, ogg, riff
from conjure.media.bounds import SECONDS, bound, over, read_bytes
from conjure.media.kinds import in_container, sniff

MAX_CHANNELS = 32
RATES = range(1_000, 384_001)
"""Samples per second that are believed."""
STEREO = 96_000
"""Samples of a second in stereo at 48 kHz: what a second counts for where memory is bounded."""
PIECE = 65_536
_HEAD = 64
_UNKNOWN = 1 << 60  # what libsndfile says instead of a length
_SLACK = 0.1
"""Seconds that may be missing: some programs count the padding of an encoder, some do not."""


@dataclass(frozen=True)
class Source:
    """A sound file that is open. `frames` is what its header says (0 where nothing can be trusted), `pieces` are
    float32 `[t, C]`, finite, and may pass 1."""

    rate: int
    channels: int
    frames: int
    comment: str
    pieces: Iterator[np.ndarray]


@contextmanager
def opened(source: Path | bytes, where: str) -> Iterator[Source]:
    """The sound in a file or in some bytes, with its header read and nothing decoded.

    `ConjureError` where it is no sound or where it is damaged; while `pieces` are taken, too.
    """
    with _readable(source) as (file, length):
        head = file.read(_HEAD)
        file.seek(0)
        if not head:
            raise ConjureError(f"{where}: expected sound, the file is empty")
        if sniff(head) != "audio":
            raise _no_sound(head, where)
        with (_by_ffmpeg if in_container(head) else _by_libsndfile)(file, length, head, where) as found:
            if not 1 <= found.channels <= MAX_CHANNELS:
                raise ConjureError(f"{where}: expected 1 to {MAX_CHANNELS} channels, got {found.channels}")
            if found.rate not in RATES:
                known = f"{RATES[0]:,} to {RATES[-1]:,}"
                raise ConjureError(f"{where}: expected {known} samples a second, got {found.rate:,}")
            yield found


def check_length(where: str, rate: int, channels: int, frames: int) -> None:
    """`ConjureError` where so much sound passes `CONJURE_MAX_SECONDS`; more than stereo at 48 kHz counts for more."""
    limit, seconds, memory = bound(SECONDS), frames / rate, frames * channels / STEREO
    if seconds > limit:
        raise over(where, f"{seconds:,.0f}", SECONDS, "seconds of sound")
    if memory > limit:
        raise over(where, f"as much as {memory:,.0f} hold", SECONDS, "seconds of sound in stereo at 48 kHz")


def comment_in(path: Path) -> str:
    """The comment of a file, "" where there is none; that of a WAV libsndfile reads only where it is short."""
    with _readable(path) as (file, _):
        head = file.read(_HEAD)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return riff.info(file, b"ICMT", MAX_CHARACTERS + 64)
        if in_container(head):  # nothing of ours is written there
            return ""
    with opened(path, str(path)) as found:
        return found.comment


# -- opening ---------------------------------------------------------------------------------------------------------


class _Bytes(io.BytesIO):
    """What libsndfile is made to seek before the beginning, by a damaged file, is the beginning."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(max(0, offset) if whence == io.SEEK_SET else offset, whence)


@contextmanager
def _readable(source: Path | bytes) -> Iterator[tuple[IO[bytes], int]]:
    """Something to read and seek in, and its length in bytes."""
    if isinstance(source, bytes):
        yield _Bytes(source), len(source)
        return
    limit = bound(SECONDS) * STEREO * 4 + (64 << 20)
    try:
        special = not stat.S_ISREG(os.stat(source).st_mode)
    except OSError:
        special = True  # read_bytes says what is wrong
    if special:
        data = read_bytes(source, limit, over(str(source), "a larger file", SECONDS, "seconds of sound"))
        yield _Bytes(data), len(data)
        return
    try:
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConjureError(f"{source}: could not be read: {error.strerror or error}") from None
    with os.fdopen(handle, "rb", buffering=0) as file:
        yield file, os.fstat(handle).st_size  # type: ignore[misc]


@contextmanager
def _by_libsndfile(file: IO[bytes], length: int, head: bytes, where: str) -> Iterator[Source]:
    import soundfile

    promised, exact, handle = _promised(file, length, head), True, file
    if head[:3] == b"ID3" or head[0] == 0xFF:
        exact, note = mpeg.trusted(file, length)
        handle = file if exact else mpeg.Endless(file, length, note)  # type: ignore[assignment]
    handle.seek(0)
    # A file of its own is handed over as its number: libsndfile then reads without going through Python.
    plain = file.fileno() if isinstance(handle, io.FileIO) else handle
    try:
        sound = soundfile.SoundFile(plain, closefd=False)  # type: ignore[arg-type]
    except soundfile.LibsndfileError as error:
        raise _damaged(where, error.error_string) from None
    # soundfile seeks behind every piece that it read, and an MP3 that is sought in begins anew: other samples at the
    # border, and complaints on stderr. Nobody seeks here.
    sound.seekable = lambda: False  # type: ignore[method-assign]
    with sound:
        frames = sound.frames if exact and sound.frames < _UNKNOWN else 0
        promised = max(promised, frames / sound.samplerate)

        yield Source(sound.samplerate, sound.channels, frames, sound.comment or "",
                     _checked(_pieces(sound, where), where, sound.samplerate, promised))  # fmt: skip


def _pieces(sound: Any, where: str) -> Iterator[np.ndarray]:
    import soundfile

    try:
        while len(piece := sound.read(PIECE, dtype="float32", always_2d=True)):
            yield piece
    except soundfile.LibsndfileError as error:
        raise _damaged(where, error.error_string) from None


@contextmanager
def _by_ffmpeg(file: IO[bytes], length: int, head: bytes, where: str) -> Iterator[Source]:
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConjureError(f"{where}: the sound of films and of AAC files is read through PyAV, which is not installed",
                           hint="pip install av") from None  # fmt: skip
    try:
        container: Any = av.open(file)
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(where, getattr(error, "strerror", None) or str(error)) from None
    with container:
        streams = container.streams.audio
        if not streams:
            raise ConjureError(f"{where}: holds no sound")
        stream = streams[0]
        whole = (container.duration or 0) / av.time_base
        # Only MP4 says how long the sound itself is; elsewhere it is guessed, or that of the pictures.
        own = float(stream.duration * stream.time_base) if "mp4" in container.format.name and stream.duration else 0.0
        yield Source(stream.rate, stream.channels, int(whole * stream.rate), "",
                     _checked(_ffmpeg_pieces(container, stream, where), where, stream.rate, own))  # fmt: skip


def _ffmpeg_pieces(container: Any, stream: Any, where: str) -> Iterator[np.ndarray]:
    import av  # pyright: ignore[reportMissingImports]

    floats = av.AudioResampler(format="fltp", layout=stream.layout.name, rate=stream.rate)
    try:
        for frame in container.decode(stream):
            yield from (np.ascontiguousarray(each.to_ndarray().T) for each in floats.resample(frame))
        yield from (np.ascontiguousarray(each.to_ndarray().T) for each in floats.resample(None))
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(where, getattr(error, "strerror", None) or str(error)) from None


# -- checking --------------------------------------------------------------------------------------------------------


def _promised(file: IO[bytes], length: int, head: bytes) -> float:
    """Seconds of which libsndfile says nothing: in a WAV those that are not there, in an Ogg without end all."""
    if head[:4] == b"RIFF":
        return riff.promised_seconds(file, length)
    if head[:4] == b"OggS":
        return 0.0 if ogg.ended(file, length) else math.inf
    return 0.0


def _checked(pieces: Iterator[np.ndarray], where: str, rate: int, promised: float) -> Iterator[np.ndarray]:
    """The same pieces; `ConjureError` at the first sample that is no number, and at an end too early."""
    got = 0
    for piece in pieces:
        fine = np.isfinite(piece).all(1)
        if not fine.all():
            second = (got + int(fine.argmin())) / rate
            raise ConjureError(f"{where}: expected numbers, the sample at {second:,.3f} s is infinite or not a number",
                               hint="write the file again: the program that made it divided by zero")  # fmt: skip
        got += len(piece)
        yield piece
    if promised - got / rate > _SLACK:
        whole = "" if math.isinf(promised) else f" of {promised:,.1f}"
        raise ConjureError(
            f"{where}: the sound is cut off after {got / rate:,.1f}{whole} seconds",
            hint=f"fetch or copy it again, or keep what is there: ffmpeg -i {Path(where).name} rest.wav",
        )


def _no_sound(head: bytes, where: str) -> ConjureError:
    kind, content = sniff(head), "something else"
    if kind != "text":
        content = {"image": "a picture"}.get(kind, kind)
    else:
        try:
            getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
            content = "something else" if b"\0" in head else "text"
        except UnicodeDecodeError:
            pass
    return ConjureError(f"{where}: expected sound (WAV, FLAC, MP3, Ogg, Opus or AIFF), the content is {content}",
                        hint="does the suffix fit the file?")  # fmt: skip


def _damaged(where: str, said: str) -> ConjureError:
    reason = said.strip().rstrip(".") or "it cannot be decoded"
    return ConjureError(f"{where}: the sound is cut off or damaged: {reason}", hint="fetch or copy it again")


