"""Speaking in the voice of a sample: one of our voices says it, and its sound is changed (`models/voice_change.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conjure.codecs.spoken_text import read
from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.models.speaker import Saying, Sound, Speaker
from conjure.models.voice_change import VoiceChanger, Voiced
from conjure.tasks.cloned_voice import consented
from conjure.tasks.sampled_voice import as_loud, changer_with, sampled

HEARD = (
    "The quick brown fox jumps over the lazy dog, and nobody minds. A large number of young people were choosing "
    "their own way to the measure of joy. Before his seventh year a boy had thought of azure boats, of good soup, and "
    "of a long voyage; which judge should stay at the house at noon?"
)
"""What each of our voices says to be known: all phones of English, a few times."""


@dataclass(frozen=True, eq=False)
class Clone:
    """Changes what the voice `under` says."""

    using: VoiceChanger
    under: str
    own: Voiced
    wanted: Voiced
    like: float

    def __call__(self, sound: Sound) -> Sound:
        made_N = self.using.changed(self.using.seen(sound.samples), self.wanted, self.like, self.own)
        return replace(sound, samples=as_loud(made_N, sound.samples))


def cloned(speaker: Speaker, samples: Sequence[Any], options: Any) -> tuple[Clone, list[Event]]:
    """(what changes sentences, what there is to say about the sample). Of our voices that one speaks whose pitch is
    nearest to the sample's. `ConjureError` without consent, and for a sample that holds no voice."""
    consented(options.consent)
    if len(samples) != 1 or samples[0].kind != "audio":
        raise ConjureError("expected one sound as the sample of a voice", hint="--sample sample.wav")
    using = changer_with(speaker.vocoder)
    wanted, told = sampled(samples[0], using)
    voices = {name: using.seen(_said(speaker, name, HEARD)) for name in speaker.voice.config.voices}
    high = {name: voice.pitch for name, voice in voices.items() if voice.pitch}
    under = min(high, key=lambda name: abs(np.log(high[name] / wanted.pitch)), default=options.voice)
    return Clone(using, under, voices[under], wanted, options.like), told


def _said(speaker: Speaker, voice: str, text: str) -> np.ndarray:
    utterances = read(text).utterances
    return np.concatenate([sound.samples for sound in speaker.say(utterances, Saying(voice=voice), seed=0)])
