"""speech -> text, by public Whisper models: what was said, and when, in any length of sound."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.codecs.voice_activity import VoiceActivity
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result, Warn
from conjure.media.audio import Audio
from conjure.media.captions import Format, Segment, Writer, shortened
from conjure.media.text import Text
from conjure.models.language import LanguageModel, Weights
from conjure.models.transcriber import Hearing, Transcriber
from conjure.tasks.public import WEIGHTS, PublicTask

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

    def transcriber(self, weights: Weights | None = None) -> Transcriber:
        """The model with what belongs to it."""
        model = self.model(weights)
        if self._ready is None or self._ready[0] is not model:
            self._ready = model, Transcriber(model)
        return self._ready[1]

    def generate(self, inputs: Sequence[Audio], options: TranscribeOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One text per seed; a single one comes segment by segment. Seeds matter only where a part is drawn again."""
        began = time.perf_counter()
        if len(inputs) != 1 or inputs[0].kind != "audio":
            raise ConjureError(f"expected one sound to listen to, got {len(inputs)} inputs",
                               hint="give them one after the other")  # fmt: skip
        transcriber, how = self.transcriber(options.weights), _hearing(options)
        if how.translate and _layers(transcriber) == TURBO:
            yield Warn("this model was not taught to translate: it may write in the language that is spoken")
        sound = inputs[0]
        samples_N = Audio(sound.mono()[None], sound.rate).at(transcriber.mel.rate).mono()
        made, results = [], []
        for seed in seeds:
            writer, segments, pieces = Writer(options.format, options.width), list[Segment](), list[str]()
            for found, done in transcriber.transcribe(samples_N, how, seed):
                for segment in _captions(found, options):
                    segments.append(segment)
                    pieces.append(writer.push(segment))
                    if len(seeds) == 1 and pieces[-1]:
                        yield Delta(pieces[-1])
                yield Progress(int(done), max(1, int(sound.seconds)), "second")
            pieces.append(writer.finish())
            if len(seeds) == 1 and pieces[-1]:
                yield Delta(pieces[-1])
            made.append(Text("".join(pieces)))
            results.append(_told(segments, sound.seconds))
            if not segments:
                yield Warn("nothing was said, or it was too soft to tell from the noise (--no-gate reads all of it)")
        yield Result(made, {"results": results, "seconds": round(time.perf_counter() - began, 3)})


def _hearing(options: TranscribeOptions) -> Hearing:
    steps = [options.temperature]
    while steps[-1] + LADDER < 1 + LADDER / 2:
        steps.append(round(steps[-1] + LADDER, 6))
    return Hearing(
        language=options.language, translate=options.translate, prompt=options.prompt, temperatures=tuple(steps),
        words=options.words or (options.width > 0 and options.format in ("srt", "vtt")), no_speech=options.no_speech,
        logprob=options.logprob, compression=options.compression, voice=VoiceActivity() if options.gate else None,
        batch=options.batch,
    )  # fmt: skip


def _captions(found: Sequence[Segment], options: TranscribeOptions) -> list[Segment]:
    if not options.width or options.format not in ("srt", "vtt"):
        return list(found)
    return [part for each in found for part in shortened(each, options.width * options.lines)]


def _layers(transcriber: Transcriber) -> tuple[int, int]:
    config = transcriber.network.config
    return config.encoder.layers, config.decoder.layers


def _told(segments: Sequence[Segment], seconds: float) -> dict[str, Any]:
    """What the JSON says: the language most is in, how long the sound is, and every segment."""
    spoken = Counter[str]()
    for each in segments:
        spoken[each.language] += round(1000 * (each.end - each.start)) + 1
    said = {"language": max(spoken, key=spoken.__getitem__)} if spoken else {}
    return {**said, "duration": round(seconds, 3), "segments": [each.told() for each in segments]}
