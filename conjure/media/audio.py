"""Sound as a medium: float32 samples in memory; WAV, FLAC, MP3, Ogg Vorbis or Opus on disk.

Legend: C channels, T samples in time, t samples of a piece.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.provenance import Record
from conjure.media import ogg, riff, stamp
from conjure.media.sound_source import MAX_CHANNELS, PIECE, RATES, check_length, comment_in, opened
from conjure.media.text import read_record as read_beside

LONGEST_TITLE = 100
_OPEN, _CLOSE = '{"conjure": ', "}"
_ALIVE = 1e-6
"""A channel with less than this share of the loudest one's power (60 dB below) is dead."""
_CANCELLED = 0.01
"""Where a mix keeps less than this share of its channels' power, they are each other's opposite."""


class Format(NamedTuple):
    """How libsndfile writes a suffix: its names for it, the rates it takes (none: all), channels, how hard it packs."""

    container: str
    coding: str
    rates: tuple[int, ...] = ()
    channels: int = MAX_CHANNELS
    packing: float | None = None


_MP3 = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_ABOVE_65535 = (88_200, 96_000, 176_400, 192_000, 352_800, 384_000)
WRITE_FORMATS: dict[str, Format] = {
    ".wav": Format("WAV", "PCM_16"),
    ".flac": Format("FLAC", "PCM_16", channels=8),
    ".mp3": Format("MP3", "MPEG_LAYER_III", _MP3, 2, 0.2),
    ".ogg": Format("OGG", "VORBIS", packing=0.4),
    ".opus": Format("OGG", "OPUS", (8_000, 12_000, 16_000, 24_000, 48_000), 8, 0.8),
}
_OPUS_ROOM = 48_000
"""Characters of a comment in an .opus; with 60,000 libsndfile cannot read its own file."""


@dataclass(frozen=True, eq=False)
class Audio:
    """`samples` is float32 `[C, T]`, finite, with C and T at least 1; `rate` is samples per second.

    Full scale is -1 to 1, and files hold no more: what passes it is cut when it is written, and was when it is read.
    """

    samples: np.ndarray
    rate: int
    record: Record | None = None
    """How the sound was made, where `make` made it; `save` puts it into the file."""

    def __post_init__(self) -> None:
        shape, dtype = self.samples.shape, self.samples.dtype
        if dtype != np.float32 or len(shape) != 2 or 0 in shape or shape[0] > MAX_CHANNELS:
            raise ConjureError(f"expected samples float32 [1 to {MAX_CHANNELS}, T], got {dtype} {list(shape)}")
        _check_rate(self.rate)
        if not np.isfinite([self.samples.min(), self.samples.max()]).all():
            raise ConjureError("expected samples that are numbers, got infinite ones or none")

    @property
    def kind(self) -> str:
        return "audio"

    @property
    def channels(self) -> int:
        return self.samples.shape[0]

    @property
    def seconds(self) -> float:
        return self.samples.shape[1] / self.rate

    def mono(self) -> np.ndarray:
        """float32 `[T]`: the mean of the channels.

        A dead channel (60 dB below the loudest) does not take part, so that the level is not halved. Where the channels
        are each other's opposite and would cancel, the loudest stands for all.
        """
        if self.channels == 1:
            return self.samples[0]
        return _mix(self.samples @ self.samples.T) @ self.samples

    def at(self, rate: int) -> Audio:
        """The sound at another rate (soxr, high quality), without its record; at least one sample, none beyond 1."""
        if rate == self.rate:
            return self
        import soxr

        _check_rate(rate)
        samples = soxr.resample(self.samples.T, self.rate, rate, quality="HQ").T
        if not samples.shape[1]:  # soxr rounds: less than half a sample is none
            samples = self.samples[:, :1]
        return Audio(np.clip(np.ascontiguousarray(samples), -1, 1), rate)

    def digest(self) -> str:
        """`sha256:<hex>` of the rate, the shape and the samples."""
        total = hashlib.sha256(repr((self.rate, self.samples.shape)).encode("ascii"))
        total.update(np.ascontiguousarray(self.samples).data)
        return f"sha256:{total.hexdigest()}"

    def save(self, path: str | Path) -> Path:
        """Writes the sound, with its record if it has one."""
        from conjure import media

        return media.write(self, path, self.record)


# -- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> Audio:
    """The sound in a file; see `decode`."""
    return _whole(path, str(path))


def decode(data: bytes, where: str) -> Audio:
    """The sound in some bytes, at its own rate and with all its channels; what passes full scale is cut.

    Its length is checked against `CONJURE_MAX_SECONDS` before it is decoded and while it is. What is damaged, cut off,
    no sound, or holds samples that are no numbers: `ConjureError`.
    """
    return _whole(data, where)


def blocks(path: Path, rate: int, seconds: float = 30.0) -> Iterator[np.ndarray]:
    """The sound of a file of any length as float32 `[t]`, mono, at `rate`; each block is `seconds` long but the last.

    Memory is bounded by a block, and nothing else is. The channels are mixed as `Audio.mono` does, by what was heard
    so far: where one begins to sound late, it joins then. An error comes where the damage is, behind what was whole.
    """
    import soxr

    _check_rate(rate)
    size = round(seconds * rate)
    if size < 1:
        raise ConjureError(f"expected blocks of at least one sample, got {seconds} s at {rate} Hz")
    with opened(Path(path), str(path)) as source:
        resampler = soxr.ResampleStream(source.rate, rate, 1, dtype="float32", quality="HQ")
        kept, have = [np.zeros(0, np.float32)], 0
        for mono in _mixed(source.pieces, source.channels):
            new = np.clip(mono if source.rate == rate else resampler.resample_chunk(mono), -1, 1)
            kept, have = [*kept, new], have + len(new)
            while have >= size:
                whole = np.concatenate(kept)
                yield whole[:size]
                kept, have = [whole[size:]], have - size
        if source.rate != rate:
            kept.append(np.clip(resampler.resample_chunk(np.zeros(0, np.float32), last=True), -1, 1))
        rest = np.concatenate(kept)
        yield from (rest[start : start + size] for start in range(0, len(rest), size))


def seconds_in(path: Path) -> float:
    """How long a file says it is, nothing decoded; 0 where it does not say."""
    with opened(Path(path), str(path)) as source:
        return source.frames / source.rate


def read_record(path: Path) -> Record | None:
    """The provenance in a sound file, else beside it, else None; `ConjureError` where it is damaged."""
    comment = comment_in(path)
    if comment.startswith(_OPEN):
        return Record.from_json(comment[len(_OPEN) :].removesuffix(_CLOSE))
    return read_beside(path)


def _check_rate(rate: int) -> None:
    if rate not in RATES:
        raise ConjureError(f"expected {RATES[0]:,} to {RATES[-1]:,} samples a second, got {rate:,}")


def _whole(source: Path | bytes, where: str) -> Audio:
    with opened(source, where) as found:
        check_length(where, found.rate, found.channels, found.frames)
        pieces, frames = [], 0
        try:
            for piece in found.pieces:
                frames += len(piece)
                check_length(where, found.rate, found.channels, frames)
                pieces.append(piece)
            if not frames:
                raise ConjureError(f"{where}: holds no sound", hint="was it recorded with the microphone off?")
            samples = _joined(pieces, found.channels, frames)
        except MemoryError:
            raise ConjureError(f"{where}: {frames / found.rate:,.0f} seconds do not fit into memory") from None
        return Audio(samples, found.rate)


def _joined(pieces: list[np.ndarray], channels: int, frames: int) -> np.ndarray:
    """float32 `[C, T]` within full scale, of pieces `[t, C]` that are let go one by one."""
    samples, end = np.empty((channels, frames), np.float32), frames
    while pieces:
        piece = pieces.pop()
        np.clip(piece.T, -1, 1, out=samples[:, end - len(piece) : end])
        end -= len(piece)
    return samples


def _mixed(pieces: Iterator[np.ndarray], channels: int) -> Iterator[np.ndarray]:
    """float32 `[t]` of pieces `[t, C]`."""
    gram_CC = np.zeros((channels, channels))
    for piece in pieces:
        piece = np.clip(piece, -1, 1)
        gram_CC += piece.T @ piece
        yield np.ascontiguousarray(piece @ _mix(gram_CC))


def _mix(gram_CC: np.ndarray) -> np.ndarray:
    """float32 `[C]`: how much of each channel goes into one, by the products of the channels with each other."""
    power_C = np.diag(gram_CC)
    alive_C = power_C >= _ALIVE * power_C.max()
    share_C = alive_C / alive_C.sum()
    if share_C @ gram_CC @ share_C < _CANCELLED * power_C[alive_C].mean():
        share_C = np.arange(len(power_C)) == power_C.argmax()
    return share_C.astype(np.float32)


# -- writing ---------------------------------------------------------------------------------------------------------


def encode(audio: Audio, suffix: str, record: Record | None = None) -> bytes:
    """The bytes of a WAV or FLAC (16 bits, rounded to the nearest, no dither), MP3, Ogg Vorbis or Opus file, the same
    for the same input.

    At a rate that the format does not know, the next higher one is taken, or the highest. The record is the file's
    comment; where it `has_no_room`, the file is without.
    """
    form = WRITE_FORMATS[suffix]
    if audio.channels > form.channels:
        most = f"{form.channels} channel{'s' * (form.channels > 1)}"
        raise ConjureError(f"{suffix} holds at most {most}, got {audio.channels}", hint="write a .wav")
    if suffix == ".wav":
        info = {} if record is None else {b"INAM": _title(record), b"ICMT": _comment(record)}
        return riff.written((each.tobytes() for each in _steps(audio)), audio.rate, audio.channels, 16, info)
    audio = audio.at(_rate(form, audio.rate))
    data = _by_libsndfile(audio, form, None if has_no_room(suffix, record) else record)
    return ogg.steady(data) if form.container == "OGG" else data


def lossless(audio: Audio) -> tuple[bytes, str]:
    """The bytes of a file, and its suffix, from which the very same samples are read: 16 bits where these hold them,
    else floats. `ConjureError` for sound that does not lie in memory."""
    if not isinstance(audio, Audio):
        raise ConjureError("sound this long, or live, is not copied")
    if all(np.array_equal(each.T / np.float32(32768), part) for each, part in zip(_steps(audio), _parts(audio))):
        flac = WRITE_FORMATS[".flac"]
        suffix = ".flac" if _rate(flac, audio.rate) == audio.rate and audio.channels <= flac.channels else ".wav"
        return encode(audio, suffix), suffix
    pieces = (np.ascontiguousarray(part.T).astype("<f4").tobytes() for part in _parts(audio))
    return riff.written(pieces, audio.rate, audio.channels, 32, {}), ".wav"


def has_no_room(suffix: str, record: Record | None) -> bool:
    """Whether a record is too long for a file of that suffix, so that it goes beside it."""
    return record is not None and suffix == ".opus" and len(_comment(record)) > _OPUS_ROOM


def _by_libsndfile(audio: Audio, form: Format, record: Record | None) -> bytes:
    import soundfile

    out = io.BytesIO()
    try:
        with soundfile.SoundFile(out, "w", audio.rate, audio.channels, form.coding, format=form.container,
                                 compression_level=form.packing) as to:  # fmt: skip
            if record is not None:
                to.comment = _comment(record)
                to.title = _title(record, form.container == "MP3")
            # In small pieces: Vorbis puts what it is given at once on the stack; where that is full, the process ends.
            for piece in _steps(audio) if form.coding == "PCM_16" else _floats(audio):
                to.write(piece)
    except soundfile.LibsndfileError as error:
        asked = f"{audio.channels} channels at {audio.rate:,} Hz"
        raise ConjureError(f"{form.coding} does not take {asked}: {error.error_string}", hint="write a .wav") from None
    return out.getvalue()


def _rate(form: Format, rate: int) -> int:
    rates = form.rates
    if form.container == "FLAC" and rate > 65_535 and rate % 10:
        rates = _ABOVE_65535
    if form.coding == "VORBIS":
        return min(rate, 192_000)  # above 200,000 libvorbis ends the process
    return next((each for each in rates if each >= rate), rates[-1]) if rates else rate


def _parts(audio: Audio) -> Iterator[np.ndarray]:
    return (audio.samples[:, start : start + PIECE] for start in range(0, audio.samples.shape[1], PIECE))


def _steps(audio: Audio) -> Iterator[np.ndarray]:
    """int16 `[t, C]`, piece by piece; the inverse of how 16 bits are read."""
    for part in _parts(audio):
        yield np.ascontiguousarray(np.clip(np.rint(part.T * 32768.0), -32768, 32767).astype("<i2"))


def _floats(audio: Audio) -> Iterator[np.ndarray]:
    for part in _parts(audio):
        piece = np.ascontiguousarray(np.clip(part.T, -1, 1))
        yield from (piece[start : start + 4096] for start in range(0, len(piece), 4096))


def _comment(record: Record) -> str:
    return f"{_OPEN}{record.to_json()}{_CLOSE}"


def _title(record: Record, plain: bool = False) -> str:
    """One line for players; `plain` for tags into which libsndfile puts UTF-8 and calls it Latin-1."""
    words = " ".join(stamp.description(record).replace("\0", " ").split())
    words = words.encode("ascii", "replace").decode("ascii") if plain else words
    return words if len(words) <= LONGEST_TITLE else f"{words[: LONGEST_TITLE - 3]}..."
