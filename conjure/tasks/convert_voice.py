"""audio -> audio: what somebody says, said again in another voice, by a public SpeechT5."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.codecs.voice_activity import Span, VoiceActivity, chunks, spans
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.core.seeds import derive
from conjure.media.audio import Audio
from conjure.models.speecht5_voice import SpeechT5Voice
from conjure.tasks.cloned_voice import CONSENT, VOCODED, VOICE, consented, opened, speaker

LONGEST = 15.0
"""Seconds that are said at once."""
SHORTEST = 0.1
"""The same, below which there is nothing to say."""


@dataclass(frozen=True, kw_only=True)
class ConvertVoiceOptions:
    """In whose voice."""

    voice: str = VOICE
    consent: str = CONSENT
    vocoder: str = VOCODED
    gate: bool = Field(default=True, description="convert only where somebody may be speaking, by loudness")


class ConvertVoice:
    """Says again what it hears. The model is read when it is first needed."""

    Options = ConvertVoiceOptions

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: tuple[str, SpeechT5Voice] | None = None

    @classmethod
    def load(cls, folder: Path) -> ConvertVoice:
        return cls(folder)

    def model(self, vocoder: str) -> SpeechT5Voice:
        if self._held is None or self._held[0] != vocoder:
            self._held = vocoder, opened(self.path, vocoder)
        return self._held[1]

    def generate(self, inputs: Sequence[Audio], options: ConvertVoiceOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One sound per seed. Pauses stay as long as they were, what is said may become longer or shorter."""
        began = time.perf_counter()
        if len(inputs) != 1 or inputs[0].kind != "audio":
            raise ConjureError(f"expected one sound to convert, got {len(inputs)} inputs")
        consented(options.consent)
        yield Progress(0, 1, "part", "reading the model")
        model = self.model(options.vocoder)
        speaker_E = speaker(options.voice, model)
        sound = inputs[0]
        samples_N = Audio(sound.mono()[None], sound.rate).at(model.rate).mono()
        pieces = parts(samples_N, model.rate, VoiceActivity() if options.gate else None)
        made, open_ends = [], 0
        for number, seed in enumerate(seeds):
            out, until = list[np.ndarray](), 0
            for n, (start, end) in enumerate(pieces):
                said, ended = model.convert(samples_N[start:end], derive(seed, "part", n), speaker_E)
                open_ends += not ended
                out += [np.zeros(start - until, np.float32), said]
                until = end
                yield Progress(number * len(pieces) + n + 1, len(seeds) * len(pieces), "part")
            out.append(np.zeros(len(samples_N) - until, np.float32))
            made.append(Audio(np.concatenate(out)[None], model.rate))
        if open_ends:
            yield Warn(f"{open_ends} of {len(pieces) * len(seeds)} parts came to no end by themselves and were cut")
        facts = {"parts": len(pieces), "cut": open_ends, "lengths": [round(each.seconds, 3) for each in made]}
        yield Result(made, {**facts, "seconds": round(time.perf_counter() - began, 3)})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Public voices publish no figure that could be measured again from their files alone."""
        raise ConjureError(f"{self.path.name}: a public model of voices has no published figures of ours")


def parts(samples_N: np.ndarray, rate: int, voice: VoiceActivity | None) -> list[Span]:
    """Where somebody speaks, at most `LONGEST` seconds each; or all of it."""
    found = spans(samples_N, rate, voice) if voice else [(0, len(samples_N))]
    cut = chunks(found, samples_N, rate, LONGEST, voice or VoiceActivity(), apart=0.0)
    made = [(chunk.pieces[0][0], chunk.pieces[-1][1]) for chunk in cut]
    made = [(start, end) for start, end in made if end - start >= SHORTEST * rate]
    if not made:
        raise ConjureError("nobody speaks in this sound, or too softly or too shortly to tell",
                           hint="--no-gate converts all of it")  # fmt: skip
    return made
