"""Many speakers made of few: what a voice says at another pitch, with other formants and another colour.

The voices are flite's and espeak-ng's (`data/teacher.py`, `data/teaching_speech.py`), one reader (`speech_lj24`) and
four people who say digits (`fsdd`). A pseudo-speaker is a voice with traits of its own that are the same in all that it
says: how much faster its sound is played (pitch and formants), how far its formants are moved beside that, low ones and
high ones apart (vocal tract length, Jaitly and Hinton 2013), and a curve over frequencies. Some voices are kept for the
part "test", with sentences that the others do not say.

Legend: N samples, T frames, F bins, W window.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Literal

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir
from conjure.core.seeds import derive, rng
from conjure.data.read_sentences import ReadSentences
from conjure.data.spoilt_sound import RATE, Floats, at_speed, spoilt
from conjure.data.teacher import VOICES, sentences
from conjure.data.teaching_speech import VARIANTS, espeak, real_clips, real_digits

Part = Literal["train", "test"]
KEPT_FLITE = "rms"
ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029")
SAID = 6
"""Sentences of each voice of espeak-ng."""
GROUP = 8
"""Speakers made of one voice that come after each other."""
LIVELY, LOOSE = 0.06, 0.02
"""How far the pitch of a sentence is from its speaker's, and its formants, as logarithms."""
_WINDOW, _HOP = 512, 128
_LIFTER = 30
"""Cepstral coefficients of an envelope: what repeats faster than every 2 ms is the voice's pitch."""
_MOST = 2.5
"""Nepers by which a bin changes at most."""


@dataclass(frozen=True, kw_only=True)
class SpeakerData:
    """The `data:` section of the recipe."""

    speakers: int = 1000
    """Pseudo-speakers. What they say lies in memory: 100 kB a sentence."""
    sentences: int = 4
    """Of each."""
    seconds: tuple[float, float] = (1.2, 3.0)
    """Of a clip, at least and at most."""
    people: float = 0.35
    """Share of speakers made of people's voices."""
    flite: float = 0.3
    """Share of speakers made of flite's voices; espeak-ng's are the rest."""
    texts: int = 512
    """Sentences of flite, over all its voices."""

    def __post_init__(self) -> None:
        if self.speakers < 2 or self.sentences < 2 or self.texts < len(VOICES):
            raise ConjureError(f"data: expected 2 speakers, 2 sentences and 4 texts or more, got {self}")
        if not 0 < self.seconds[0] <= self.seconds[1] or min(self.people, self.flite) < 0 or \
                self.people + self.flite > 1:  # fmt: skip
            raise ConjureError("data: expected 0 < least seconds <= most, and shares within 1")


@dataclass(frozen=True)
class Traits:
    """What is the speaker's own. `voice` names one of `voices`."""

    voice: str
    faster: float
    low: float
    high: float
    """Factors of formants at 500 Hz and below, at 3.5 kHz and above."""
    colour_F: Floats
    """Nepers for each bin."""


class PseudoSpeakers:
    """`said(s, k)` and `example(i)` are pure functions of (seed, part, their arguments)."""

    def __init__(self, data: SpeakerData, seed: int = 0, part: Part = "train") -> None:
        self.data, self.seed, self.part = data, seed, part
        self.said = lru_cache(maxsize=data.speakers * data.sentences)(self._say)
        self.traits = lru_cache(maxsize=data.speakers)(self._draw_traits)
        self._order = lru_cache(maxsize=2)(self._draw_order)

    @cached_property
    def voices(self) -> dict[str, Sequence[np.ndarray]]:
        """int16 or float32 `[N]` of all that each voice says."""
        return voices(self.part, self.data.texts)

    def example(self, index: int) -> tuple[int, Floats]:
        """(the speaker, float32 `[N]` as it is heard): two after each other are by one speaker, and two sentences."""
        pair, which = divmod(index, 2)
        epoch, at = divmod(pair, self.data.speakers)
        speaker = int(self._order(epoch)[at])
        pick = rng(derive(self.seed, "sentences", pair)).permutation(self.data.sentences)
        draw = rng(derive(self.seed, "clip", index))
        samples_N = as_floats(self.said(speaker, int(pick[which])))
        size = round(float(draw.uniform(*self.data.seconds)) * RATE)
        at = int(draw.integers(max(1, len(samples_N) - size)))
        return speaker, spoilt(samples_N[at : at + size], draw)[0]

    def _say(self, speaker: int, sentence: int) -> np.ndarray:
        """int16 `[N]`, a little more than the longest clip."""
        traits = self.traits(speaker)
        draw = rng(derive(self.seed, self.part, "said", speaker, sentence))
        own, need = self.voices[traits.voice], int((self.data.seconds[1] + 0.3) * RATE * traits.faster)
        parts, order = list[Floats](), draw.permutation(len(own))
        for place in itertools.chain(order, draw.integers(len(own), size=1000)):
            parts.append(as_floats(own[int(place)]))
            if sum(map(len, parts)) >= need:
                break
        whole_N = np.concatenate(parts)
        at = int(draw.integers(max(1, min(len(whole_N) - need, len(parts[0]) // 2))))
        # Nobody says everything at one pitch; the formants stay where they are, nearly.
        lively, small = np.exp(draw.uniform(-LIVELY, LIVELY)), np.exp(draw.uniform(-LOOSE, LOOSE))
        made_N = at_speed(whole_N[at : at + need], traits.faster * float(lively))
        made_N = altered(made_N, traits.low * float(small / lively), traits.high * float(small / lively),
                         traits.colour_F)  # fmt: skip
        return np.rint(made_N * (20_000 / max(1e-6, float(np.abs(made_N).max())))).astype(np.int16)

    def _draw_traits(self, speaker: int) -> Traits:
        draw = rng(derive(self.seed, self.part, "traits", speaker))
        kind, names = draw.random(), list(self.voices)
        chosen = "people" if kind < self.data.people else "flite" if kind < self.data.people + self.data.flite else \
            "espeak"  # fmt: skip
        able = [name for name in names if name.startswith(chosen)] or names
        faster = float(np.exp(draw.uniform(-0.2, 0.25)))
        formants = float(np.exp(np.clip(0.4 * np.log(faster) + 0.08 * draw.standard_normal(), -0.18, 0.2)))
        low, high = (formants / faster * np.exp(0.04 * draw.standard_normal(2))).tolist()
        return Traits(able[int(draw.integers(len(able)))], faster, low, high,
                      curve(_WINDOW // 2 + 1, range(1, 13), 0.4, draw))  # fmt: skip

    def _draw_order(self, epoch: int) -> np.ndarray:
        """All speakers, in groups of `GROUP` that are made of one voice (of espeak-ng, of any): what tells them apart
        is then not which voice it was."""
        draw = rng(derive(self.seed, "speakers", epoch))
        alike: dict[str, list[int]] = {}
        for speaker in draw.permutation(self.data.speakers).tolist():
            voice = self.traits(speaker).voice
            alike.setdefault("espeak" if voice.startswith("espeak") else voice, []).append(speaker)
        groups = [own[at : at + GROUP] for own in alike.values() for at in range(0, len(own), GROUP)]
        return np.concatenate([groups[n] for n in draw.permutation(len(groups))])


def as_floats(samples_N: np.ndarray) -> Floats:
    """Of int16; floats stay as they are."""
    return samples_N * np.float32(2**-15) if samples_N.dtype == np.int16 else samples_N


def curve(count: int, waves: range, deviation: float, draw: np.random.Generator) -> Floats:
    """float32 `[count]`: a sum of so many half waves, the k-th of `deviation` over the root of k, along a scale that is
    finer at the beginning."""
    at, waves_K1 = np.sqrt(np.linspace(0, 1, count)), np.array(waves)[:, None]
    shape = np.cos(np.pi * waves_K1 * at) * draw.standard_normal(waves_K1.shape) * deviation / waves_K1**0.5
    return shape.sum(0).astype(np.float32)


def altered(samples_N: Floats, low: float, high: float, colour_F: Floats) -> Floats:
    """The sound with its formants times `low` up to 500 Hz, times `high` from 3.5 kHz on, and its spectrum changed by
    the curve; pitch and length stay.

    Each frame's envelope is what the lowest cepstral coefficients say; it is stretched, and bins change by as much as
    it does (as in Roebel and Rodet 2005, without their true envelope).
    """
    window_W = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    count = -(-len(samples_N) // _HOP) + 3
    padded = np.pad(samples_N, (_WINDOW - _HOP, count * _HOP - len(samples_N)))
    frames_TW = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:count]
    bins_TF = np.fft.rfft(frames_TW * window_W)
    cepstrum_TW = np.fft.irfft(np.log(np.abs(bins_TF) + 1e-5))
    cepstrum_TW[:, _LIFTER : _WINDOW - _LIFTER + 1] = 0
    envelope_TF = np.fft.rfft(cepstrum_TW).real
    hertz_F = np.linspace(0, RATE / 2, _WINDOW // 2 + 1)
    factor_F = np.interp(hertz_F, (500, 3500), (low, high))
    from_F = np.clip(np.arange(len(hertz_F)) / factor_F, 0, len(hertz_F) - 1.001)
    first_F = from_F.astype(int)
    rest_F = (from_F - first_F).astype(np.float32)
    moved_TF = envelope_TF[:, first_F] * (1 - rest_F) + envelope_TF[:, first_F + 1] * rest_F
    change_TF = np.clip(moved_TF - envelope_TF, -_MOST, _MOST) + colour_F
    made_TW = np.fft.irfft(bins_TF * np.exp(change_TF)).astype(np.float32) * window_W
    out = np.zeros(len(padded), np.float32)
    for shift in range(_WINDOW // _HOP):  # frames that far apart do not overlap
        some_TW = made_TW[shift :: _WINDOW // _HOP]
        out[shift * _HOP : shift * _HOP + some_TW.size] += some_TW.ravel()
    return out[_WINDOW - _HOP :][: len(samples_N)] / np.float32(1.5)


@cache
def voices(part: Part, texts: int) -> dict[str, Sequence[np.ndarray]]:
    """name -> all that a voice says: int16 or float32 `[N]` each, at 16 kHz."""
    found: dict[str, list[np.ndarray]] = {}
    read = ReadSentences("train", texts) if part == "train" else ReadSentences("val")
    for index in range(len(read)):
        voice, said = read[index]
        if (VOICES[voice] == KEPT_FLITE) == (part == "test"):
            found.setdefault(f"flite {VOICES[voice]}", []).append(said.samples)
    if part == "train":
        found["people lj"] = [clip.samples for clip in real_clips()]
        for speaker, _, samples_N in real_digits("train"):
            found.setdefault(f"people {speaker}", []).append(samples_N)
    lines = sentences("train" if part == "train" else "val")
    for place, variant in enumerate(VARIANTS):
        if (place % 6 == 4) == (part == "test"):
            draw = rng(derive(0, "espeak voice", variant))
            voice = str(draw.choice(ACCENTS)) + (f"+{variant}" if variant else "")
            own = tuple(str(lines[int(n)]) for n in draw.integers(len(lines), size=SAID))
            found[f"espeak {variant}"] = _espeak(voice, int(draw.integers(140, 190)), int(draw.integers(25, 75)), own)
    return dict(found)


def _espeak(voice: str, speed: int, pitch: int, texts: tuple[str, ...]) -> list[np.ndarray]:
    """The texts by one voice, made once."""
    path = cache_dir() / "teacher" / "espeak" / f"{derive(speed, voice, pitch, *texts):016x}.npz"
    if not path.exists():
        said = [espeak(text, voice=voice, speed=speed, pitch=pitch) for text in texts]
        buffer = io.BytesIO()
        np.savez(buffer, samples=np.concatenate(said), ends=np.cumsum([0, *map(len, said)]))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    with np.load(path, allow_pickle=False) as read:
        samples_N, ends = read["samples"], read["ends"]
    return [samples_N[a:b] for a, b in itertools.pairwise(ends)]
