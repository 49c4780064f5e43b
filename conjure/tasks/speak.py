"""text -> audio: speech by our own voices, sentence by sentence. Trains the voice too.

What only training, measuring or the voice of a sample takes is imported there: the first sound comes sooner.

Legend: B rows, P phones, T frames, M mel bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.pronunciation import Pronunciation
from conjure.codecs.spoken_text import Script, read
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.shelf import find
from conjure.data.read_sentences import ReadData, ReadSentences
from conjure.media.audio import Audio
from conjure.media.text import Text
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.speaker import Saying, Sound, Speaker
from conjure.models.speech_folder import load_vocoder
from conjure.models.voice import Voice, VoiceConfig
from conjure.tasks.cloned_voice import CONSENT, LIKE
from conjure.tasks.heard_again import CHECK, EAR, FASTEST, TRIES, Kept, Report, best, proof_ear
from conjure.tasks.inputs import OR_SAMPLE, SOUND_FILE
from conjure.tasks.voice_rows import Rows

WEIGHTS = {"flow": 0.5, "mean": 1.0, "duration": 0.5}
"""Of the parts of the loss."""


EXAMPLE = "The quick brown fox jumps over the lazy dog, and nobody minds."


@dataclass(frozen=True, kw_only=True)
class SpeakOptions:
    """How a text is said."""

    voice: str = Field(default="slt", json_schema_extra=OR_SAMPLE,
                       description="who speaks: awb, kal16, rms, slt, or a sound to speak like (--sample)")  # fmt: skip
    speed: float = Field(default=1.0, ge=0.25, le=4, description="1: as the teacher; 2: twice as fast")
    pause: float = Field(default=1.0, ge=0, le=5, description="what silences are multiplied by")
    steps: int = Field(default=4, ge=1, le=100, description="of the flow: more is finer and slower")
    temperature: float = Field(default=0.6, ge=0, le=1.5, description="how lively; 0: always the same")
    batch: int = Field(default=4, ge=1, le=64, description="sentences that are said together, after the first")
    check: bool = CHECK
    sample: Any = Field(default="", description="sound in whose voice it is said, with --consent",
                        json_schema_extra=SOUND_FILE)  # fmt: skip
    consent: str = CONSENT
    like: float = LIKE


class Speak:
    """text -> audio. `rows` are there while the voice trains; a loaded one has a `speaker`."""

    Options = SpeakOptions
    ModelConfig = VoiceConfig
    DataConfig = ReadData
    sets = ("ljspeech_text",)
    causal = False

    def __init__(self, network: Voice, data: ReadData, *, source: ReadSentences | None = None,
                 speaker: Speaker | None = None, seed: int = 0) -> None:  # fmt: skip
        self.network, self.data, self.seed = network, data, seed
        self.config = network.config
        if speaker is not None:
            self.speaker = speaker
        self.rows = None if source is None else Rows(source, self.config.mel, data.frames, seed)

    @classmethod
    def create(cls, model: VoiceConfig, data: ReadData, seed: int = 0) -> Speak:
        source = ReadSentences("train", data.texts, seed)
        with randomness.drawing_weights(seed):
            network = Voice(model)
        return cls(network, data, source=source, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Speak:
        """The model in a folder, ready to speak."""
        speaker = Speaker.load(folder)
        return cls(speaker.voice, from_dict(ReadData, read_config(folder)["data"], where="data"), speaker=speaker)

    @cached_property
    def speaker(self) -> Speaker:
        """While it trains: the network as it stands, with the recipe's vocoder, and a dictionary by the teacher."""
        from conjure.data.word_sounds import word_sounds, words

        if not self.config.vocoder:
            raise ConjureError("model.vocoder: expected the folder of a vocoder",
                               hint="conjure train voice-vocoder makes one")  # fmt: skip
        return Speaker(self.network, load_vocoder(find(self.config.vocoder)),
                       Pronunciation.learnt(word_sounds(words())))  # fmt: skip

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """See `voice_rows.padded`; `seeds` int64 `[B]` of what the loss draws."""
        assert self.rows is not None
        return self.rows.batch(indices)

    def parts(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> dict[str, Tensor]:
        """What the loss is the weighed sum of, `[B]` each."""
        own, mel_BTM = batch["seeds"].tolist(), batch["mel"]
        noise_BTM = randomness.normal(own, mel_BTM.shape[1:]).to(mel_BTM)
        t_B = self.config.flow.time(randomness.uniform(own)).to(mel_BTM)
        called = self.network if network is None else network
        names = ("phones", "ends", "voice", "first", "mel", "counted")
        found = called(*(batch[name] for name in names), noise_BTM, t_B)
        return dict(zip(WEIGHTS, found, strict=True))

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum over crops, number of crops)."""
        parts = self.parts(batch, network)
        return torch.stack([weight * parts[name].sum() for name, weight in WEIGHTS.items()]).sum(), torch.tensor(
            len(batch["mel"])
        )

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Frames."""
        return batch["counted"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(batch["phones"].numel(), batch["counted"].numel())

    def describe(self, batch: dict[str, Tensor]) -> str:
        rows = []
        for phones_P, first, counted_T, voice in zip(*(batch[n] for n in ("phones", "first", "counted", "voice"))):
            rows.append(f"  {self.config.voices[int(voice)]}: {int((phones_P >= 0).sum())} phones, frames {int(first)} "
                        f"to {int(first) + int(counted_T.sum())} carry loss, and all durations")  # fmt: skip
        return "\n".join([f"{len(rows)} sentences:", *rows])

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Of crops of held-out sentences: the loss and its parts."""
        held = ReadSentences("val")
        rows = Rows(held, self.config.mel, self.data.frames)
        found = [self.parts(rows.held(index)) for index in range(min(limit or len(held), len(held)))]
        means = {name: float(np.mean([float(each[name]) for each in found])) for name in WEIGHTS}
        return {"loss": sum(weight * means[name] for name, weight in WEIGHTS.items()), **means}

    def preview(self, seed: int) -> dict[str, Audio]:
        """A sentence in each voice."""
        made = {}
        for voice in self.config.voices:
            *_, result = self.generate([Text(EXAMPLE)], SpeakOptions(voice=voice), [seed])
            assert isinstance(result, Result)
            made[voice] = result.media[0]
        return made  # type: ignore[return-value]

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        """The voice with the vocoder and the dictionary it speaks with."""
        saved = to_dict(self.config) | {"vocoder": ""}
        write_config(folder, kind="voice", task="speak", network=self.network, sections={
            "model": saved, "data": to_dict(self.data), "vocoder": to_dict(self.speaker.vocoder.config)})  # fmt: skip
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        save_weights(folder, "vocoder", self.speaker.vocoder, dtype=dtype)
        self.speaker.pronunciation.save(folder)

    # ---------------------------------------------------------------- use
    @staticmethod
    def also(options: SpeakOptions) -> tuple[str, ...]:
        """The models that a result takes beside the voice."""
        return (EAR,) if options.sample else ()

    def generate(self, inputs: Sequence[Any], options: Any, seeds: Sequence[int]) -> Iterator[Event]:
        """One sound per seed. After every sentence comes a `Preview` of all that was said so far, if there is one seed.

        Raises `ConjureError` for a text that holds nothing to say and for a voice that there is not; what cannot be
        read is named in a `Warn`.
        """
        script = _script(inputs[:1])
        for warning in script.warnings:
            yield Warn(warning)
        how, change = _saying(options), None
        if options.sample:
            from conjure.tasks.spoken_sample import cloned

            change, told = cloned(self.speaker, inputs[1:], options)
            how = replace(how, voice=change.under)
            yield from told
        self.speaker.check(script.utterances, how)
        media, results, report = [], [], Report()
        for seed in seeds:
            parts: list[np.ndarray] = []
            sentences: list[dict[str, Any]] = []
            for number, kept in enumerate(self.said(script, how, seed, options.check), start=1):
                sound = change(kept.sound) if change else kept.sound
                start = sum(map(len, parts)) / self.speaker.rate
                sentences.append(_told(sound, start) | report.add(sound.source, kept))
                parts += _with_silence(sound, self.speaker.rate)
                yield Progress(min(number, len(script.utterances)), len(script.utterances), "sentence")
                if len(seeds) == 1:
                    yield Preview(lambda so_far=tuple(parts): self._joined(so_far))  # type: ignore[misc]
            media.append(self._joined(parts))
            results.append({"duration": round(media[-1].seconds, 3), "sentences": sentences})
        for warning in report.warnings():
            yield Warn(warning)
        under = {"said_by": change.under} if change else {}
        yield Result(media, {"results": results, **report.facts, **under, "stages": asdict(self.speaker.stages)})

    def said(self, script: Script, how: Saying, seed: int, check: bool = False) -> Iterator[Kept[Sound]]:
        """The sounds of a script in order: the one place through which all that is said comes. Every phone that was
        asked for was given a length, so none can be missing; with `check` our own ear listens all the same, and what it
        doubts is said again."""
        ear = proof_ear() if check else None
        for pieces in self.speaker.batches(script.utterances, how, seed):
            for piece, sound in zip(pieces, self.speaker.said(pieces, how), strict=True):
                speed = how.speed * piece.utterance.speed
                if ear is None or speed > FASTEST:
                    yield Kept(sound, 0, None)
                    continue
                yield best(sound, lambda attempt, piece=piece: next(self.speaker.said([piece.again(attempt)], how)),
                           lambda made, speed=speed: ear.judge(made.samples, self.speaker.rate, made.words, speed),
                           TRIES if how.temperature else 0)  # fmt: skip

    def _joined(self, parts: Sequence[np.ndarray]) -> Audio:
        return Audio(np.concatenate(parts)[None], self.speaker.rate)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Word errors of an independent recogniser on our speech and on the teacher's. `data` may hold the number of
        sentences, and "listening" (`figures.listening`) or "conversion" (`change_figures.published`) instead."""
        from conjure.tasks import change_figures
        from conjure.tasks import speak_figures as figures
        from conjure.tasks.sampled_voice import changer_with

        limit = next((int(each) for each in data if each.isdigit()), None)
        if "listening" in data:
            return figures.listening(self.speaker, on_progress, limit)
        if "conversion" in data:
            return change_figures.published(changer_with(self.speaker.vocoder), on_progress, limit)
        return figures.published(self.speaker, on_progress, limit)


def _script(inputs: Sequence[Any]) -> Script:
    if len(inputs) != 1 or inputs[0].kind != "text":
        raise ConjureError(f"expected one text to say, got {len(inputs)} inputs", hint="give them one after the other")
    return read(str(inputs[0]))


def _saying(options: SpeakOptions) -> Saying:
    return Saying(voice=options.voice, speed=options.speed, pause=options.pause, steps=options.steps,
                  temperature=options.temperature, batch=options.batch)  # fmt: skip


def _with_silence(sound: Sound, rate: int) -> list[np.ndarray]:
    return [sound.samples, np.zeros(round(sound.after * rate), np.float32)]


def _told(sound: Sound, start: float) -> dict[str, Any]:
    """What the facts say of a sentence: the text as written, its time, and how many phones it has."""
    return {"text": sound.source, "start": round(start, 3), "end": round(start + sound.ends[-1], 3),
            "phones": len(sound.phones)}  # fmt: skip
