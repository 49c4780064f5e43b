"""speech -> text, by public models (Whisper; wav2vec 2.0, HuBERT, XLSR, MMS; SpeechT5): what was said, and when, in any
length of sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.codecs.voice_activity import VoiceActivity
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.media.captions import Format
from conjure.models.language import LanguageModel, Weights
from conjure.models.listener import Listener
from conjure.models.speecht5_listener import SpeechT5Listener
from conjure.models.transcriber import Hearing, Transcriber
from conjure.models.wave_listener import languages, load_listener
from conjure.tasks.abilities import family_name, writes_letters
from conjure.tasks.inputs import LOCAL
from conjure.tasks.public import WEIGHTS, PublicTask
from conjure.tasks.transcript import Listened, transcripts

LADDER = 0.2
"""By so much the temperature rises where a part failed."""
TURBO = (32, 4)
"""Layers of the encoder and the decoder of the model that was never taught to translate."""


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    weights: Weights | None = WEIGHTS
    language: str = Field(default="", description="the language that is spoken, by name or code (none: found by ear)")
    translate: bool = Field(default=False, description="write it in English, whatever is spoken")
    words: bool = Field(default=False, description="the time of every word too, in the JSON")
    prompt: str = Field(default="", description="names and words to expect, as a text that came before")
    format: Format = Field(default="txt", description="how the text is laid out")
    width: int = Field(default=0, ge=0, le=500, description="characters of a line of captions (0: no end)")
    lines: int = Field(default=2, ge=1, le=20, description="lines of a caption, where they have a width; takes words")
    who: bool = Field(default=False, description="name who speaks, by starter/who: Speaker 1, Speaker 2 and so on")
    known: tuple[str, ...] = Field(default=(), json_schema_extra=LOCAL, description="a sound of somebody who may speak "
                                   "and is called as its file is; may be given several times")  # fmt: skip
    temperature: float = Field(default=0, ge=0, le=1, description="where drawing begins; what fails is drawn wilder")
    no_speech: float = Field(
        default=0.6, ge=0, le=1, description="above this chance that nobody speaks, unlikely text is left out"
    )
    logprob: float = Field(default=-1.0, ge=-20, le=0, description="a text below this mean log-probability is unlikely")
    compression: float = Field(default=2.4, ge=1, le=100, description="a text that shrinks by more repeats itself")
    gate: bool = Field(default=True, description="read only where somebody may be speaking, by loudness")
    batch: int = Field(default=8, ge=1, le=256, description="parts that are read together: more is faster and larger")


class Transcribe(PublicTask):
    Options = TranscribeOptions

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._ready: tuple[LanguageModel, Transcriber] | None = None
        self._heard: tuple[tuple[Weights | None, str], Listener | SpeechT5Listener] | None = None

    def transcriber(self, weights: Weights | None = None) -> Transcriber:
        """A Whisper with what belongs to it."""
        model = self.model(weights)
        if self._ready is None or self._ready[0] is not model:
            self._ready = model, Transcriber(model)
        return self._ready[1]

    def listener(self, weights: Weights | None = None, language: str = "") -> Listener | SpeechT5Listener:
        """A model that writes letters; one language at a time is kept."""
        key = (weights, language if languages(self.path) else "")
        if self._heard is None or self._heard[0] != key:
            self._heard = None
            whole = family_name(self.path) == "speecht5"
            self._heard = key, SpeechT5Listener.load(self.path) if whole else load_listener(self.path, *key)[1]
        return self._heard[1]

    long = True

    def generate(self, inputs: Sequence[Any], options: TranscribeOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One text per seed; a single one comes segment by segment. Seeds matter only where a part is drawn again."""
        how = _hearing(options)
        if writes_letters(self.path) or family_name(self.path) == "speecht5":
            yield from self._unused(options)
            model = self.listener(options.weights, options.language)
            model.doubt, rate = options.logprob, model.rate
        else:
            model = self.transcriber(options.weights)
            if how.translate and _layers(model) == TURBO:
                yield Warn("this model was not taught to translate: it may write in the language that is spoken")
            rate = model.mel.rate
        yield from transcripts(inputs, Listened(
            read=lambda samples_N, seed, voice: model.transcribe(samples_N, replace(how, voice=voice), seed),
            rate=rate, name=f"{self.path} {options.weights} {how}", voice=how.voice,
        ), options, seeds)  # fmt: skip

    def _unused(self, options: TranscribeOptions) -> Iterator[Event]:
        """What a model that writes letters cannot do."""
        if options.translate:
            raise ConjureError(f"{self.path.name} writes what it hears: it cannot translate",
                               hint="take a Whisper, such as openai/whisper-base")  # fmt: skip
        if options.language and not languages(self.path):
            yield Warn("this model knows one alphabet alone: --language changes nothing")
        if languages(self.path) and not options.language:
            yield Warn("this model hears the language that its files name: --language chooses another")
        if options.prompt:
            yield Warn("this model writes letter by letter: --prompt changes nothing")
        if family_name(self.path) == "speecht5" and (options.words or options.weights not in (None, "fp32", "auto")):
            yield Warn("a SpeechT5 gives no times of words and is held in fp32: --words and --weights change nothing")


def _hearing(options: TranscribeOptions) -> Hearing:
    steps = [options.temperature]
    while steps[-1] + LADDER < 1 + LADDER / 2:
        steps.append(round(steps[-1] + LADDER, 6))
    return Hearing(
        language=options.language, translate=options.translate, prompt=options.prompt, temperatures=tuple(steps),
        words=options.words or (options.width > 0 and options.format in ("srt", "vtt")) or options.who
        or bool(options.known), no_speech=options.no_speech,
        logprob=options.logprob, compression=options.compression, voice=VoiceActivity() if options.gate else None,
        batch=options.batch,
    )  # fmt: skip


def _layers(transcriber: Transcriber) -> tuple[int, int]:
    config = transcriber.network.config
    return config.encoder.layers, config.decoder.layers
