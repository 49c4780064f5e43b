"""Notes to sound with somebody's instruments: a SoundFont file (.sf2, .sf3), played by TinySoundFont.

Legend: C channels, T samples of the piece.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.provenance import digest
from conjure.media.bounds import read_bytes
from conjure.media.music import Music
from conjure.media.synthesiser import MAX_SECONDS, PEAK

MAX_BYTES = 1 << 30
TAIL = 2.0
"""Seconds in which the last notes die away."""
_DRUMS = 9


class SoundFont:
    """The instruments in a file. `digest` says which file it is.

    `ConjureError` where there is none, where it is something else, or where the package tinysoundfont is missing.
    """

    def __init__(self, path: Path) -> None:
        too_much = ConjureError(f"{path}: expected a SoundFont of at most {MAX_BYTES >> 30} GiB, got more")
        self._data, self._name = read_bytes(path, MAX_BYTES, too_much), path
        if self._data[:4] != b"RIFF" or self._data[8:12] != b"sfbk":
            raise ConjureError(f"{path}: expected a SoundFont, the content is something else",
                               hint="on Debian: apt install timgm6mb-soundfont, then "
                                    "--soundfont /usr/share/sounds/sf2/TimGM6mb.sf2")  # fmt: skip
        self.digest = digest(self._data)
        self._package = _tinysoundfont()

    def rendered(self, music: Music, rate: int = 44_100) -> np.ndarray:
        """The sound of a piece, float32 `[2, T]`, `TAIL` seconds longer than it, the loudest sample at
        `synthesiser.PEAK`; silence stays silence.

        Voices have a channel each, as far as there are 15. An instrument that the file lacks is its first one.
        """
        if music.seconds > MAX_SECONDS:
            raise ConjureError(f"expected a piece of at most an hour, got {music.seconds / 60:,.0f} minutes")
        synth = self._package.Synth(samplerate=rate)
        try:
            number = synth.sfload(self._data)
        except (RuntimeError, ValueError, self._package.SoundFontException) as error:
            raise ConjureError(f"{self._name}: the SoundFont is damaged: {error}", hint="fetch it again") from None
        for voice in range(max((note.voice for note in music.notes), default=0) + 1):
            program = music.programs[voice] if voice < len(music.programs) else 0
            self._choose(synth, number, _channel(voice), program)
        blocks, now = [], 0
        for at, ends, channel, pitch, velocity in _events(music, rate):
            blocks.append(_block(synth, at - now))
            now = at
            if ends:
                synth.noteoff(channel, pitch)
            else:
                synth.noteon(channel, pitch, velocity)
        blocks.append(_block(synth, int(TAIL * rate)))
        out_CT = np.concatenate(blocks, 1)
        peak = float(np.abs(out_CT).max())
        return (out_CT * (PEAK / peak)).astype(np.float32) if peak > 0 else out_CT

    def _choose(self, synth: Any, number: int, channel: int, program: int) -> None:
        there = (preset for preset in (program, *range(128)) if synth.sfpreset_name(number, 0, preset) is not None)
        first = next(there, None)
        if first is None:
            raise ConjureError(f"{self._name}: expected a SoundFont with instruments in bank 0, got none there")
        synth.program_select(channel, number, 0, first)


def _channel(voice: int) -> int:
    channel = voice % 15
    return channel + (channel >= _DRUMS)


def _events(music: Music, rate: int) -> list[tuple[int, bool, int, int, int]]:
    """(sample, whether it ends, channel, pitch, velocity) in order; at one sample ends come first."""
    starts = music.times([note.start for note in music.notes])
    ends = music.times([note.start + note.length for note in music.notes])
    found = []
    for note, start, end in zip(music.notes, starts, ends, strict=True):
        first, last = round(start * rate), max(round(start * rate) + 1, round(end * rate))
        found.append((first, False, _channel(note.voice), note.pitch, note.velocity))
        found.append((last, True, _channel(note.voice), note.pitch, 0))
    return sorted(found, key=lambda event: (event[0], not event[1]))


def _block(synth: Any, samples: int) -> np.ndarray:
    """The next samples, float32 `[2, T]`."""
    if samples == 0:
        return np.zeros((2, 0), np.float32)
    return np.frombuffer(synth.generate(samples), np.float32).reshape(-1, 2).T


def _tinysoundfont() -> Any:
    try:
        import tinysoundfont  # pyright: ignore[reportMissingImports]
    except ImportError:
        # It asks for PyAudio, which many machines cannot build and which is for loudspeakers alone.
        raise ConjureError("SoundFonts are played by the package tinysoundfont, which is not installed",
                           hint="pip install --no-deps tinysoundfont") from None
    return tinysoundfont
