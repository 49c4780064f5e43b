"""Sound that does not fit into memory: it stays in its file, or comes as it is heard.

Both are of the kind "audio" and are read in blocks; what needs all samples at once takes an `Audio`.

Legend: t samples of a block.
"""

from __future__ import annotations

import hashlib
import queue
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record
from conjure.media import audio
from conjure.media.bounds import SECONDS, bound
from conjure.media.sound_source import RATES

LIVE = 0.25
"""Seconds of a block of sound that comes as it is heard."""
_READ = 1 << 20
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class Blocks(Protocol):
    """Sound in blocks."""

    kind: str
    seconds: float | None
    """None: nobody knows yet."""

    def blocks(self, rate: int, seconds: float) -> Iterator[np.ndarray]:
        """float32 `[t]`, mono, at `rate`, each `seconds` long but the last."""
        ...


@dataclass(frozen=True, eq=False)
class Recording:
    """Sound in a file that is longer than `CONJURE_MAX_SECONDS`. Nothing of it is held."""

    path: Path
    length: float
    """Seconds, as the file says."""
    record: Record | None = None
    kind: str = field(default="audio", init=False)

    @property
    def seconds(self) -> float:
        return self.length

    def blocks(self, rate: int, seconds: float) -> Iterator[np.ndarray]:
        """float32 `[t]`, mono, at `rate`, each `seconds` long but the last."""
        return audio.blocks(self.path, rate, seconds)

    def digest(self) -> str:
        """`sha256:<hex>` of the file's bytes."""
        total = hashlib.sha256()
        with self.path.open("rb") as file:
            while data := file.read(_READ):
                total.update(data)
        return f"sha256:{total.hexdigest()}"

    def save(self, path: str | Path) -> Path:
        raise ConjureError(f"{self.path}: {self.length:,.0f} seconds of sound are not written again",
                           hint="copy the file")  # fmt: skip


def recording(path: Path) -> Recording | None:
    """The file as a recording, where it is too long for an `Audio`."""
    seconds = audio.seconds_in(path)
    return Recording(path, seconds) if seconds > bound(SECONDS) else None


class Live:
    """Sound that comes as it is heard: `pieces` are float32 `[t]`, mono, at `rate`. It can be read once.

    `stop` ends it, from another thread or a signal; what was heard until then is heard to its end.
    """

    kind, seconds, record = "audio", None, None

    def __init__(self, pieces: Iterator[np.ndarray], rate: int) -> None:
        if rate not in RATES:
            raise ConjureError(f"expected {RATES[0]:,} to {RATES[-1]:,} samples a second, got {rate:,}")
        self._pieces, self.rate, self._stopped = pieces, rate, False
        self._digest = hashlib.sha256()

    def stop(self) -> None:
        self._stopped = True

    def blocks(self, rate: int, seconds: float) -> Iterator[np.ndarray]:
        """float32 `[t]`, mono, at `rate`, each `seconds` long but the last."""
        import soxr

        resampler = soxr.ResampleStream(self.rate, rate, 1, dtype="float32", quality="HQ")
        size, kept = round(seconds * rate), np.zeros(0, np.float32)
        for piece in self._pieces:
            if not np.isfinite(piece).all():
                raise ConjureError("the sound has samples that are no numbers")
            piece = np.clip(piece, -1, 1).astype(np.float32)
            self._digest.update(piece.tobytes())
            kept = np.concatenate([kept, piece if rate == self.rate else resampler.resample_chunk(piece)])
            while len(kept) >= size:
                yield kept[:size]
                kept = kept[size:]
            if self._stopped:
                break
        if rate != self.rate:
            kept = np.concatenate([kept, resampler.resample_chunk(np.zeros(0, np.float32), last=True)])
        yield from (kept[start : start + size] for start in range(0, len(kept), size))

    def digest(self) -> str:
        """`sha256:<hex>` of the samples so far."""
        return f"sha256:{self._digest.hexdigest()}"

    def save(self, path: str | Path) -> Path:
        raise ConjureError("sound that is heard live is not kept", hint="record it with another program")


def from_pipe(stream: IO[bytes]) -> Live:
    """Sound in WAV, of whatever length its header claims, as `arecord -f S16_LE -r 16000` or
    `ffmpeg -i ... -f wav -` write it."""
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise ConjureError("expected sound in WAV on stdin", hint="arecord -f S16_LE -r 16000 | conjure make - --live")
    shape: tuple[int, int, int, int] | None = None
    while True:
        name, size = struct.unpack("<4sI", _exactly(stream, 8))
        if name == b"data":
            break
        body = _exactly(stream, size + size % 2)
        if name == b"fmt ":
            shape = _shape(body)
    if shape is None:
        raise ConjureError("stdin: a WAV without a format before its samples")
    coding, channels, rate, bits = shape
    return Live(_samples(stream, coding, channels, rate, bits), rate)


def from_microphone(rate: int = 16_000) -> Live:
    """What the default microphone hears, through the package `sounddevice`."""
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # OSError: PortAudio itself is missing
        raise ConjureError(
            f"the microphone needs the package sounddevice: {error}",
            hint="pip install sounddevice (and on Debian: apt install libportaudio2); "
            "or: arecord -f S16_LE -r 16000 | conjure make - --live",
        ) from None
    heard: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def take(block: np.ndarray, *_: Any) -> None:
        heard.put(block[:, 0].copy())

    def pieces() -> Iterator[np.ndarray]:
        size = round(LIVE * rate)
        try:
            with sounddevice.InputStream(rate, size, channels=1, dtype="float32", callback=take):
                while True:
                    yield heard.get()
        except sounddevice.PortAudioError as error:
            raise ConjureError(f"the microphone cannot be used: {error}") from None

    return Live(pieces(), rate)


def _shape(body: bytes) -> tuple[int, int, int, int]:
    """(coding, channels, rate, bits) of a WAV's format."""
    if len(body) < 16:
        raise ConjureError("stdin: a WAV with a damaged format")
    coding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if coding == _EXTENSIBLE and len(body) >= 26:
        coding = struct.unpack("<H", body[24:26])[0]
    if (coding, bits) not in {(_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)} or not 1 <= channels <= 32:
        raise ConjureError(f"stdin: expected WAV of 16, 24 or 32 bits, got coding {coding} with {bits} bits and "
                           f"{channels} channels", hint="arecord -f S16_LE")  # fmt: skip
    return coding, channels, rate, bits


def _samples(stream: IO[bytes], coding: int, channels: int, rate: int, bits: int) -> Iterator[np.ndarray]:
    """Blocks as they come; a last frame that was cut off is left out."""
    frame = channels * bits // 8
    size = max(1, round(LIVE * rate)) * frame
    while data := stream.read(size):
        data = data[: len(data) // frame * frame]
        if bits == 24:  # three bytes as the upper ones of four
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            samples = wide.view("<i4")[:, 0] / 2**31
        elif coding == _FLOAT:
            samples = np.frombuffer(data, "<f4")
        else:
            samples = np.frombuffer(data, f"<i{bits // 8}") / 2 ** (bits - 1)
        yield samples.reshape(-1, channels).mean(1).astype(np.float32)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size) if size <= _READ else b""
    if len(data) < size:
        raise ConjureError("stdin: a WAV that ends in its header")
    return data
