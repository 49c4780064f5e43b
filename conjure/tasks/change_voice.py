"""audio -> audio: what somebody says, in the voice of a sample, by networks of our own (`models/voice_change.py`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.media.audio import Audio
from conjure.tasks.cloned_voice import CONSENT, LIKE, consented
from conjure.tasks.heard_again import EAR
from conjure.tasks.inputs import SOUND_FILE
from conjure.tasks.sampled_voice import as_loud, changer, sampled


@dataclass(frozen=True, kw_only=True)
class ChangeVoiceOptions:
    """In whose voice."""

    voice: Any = Field(default="", description="sound in whose voice it is said", json_schema_extra=SOUND_FILE)
    consent: str = CONSENT
    like: float = LIKE


class ChangeVoice:
    """Says what it hears in another voice. `folder` is that of a voice with a vocoder; nothing is drawn at random."""

    Options = ChangeVoiceOptions

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def load(cls, folder: Path) -> ChangeVoice:
        return cls(folder)

    @staticmethod
    def also(options: ChangeVoiceOptions) -> tuple[str, ...]:
        """The models that a result takes beside the voice."""
        return (EAR,)

    def generate(self, inputs: Sequence[Any], options: ChangeVoiceOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One sound per seed, all the same, as long and as loud as what was said."""
        began = time.perf_counter()
        consented(options.consent)
        if not options.voice:
            raise ConjureError("in whose voice? expected a sample of it", hint="--voice sample.wav")
        if len(inputs) != 2 or any(each.kind != "audio" for each in inputs):
            raise ConjureError(f"expected one sound to convert, got {max(0, len(inputs) - 1)} inputs")
        said, sample = inputs
        yield Progress(0, 2, "step", "reading the models")
        using = changer(self.folder)
        if said.digest() == sample.digest():
            yield Warn("the sample is the sound itself: it is said again in the voice that it has")
        wanted, told = sampled(sample, using)
        yield from told
        yield Progress(1, 2, "step", "changing the voice")
        samples_N = said.at(using.rate).mono()
        made_N = as_loud(using.changed(using.seen(samples_N), wanted, options.like), samples_N)
        yield Progress(2, 2, "step", "changing the voice")
        made = Audio(made_N[None], using.rate)
        facts = {"sample_seconds": round(len(wanted.mel) * using.vocoder.config.mel.hop / using.rate, 2),
                 "sample_pitch": round(wanted.pitch, 1)}  # fmt: skip
        yield Result([made] * len(seeds), {**facts, "seconds": round(time.perf_counter() - began, 3)})
