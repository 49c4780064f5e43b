"""The teacher of speech: flite's voices, which say any English text at 16 kHz and tell when each phone ends.

flite (Black and Lenzo, https://github.com/festvox/flite, a BSD-style licence) is a program of its own: Debian's package
`flite`. Its voices `awb`, `rms` and `slt` are parametric ones of CMU ARCTIC speakers, `kal16` is made of diphones. What
it renders for training lies below the cache in blocks of texts, memory-mapped, and is made once.

Legend: T samples, N texts, P phones.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from conjure.codecs.pronunciation import PHONES
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Progress
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir
from conjure.data.archives import file
from conjure.data.fetch import get

VOICES = ("awb", "kal16", "rms", "slt")
RATE = 16_000
SET = "ljspeech_text"
PAUSE = PHONES[0]
BLOCK = 64
"""Texts that lie in one file of renderings."""
LONGEST = 10_000
"""Bytes of a text that is handed to the program."""
_SECONDS = 120.0


@dataclass(frozen=True, eq=False)
class Spoken:
    """A text as the teacher says it: int16 `[T]`, and each phone with its end in seconds."""

    samples: np.ndarray
    phones: tuple[tuple[str, float], ...]
    rate: int = RATE


def spoken(text: str, voice: str) -> Spoken:
    """`text` by `voice`, by one call of the program. The same text gives the same samples.

    Raises `ConjureError` for an unknown voice, a text without words, one of more than `LONGEST` bytes, and where flite
    is not installed or fails.
    """
    if voice not in VOICES:
        raise ConjureError(f"the teacher has no voice '{voice}'", hint=suggest(voice, VOICES))
    with tempfile.TemporaryDirectory(prefix="conjure-flite-") as folder:
        path = Path(folder) / "said.wav"
        said = _flite("-voice", voice, "-psdur", "-t", _checked(text), "-o", str(path))
        with wave.open(str(path)) as sound:
            if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (RATE, 1, 2):
                raise ConjureError(f"flite: expected 16-bit mono at {RATE} Hz, got {sound.getparams()}")
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.int16)
    pairs = [part.rpartition(":") for part in said.split()]
    seconds = len(samples) / RATE  # of kal16 the last pause is said longer than it is
    phones = tuple((name, min(float(end), seconds)) for name, _, end in pairs)
    if not phones or not len(samples):
        raise ConjureError(f"flite said nothing of {text[:60]!r}", hint="does it hold a word?")
    return Spoken(samples, phones)


def phones_of(text: str) -> tuple[str, ...]:
    """The phones of a text, pauses too, without sound."""
    return tuple(_flite("-voice", "kal16", "-ps", "-t", _checked(text), "none").split())


def sentences(split: str) -> tuple[str, ...]:
    """The sentences of `ljspeech_text`, in the order of the file: 12,478 of "train", 100 of "val"."""
    data = file(get(SET), f"ljs_audio_text_{split}_filelist.txt").decode("utf-8")
    return tuple(line.partition("|")[2].strip() for line in data.splitlines() if "|" in line)


@dataclass(frozen=True, eq=False)
class Rendered:
    """One text of a block of renderings: int16 `[T]`, phones as indices into `PHONES` `[P]`, their ends in samples."""

    text: str
    samples: np.ndarray
    phones: np.ndarray
    ends: np.ndarray


class Renderings:
    """Texts said by one voice, `[N]` of `Rendered`, memory-mapped from a folder below the cache.

    What is missing is rendered first, block by block, so that work that was stopped goes on where it was. A block has
    two files: `NAME.samples.npy` int16, and `NAME.table.npz` with `offsets` `[n + 1]` of the samples, `counts`
    `[n + 1]` of the phones, `phones` and `ends`.
    """

    def __init__(self, texts: Sequence[str], voice: str, *, folder: Path | None = None,
                 tell: Callable[[Progress], None] | None = None) -> None:  # fmt: skip
        self.texts, self.voice = tuple(texts), voice
        folder = (folder or cache_dir() / "teacher") / voice
        starts = range(0, len(self.texts), BLOCK)
        self._blocks = []
        for start in starts:
            self._blocks.append(_block(self.texts[start : start + BLOCK], voice, folder))
            if tell:
                tell(Progress(min(start + BLOCK, len(self.texts)), len(self.texts), "text", f"rendering {voice}"))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Rendered:
        samples_T, table = self._blocks[index // BLOCK]
        at = index % BLOCK
        first, last = table["offsets"][at : at + 2]
        begin, end = table["counts"][at : at + 2]
        return Rendered(self.texts[index], samples_T[first:last], table["phones"][begin:end], table["ends"][begin:end])

    @property
    def seconds(self) -> float:
        """Of all texts together."""
        return sum(len(samples_T) for samples_T, _ in self._blocks) / RATE


def _block(texts: Sequence[str], voice: str, folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    name = hashlib.sha256("\0".join((voice, *texts)).encode()).hexdigest()[:16]
    samples_path, table_path = folder / f"{name}.samples.npy", folder / f"{name}.table.npz"
    if not table_path.exists():  # it is written last
        said = [spoken(text, voice) for text in texts]
        folder.mkdir(parents=True, exist_ok=True)
        _write(samples_path, lambda to: np.save(to, np.concatenate([each.samples for each in said])))
        known = {phone: index for index, phone in enumerate(PHONES)}
        table = {
            "offsets": np.cumsum([0, *(len(each.samples) for each in said)]),
            "counts": np.cumsum([0, *(len(each.phones) for each in said)]),
            "phones": np.array([known[phone] for each in said for phone, _ in each.phones], np.uint8),
            "ends": np.array([round(end * RATE) for each in said for _, end in each.phones], np.int64),
        }
        _write(table_path, lambda to: np.savez(to, **table))
    with np.load(table_path, allow_pickle=False) as read:
        table = {key: read[key] for key in read.files}
    return np.load(samples_path, mmap_mode="r", allow_pickle=False), table


def _write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    buffer = io.BytesIO()
    save(buffer)
    write_atomic(path, buffer.getvalue())


def _checked(text: str) -> str:
    """The text in one line, as the program takes it."""
    line = " ".join(text.replace("\0", " ").split())
    if not any(c.isalnum() for c in line):
        raise ConjureError(f"expected a text with a word in it, got {text[:60]!r}")
    if len(line.encode()) > LONGEST:
        raise ConjureError(f"the teacher takes at most {LONGEST:,} bytes of text, got {len(line.encode()):,}",
                           hint="give it sentence by sentence")  # fmt: skip
    return line


def _flite(*arguments: str) -> str:
    program = shutil.which("flite")
    if program is None:
        raise ConjureError("the program flite is not installed", hint="on Debian: apt install flite")
    try:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=_SECONDS, check=False,
                              env={**os.environ, "LC_ALL": "C"})  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConjureError(f"flite did not end within {_SECONDS:.0f} s", hint="give it less text") from None
    if done.returncode:
        raise ConjureError(f"flite failed ({done.returncode}): {done.stderr.decode(errors='replace').strip()[:200]}")
    return done.stdout.decode("ascii", errors="replace")
