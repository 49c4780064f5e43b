"""SoundFonts: which notes are played when, and clear words where something is missing. The library is a stand-in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.media.music import Music, Note
from conjure.media.soundfont import TAIL, SoundFont
from conjure.media.synthesiser import PEAK

RATE = 1000
FONT = b"RIFF\x10\0\0\0sfbk" + bytes(16)


class Synth:
    """Sounds 0.01 for every key that is down, to the left alone; knows the presets 3 and 19."""

    last: Synth

    def __init__(self, samplerate: int) -> None:
        self.rate, self.down, self.presets = samplerate, set[tuple[int, int]](), dict[int, int]()
        Synth.last = self

    def sfload(self, data: bytes) -> int:
        if len(data) < len(FONT):
            raise RuntimeError("too short")
        return 7

    def sfpreset_name(self, number: int, bank: int, preset: int) -> str | None:
        return "known" if number == 7 and bank == 0 and preset in (3, 19) else None

    def program_select(self, channel: int, number: int, bank: int, preset: int) -> None:
        self.presets[channel] = preset

    def noteon(self, channel: int, pitch: int, velocity: int) -> None:
        self.down.add((channel, pitch))

    def noteoff(self, channel: int, pitch: int) -> None:
        self.down.remove((channel, pitch))

    def generate(self, samples: int) -> memoryview:
        block = np.zeros((samples, 2), np.float32)
        block[:, 0] = 0.01 * len(self.down)
        return memoryview(block.tobytes())


@pytest.fixture
def font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in = SimpleNamespace(Synth=Synth, SoundFontException=KeyError)
    monkeypatch.setitem(sys.modules, "tinysoundfont", stand_in)  # type: ignore[arg-type]
    (tmp_path / "font.sf2").write_bytes(FONT)
    return tmp_path / "font.sf2"


def test_notes_sound_from_their_beginning_to_their_end(font: Path) -> None:
    notes = (Note(0, 480, 60), Note(480, 480, 60), Note(240, 240, 64, 80, 1), Note(0, 960, 30, 80, 9))
    music = Music(notes=notes, tempo=60.0, programs=(19, 55))
    sound_CT = SoundFont(font).rendered(music, RATE)
    assert sound_CT.shape == (2, 2 * RATE + int(TAIL * RATE)) and sound_CT.dtype == np.float32
    keys_T = np.concatenate([np.full(500, 2), np.full(500, 3), np.full(1000, 2), np.zeros(2000)])
    assert np.allclose(sound_CT[0], PEAK * keys_T / 3) and not sound_CT[1].any()
    presets = Synth.last.presets  # the ninth voice goes round the channel of drums; what is not there is the first
    assert presets[0] == 19 and presets[1] == 3 and 9 not in presets and presets[10] == 3
    assert not SoundFont(font).rendered(Music(notes=()), RATE).any()


def test_what_cannot_be(font: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SoundFont(font).digest.startswith("sha256:")
    with pytest.raises(ConjureError, match="at most an hour"):
        SoundFont(font).rendered(Music(notes=(Note(0, 480 * 6000, 60),), tempo=60.0))
    font.write_bytes(FONT[:-2])
    with pytest.raises(ConjureError, match="damaged: too short"):
        SoundFont(font).rendered(Music(notes=(Note(0, 1, 60),)))
    font.write_bytes(b"MThd, but no font")
    with pytest.raises(ConjureError, match="expected a SoundFont"):
        SoundFont(font)
    with pytest.raises(ConjureError, match="no such file"):
        SoundFont(font.with_name("none.sf2"))
    font.write_bytes(FONT)
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)  # type: ignore[arg-type]
    with pytest.raises(ConjureError, match="tinysoundfont") as caught:
        SoundFont(font)
    assert "pip install" in str(caught.value.hint)
