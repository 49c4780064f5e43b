"""text -> audio: speech by public voices (VITS, MMS-TTS, SpeechT5), sentence by sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.codecs.spoken_numbers import numbers_spoken
from conjure.codecs.voice_characters import parts
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.core.seeds import derive
from conjure.media.audio import Audio
from conjure.media.text import Text
from conjure.models.proof_ear import Judged
from conjure.models.speecht5_voice import SpeechT5Voice
from conjure.models.vits_voice import VitsVoice
from conjure.tasks.abilities import family_name
from conjure.tasks.cloned_voice import CONSENT, VOCODED, VOICE, consented, opened, speaker
from conjure.tasks.heard_again import FASTEST, Kept, Report, best, proof_ear

Say = Callable[[str, int], tuple[np.ndarray, bool]]
"""(sentence, seed) -> (samples, whether it came to an end by itself)."""
SHOWN = 40
"""Characters that a warning lists."""


@dataclass(frozen=True, kw_only=True)
class PublicVoicesOptions:
    """Who speaks, and how."""

    speaker: int = Field(default=0, ge=0, description="which of the model's speakers, by number")
    speed: float | None = Field(default=None, ge=0.25, le=4, description="how fast (none: as the model itself says)")
    noise: float | None = Field(
        default=None, ge=0, le=2, description="how much the sound varies (none: as the model itself says)"
    )
    duration_noise: float | None = Field(
        default=None, ge=0, le=2, description="how much the rhythm varies (none: as the model itself says)"
    )
    pause: float = Field(default=0.25, ge=0, le=10, description="seconds of silence between sentences")
    voice: str = VOICE
    consent: str = CONSENT
    vocoder: str = VOCODED
    check: bool = Field(default=False, description="listen to each English sentence with our own ear, which was taught "
                        "by machines, and say it again where a word is missing or said twice")  # fmt: skip


class PublicVoices:
    """Says a text. The model is read when it is first needed."""

    Options = PublicVoicesOptions

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: tuple[str, VitsVoice | SpeechT5Voice] | None = None

    @classmethod
    def load(cls, folder: Path) -> PublicVoices:
        return cls(folder)

    def model(self, vocoder: str = "") -> VitsVoice | SpeechT5Voice:
        """The model with what belongs to it."""
        if self._held is None or self._held[0] != vocoder:
            own = family_name(self.path) == "vits"
            self._held = vocoder, VitsVoice.load(self.path) if own else opened(self.path, vocoder)
        return self._held[1]

    def generate(self, inputs: Sequence[Text], options: PublicVoicesOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One sound per seed; the noise of a sentence hangs on its seed and its number alone."""
        began, text = time.perf_counter(), "\n".join(str(each) for each in inputs)
        if family_name(self.path) != "vits":
            consented(options.consent)
        yield Progress(0, 1, "sentence", "reading the model")
        model = self.model(options.vocoder)
        say = _say(model, options)
        yield from _unused(model, options)
        if model.english:
            text = "\n".join(" ".join(numbers_spoken(line).split()) for line in text.splitlines())
        sentences, left_out = parts(text, model.longest), model.left_out(text)
        if left_out:
            rest = "" if len(left_out) <= SHOWN else f" and {len(left_out) - SHOWN} more"
            yield Warn(f"the voice does not know these characters and leaves them out: {left_out[:SHOWN]}{rest}")
        made, report = [], Report()
        ear = proof_ear() if options.check and model.english and (options.speed or 1.0) <= FASTEST else None
        for number, seed in enumerate(seeds):
            pieces = list[np.ndarray]()
            for n, sentence in enumerate(sentences):
                judge = None if ear is None else partial(ear.judge, rate=model.rate, words=sentence.split(),
                                                         speed=options.speed or 1.0)  # fmt: skip
                kept = _kept(say, sentence, derive(seed, "sentence", n), judge)
                report.add(sentence, kept)
                samples_N, ended = kept.sound
                if not ended:
                    yield Warn(f"this sentence came to no end by itself and was cut: {sentence[:SHOWN]!r}")
                if len(samples_N):
                    silence = np.zeros(round(options.pause * model.rate) if pieces else 0, np.float32)
                    pieces += [silence, samples_N]
                yield Progress(number * len(sentences) + n + 1, len(seeds) * len(sentences), "sentence")
            if not pieces:
                raise ConjureError("nothing of this text can be said: the voice knows none of its characters",
                                   hint="take a voice of the language that the text is in")  # fmt: skip
            made.append(Audio(np.concatenate(pieces)[None], model.rate))
        lengths = [round(each.seconds, 3) for each in made]
        for warning in report.warnings():
            yield Warn(warning)
        facts = {"sentences": len(sentences), "left_out": left_out, "lengths": lengths, **report.facts}
        yield Result(made, {**facts, "seconds": round(time.perf_counter() - began, 3)})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Public voices publish no figure that could be measured again from their files alone."""
        raise ConjureError(f"{self.path.name}: a public voice has no published figures of ours",
                           hint="listen to it, or let a model of speech write down what it says")  # fmt: skip


def _say(model: VitsVoice | SpeechT5Voice, options: PublicVoicesOptions) -> Say:
    if isinstance(model, SpeechT5Voice):
        speaker_E = speaker(options.voice, model)
        return lambda sentence, seed: model.say(sentence, seed, speaker_E)
    how = {name: getattr(options, name) for name in ("speaker", "speed", "noise", "duration_noise")}
    return lambda sentence, seed: (model.say(sentence, seed, **how), True)


def _kept(
    say: Say, sentence: str, seed: int, judge: Callable[[np.ndarray], Judged | None] | None
) -> Kept[tuple[np.ndarray, bool]]:
    """A sentence, said again where the ear doubts it."""
    first = say(sentence, seed)
    if judge is None:
        return Kept(first, 0, None)
    return best(first, lambda attempt: say(sentence, derive(seed, "again", attempt)), lambda said: judge(said[0]))


def _unused(model: VitsVoice | SpeechT5Voice, options: PublicVoicesOptions) -> Iterator[Event]:
    """A word about options that change nothing for this model."""
    own = ("speaker", "speed", "noise", "duration_noise")
    names = own if isinstance(model, SpeechT5Voice) else ("voice", "vocoder")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    if given:
        yield Warn(f"for this model {', '.join(given)} changes nothing")
