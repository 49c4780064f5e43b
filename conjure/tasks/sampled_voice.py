"""What tasks share that take a voice from a sample of sound: whether it can be taken, and who agreed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.media.audio import Audio
from conjure.models.ear import MEL
from conjure.models.istft_vocoder import Vocoder
from conjure.models.proof_ear import load_ear
from conjure.models.speech_folder import load_vocoder
from conjure.models.voice_change import VoiceChanger, Voiced, speech_of
from conjure.tasks.heard_again import EAR

LEAST, SHORT, MOST = 1.0, 10.0, 60.0
"""Seconds of speech in a sample: what it must have, what is little, what is looked at."""
CLEAR, PITCHED = 0.33, 0.15
"""How sure the ear must be of its phones in speech, on average, and the share of frames that must have a pitch."""
LOUDEST = 0.99
"""Of the samples that come out."""


@functools.lru_cache(maxsize=2)
def changer(folder: Path) -> VoiceChanger:
    """What changes voices, with the vocoder in a folder. `ConjureError` where our ear is not installed."""
    return changer_with(load_vocoder(folder))


def changer_with(vocoder: Vocoder) -> VoiceChanger:
    """The same with a vocoder."""
    try:
        ear = shelf.find(EAR)
    except ConjureError:
        raise ConjureError(f"changing voices takes {EAR}, which is not here",
                           hint="`conjure train ear` makes one") from None  # fmt: skip
    if vocoder.config.mel.rate != MEL.rate:
        raise ConjureError(f"expected a vocoder for {MEL.rate} Hz, this one is for {vocoder.config.mel.rate} Hz")
    return VoiceChanger(load_ear(ear), vocoder)


def sampled(sample: Audio, using: VoiceChanger) -> tuple[Voiced, list[Event]]:
    """(the voice in a sample, what there is to say about it). `ConjureError` where nobody speaks in it, or for less
    than `LEAST` seconds."""
    sound_N = sample.at(using.rate).mono()
    said_N = speech_of(sound_N, using.rate, MOST)
    seconds = len(said_N) / using.rate
    if seconds < LEAST:
        raise ConjureError(
            f"the sample holds {seconds:.1f} s of speech, expected at least {LEAST:g} s",
            hint="ten seconds or more of one person who speaks, without music, make a good sample",
        )
    voice = using.seen(said_N)
    sure = float(voice.phones.max(1).values[voice.speaking[:, 0] > 0].mean())
    if sure < CLEAR or (voice.hertz > 0).mean() < PITCHED:
        raise ConjureError("the sample does not sound like somebody speaking",
                           hint="take one of a single person who speaks, without music or noise")  # fmt: skip
    told = [Warn(f"the sample holds {seconds:.1f} s of speech: from {SHORT:g} s on the voice is nearer to it")]
    return voice, list[Event](told if seconds < SHORT else [])


def as_loud(made_N: np.ndarray, said_N: np.ndarray) -> np.ndarray:
    """A sound as long and as loud as another, within -1 and 1."""
    made_N = np.pad(made_N, (0, max(0, len(said_N) - len(made_N))))[: len(said_N)].astype(np.float32)
    level = float(np.sqrt(np.mean(np.square(said_N)))) / max(float(np.sqrt(np.mean(np.square(made_N)))), 1e-6)
    peak = max(float(np.abs(made_N).max(initial=0.0)), 1e-6)
    return made_N * np.float32(min(level, LOUDEST / peak))
