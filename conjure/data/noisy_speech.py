"""Clean speech and the same in noise and in rooms, for networks that take both away again.

Noise is made here: coloured noise, gusts, hum, clicks, music by the small synthesiser, babble of other speakers, and
the sounds of buttons and switches of `kenney_interface_sounds`, half of which are held out for measuring.

Legend: N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.archives import files
from conjure.data.fetch import get
from conjure.data.speech_clips import RATE, ClipData, SpeechClips
from conjure.data.spoilt_sound import Floats, echoing, mixed, narrow, nobody, noise
from conjure.media.audio import decode
from conjure.media.music import Music, Note
from conjure.media.synthesiser import rendered

EFFECTS = "kenney_interface_sounds"
KINDS = ("colour", "gusts", "hum", "clicks", "music", "tones", "babble", "effects")
PIECES = 12
"""Pieces of music that are made once; examples take parts of them."""
_PIECE = 8.0
_SCALE = (0, 2, 4, 5, 7, 9, 11)


@dataclass(frozen=True, kw_only=True)
class NoisyData:
    """The `data:` section of the recipe."""

    seconds: float = 2.0
    """Of a clip."""
    people: float = 0.6
    """Share of clips of people who read; the teacher says the others."""
    texts: int = 512
    """Sentences that the teacher says, over all its voices."""
    decibels: tuple[float, float] = (-5.0, 20.0)
    """How far speech is above noise, at least and at most."""
    quiet: float = 0.15
    """Share of clips without noise."""
    echo: float = 0.4
    """Share of clips in a room."""
    alone: float = 0.05
    """Share of clips in which nobody speaks."""

    def __post_init__(self) -> None:
        if self.decibels[0] > self.decibels[1]:
            raise ConjureError(f"data.decibels: expected the lower one first, got {self.decibels}")
        if not all(0 <= share <= 1 for share in (self.people, self.quiet, self.echo, self.alone)):
            raise ConjureError("data: expected shares from 0 to 1")


class NoisySpeech:
    """`example(i)` is a pure function of (seed, i)."""

    def __init__(self, data: NoisyData, seed: int = 0) -> None:
        self.data, self.seed = data, seed
        self.clips = SpeechClips(ClipData(seconds=data.seconds, people=data.people, digits=0.0, texts=data.texts), seed)
        self.noises = Noises(self.clips.people, held_out=False)

    def example(self, index: int) -> tuple[Floats, Floats]:
        """(as it is heard, the speech alone and without its room), float32 `[N]` each."""
        draw = rng(derive(self.seed, "noisy", index))
        clean_N = self.clips.example(index)
        if draw.random() < 0.1:
            clean_N = narrow(clean_N, draw)
        if draw.random() < self.data.alone:
            clean_N = np.zeros_like(clean_N)
        heard_N = echoing(clean_N, draw) if draw.random() < self.data.echo else clean_N
        if draw.random() >= self.data.quiet or not clean_N.any():
            other_N = self.noises.some(len(clean_N), draw)
            decibels = float(draw.uniform(*self.data.decibels))
            heard_N = mixed(heard_N, other_N, decibels) if clean_N.any() else 0.05 * other_N
        return heard_N.astype(np.float32), clean_N


class Noises:
    """What may be heard beside speech. `voices` babble; `held_out` takes the other half of the recorded sounds."""

    def __init__(self, voices: list[Floats], *, held_out: bool) -> None:
        self.voices, self.held_out = voices, held_out

    def some(self, count: int, draw: np.random.Generator) -> Floats:
        """One kind or two at once, of power 1."""
        made_N = self.of(str(draw.choice(KINDS)), count, draw)
        if draw.random() < 0.3:
            made_N = _even(mixed(made_N, self.of("colour", count, draw), float(draw.uniform(0, 15))))
        return made_N

    def of(self, kind: str, count: int, draw: np.random.Generator) -> Floats:
        """float32 `[count]` of power 1 of one of `KINDS`."""
        if kind == "colour":
            return _even(noise(count, draw))
        if kind == "gusts":
            return _even(noise(count, draw) * _swell(count, draw))
        if kind == "hum":
            return _even(_hum(count, draw))
        if kind == "clicks":
            return _even(_clicks(count, draw))
        if kind == "music":
            return _even(_part(self._pieces[int(draw.integers(len(self._pieces)))], count, draw))
        if kind == "tones":
            return _even(np.resize(nobody(draw), count))
        if kind == "babble":
            several = int(draw.integers(2, 7))
            chosen = [self.voices[int(draw.integers(len(self.voices)))] for _ in range(several)]
            return _even(np.sum([_even(_part(each, count, draw)) for each in chosen], axis=0))
        return _even(self._effects_row(count, draw))

    def _effects_row(self, count: int, draw: np.random.Generator) -> Floats:
        """Recorded sounds, one after the other, with pauses of at most half a second."""
        made_N, at = np.zeros(count, np.float32), 0
        while at < count:
            sound = self._effects[int(draw.integers(len(self._effects)))][: count - at]
            made_N[at : at + len(sound)] = sound * np.float32(draw.uniform(0.3, 1))
            at += len(sound) + int(draw.uniform(0, 0.5) * RATE)
        return made_N

    @cached_property
    def _effects(self) -> list[Floats]:
        """Each of power 1."""
        found = [decode(data, name).at(RATE).mono() for name, data in files(get(EFFECTS), "*.wav")]
        if len(found) < 2:
            raise ConjureError(f"the set {EFFECTS} holds no sounds like click_001.wav")
        return [_even(each) for each in found[int(self.held_out) :: 2]]

    @cached_property
    def _pieces(self) -> list[Floats]:
        return [_music(rng(derive(int(self.held_out), "noise music", index))) for index in range(PIECES)]


def _music(draw: np.random.Generator) -> Floats:
    """Eight seconds of chords and a melody above them, in a key and on an instrument that chance chooses."""
    key, tempo, notes = int(draw.integers(12)), float(draw.uniform(70, 140)), []
    step, beats = 0.5, int(_PIECE * tempo / 60)
    for beat in np.arange(0, beats, step):
        if beat % 2 == 0:
            root = int(draw.integers(7))
            chord = [48 + key + _SCALE[(root + third) % 7] for third in (0, 2, 4)]
            notes += [_note(beat, 2.0, pitch, voice) for voice, pitch in enumerate(chord, 1)]
        if draw.random() < 0.7:
            notes.append(_note(beat, step, 60 + key + int(draw.choice(_SCALE)) + 12 * int(draw.integers(2)), 0))
    program = int(draw.choice([0, 19, 24, 48]))
    return rendered(Music(notes=tuple(notes), tempo=tempo, programs=(program,) * 4), RATE).mean(0)


def _note(start: float, length: float, pitch: int, voice: int) -> Note:
    return Note(round(start * 480), round(length * 480), pitch, voice=voice)


def _hum(count: int, draw: np.random.Generator) -> Floats:
    """Of the mains and its harmonics, with a little hiss."""
    t = np.arange(count, dtype=np.float32) / RATE
    first, made_N = float(draw.choice([50.0, 60.0, 100.0, 120.0])) * draw.uniform(0.99, 1.01), 0.0
    for k in range(1, int(draw.integers(3, 20))):
        made_N = made_N + draw.random() / k**0.7 * np.sin(2 * np.pi * (k * first * t + draw.random()))
    return mixed(np.asarray(made_N, np.float32), noise(count, draw), float(draw.uniform(5, 25)))


def _clicks(count: int, draw: np.random.Generator) -> Floats:
    """Knocks and crackling: bursts of noise that die away within 1 to 30 ms."""
    made_N = np.zeros(count, np.float32)
    for _ in range(max(1, int(draw.uniform(1, 15) * count / RATE))):
        size = int(draw.uniform(0.004, 0.1) * RATE)
        at = int(draw.integers(count))
        burst = draw.standard_normal(size, dtype=np.float32) * np.exp(-np.arange(size, dtype=np.float32) / size * 5)
        if draw.random() < 0.5:  # duller
            burst = np.convolve(burst, np.ones(8, np.float32) / 8, "same")
        made_N[at : at + size] += (burst * draw.uniform(0.2, 1))[: count - at]
    return np.asarray(made_N + np.float32(1e-3) * noise(count, draw), np.float32)


def _swell(count: int, draw: np.random.Generator) -> Floats:
    """How loud gusts are: a smooth line through random points, several in a second."""
    points = int(count / RATE * draw.uniform(1, 8)) + 3
    return np.interp(np.linspace(0, points - 1, count), np.arange(points), draw.random(points) ** 2).astype(np.float32)


def _part(sound_N: Floats, count: int, draw: np.random.Generator) -> Floats:
    """So many samples from anywhere in a sound, which begins anew where it ends."""
    return np.resize(np.roll(sound_N, -int(draw.integers(len(sound_N)))), count)


def _even(samples_N: Floats) -> Floats:
    return (samples_N / max(float(np.sqrt((samples_N**2).mean())), 1e-6)).astype(np.float32)
