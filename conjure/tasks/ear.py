"""speech -> text by a small network of our own (starter/ear): what was said, and when."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.language_names import name_of
from conjure.codecs.plain_letters import SYMBOLS, encode, sentence
from conjure.codecs.spoken_text import expanded, sentences
from conjure.codecs.voice_activity import Floats, VoiceActivity
from conjure.core import seeds as randomness
from conjure.core import shelf
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.core.seeds import derive, rng
from conjure.data.books import documents, split
from conjure.data.teaching_speech import GROUP, Clip, TeachingSpeech, teaching_texts
from conjure.data.telephone_prompts import PROMPTS
from conjure.media.captions import Format, Segment
from conjure.media.text import Text
from conjure.models.ear import HOP, LEAST, MEL, Ear, EarConfig, features
from conjure.models.folder import load_weights, read_config, save_weights, weights_digest, write_config
from conjure.models.listener import Asked, Heard, Listener
from conjure.models.proof_ear import heard, load_ear
from conjure.models.word_ngram import WordNGram
from conjure.tasks import ear_figures as figures
from conjure.tasks.inputs import LOCAL
from conjure.tasks.transcript import Listened, transcripts

PHONES_WEIGH, WRITER_WEIGHS = 0.3, 0.5
"""Of a frame's phone, and of a letter by the writer, beside a letter by CTC."""
WEIGHT, BONUS, STRANGE_LETTER = 0.4, 0.5, 5.0
"""Of the words' likelihood beside that of the letters; for each word; what a letter of a strange word costs."""
SHAPES = 64
"""Frames of 10 ms to whose multiples batches are filled up, for kernels are prepared anew for each shape."""
TRUST = 0.5
"""Of the writer's opinion beside that of CTC."""
DOUBT = -1.35
"""Nats a letter by the writer below which a part is no speech: of 24 sentences of LJSpeech none has less than -0.82,
of a song's eight parts none more than -1.52 (chosen for older weights, which had -1.11 and one part above)."""


@plain_dataclass(frozen=True, kw_only=True)
class EarData:
    blocks: int = 8
    """Rounds of 64 texts by each of the five voices that are in the pool at first."""
    grow: int = 60
    """Groups of 12 examples after which one more joins."""
    spectral: tuple[int, int] = (0, 0)
    """The first group of examples in which stretches of time and of bands are hidden and bands are moved, and the
    first in which they no longer are (SpecAugment, Park et al. 2019, arXiv 1904.08779; vocal tract length, Jaitly and
    Hinton 2013)."""
    swapped: float = 0.0
    """Share of the letters before that the writer is told wrongly, so that it listens and does not only guess."""
    books: tuple[str, ...] = ()
    """Sets of books whose sentences the model of words knows too."""
    digits: float = 0.15
    """Share of groups of 12 examples that are digits by real people."""
    prompts: float = 0.0
    """Share of groups that are prompts of a telephone exchange, by one real person."""
    start: str = ""
    """A model whose weights training begins with; what they lack begins anew."""

    def hides(self, index: int) -> bool:
        """Whether that is done to this example."""
        return self.spectral[0] <= index // GROUP < self.spectral[1]


@dataclass(frozen=True, kw_only=True)
class EarOptions:
    language: str = Field(default="", description="English is what it knows; another language is refused")
    beams: int = Field(default=32, ge=1, le=64, description="texts that are followed at once (1: letters alone)")
    gate: bool = Field(default=True, description="read only where somebody may be speaking, by loudness")
    batch: int = Field(default=8, ge=1, le=256, description="parts that are read together: more is faster and larger")
    words: bool = Field(default=False, description="the time of every word too, in the JSON")
    format: Format = Field(default="txt", description="how the text is laid out")
    width: int = Field(default=0, ge=0, le=500, description="characters of a line of captions (0: no end)")
    lines: int = Field(default=2, ge=1, le=20, description="lines of a caption, where they have a width; takes words")
    who: bool = Field(default=False, description="name who speaks, by starter/who: Speaker 1, Speaker 2 and so on")
    known: tuple[str, ...] = Field(default=(), json_schema_extra=LOCAL, description="a sound of somebody who may speak "
                                   "and is called as its file is; may be given several times")  # fmt: skip
    translate: bool = Field(default=False, description="into English: what it writes already is")
    prompt: str = Field(default="", description="not used: names and words to expect")
    temperature: float = Field(default=0, ge=0, le=1, description="not used: nothing is drawn")


class EarTask:
    """audio -> text. `source` is there while the network trains; a loaded one has none."""

    Options: type[Any] = EarOptions
    ModelConfig = EarConfig
    DataConfig = EarData
    causal = False

    @property
    def sets(self) -> tuple[str, ...]:
        return ("ljspeech_text", "fsdd", *([PROMPTS] if self.data.prompts else []), *self.data.books)

    def __init__(self, config: EarConfig, network: Ear, data: EarData, *, source: TeachingSpeech | None = None,
                 words: WordNGram | None = None, digest: str = "", seed: int = 0) -> None:  # fmt: skip
        self.config, self.network, self.data, self.source, self.seed = config, network, data, source, seed
        self.words, self.digest = words, digest

    @classmethod
    def create(cls, model: EarConfig, data: EarData, seed: int = 0) -> EarTask:
        source = TeachingSpeech(seed, blocks=data.blocks, grow=data.grow, digits=data.digits, prompts=data.prompts)
        with randomness.drawing_weights(seed):
            network = Ear(model)
        if data.start:
            new, begun = network.state_dict(), load_ear(shelf.find(data.start)).state_dict()
            wrong = [name for name, weight in begun.items() if name not in new or weight.shape != new[name].shape]
            if wrong:
                raise ConjureError(f"data.start: {data.start} does not fit this network: {', '.join(wrong[:3])}",
                                   hint="give model the shapes that its config.json has")  # fmt: skip
            network.load_state_dict(new | begun)
        return cls(model, network, data, source=source, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> EarTask:
        """The model in a folder, ready to listen."""
        saved = read_config(folder)
        config = from_dict(EarConfig, saved["model"], where="model")
        network = Ear(config)
        load_weights(network, folder / "model.safetensors")
        data = from_dict(EarData, saved["data"], where="data")
        return cls(config, network.eval().requires_grad_(False), data, words=WordNGram.load(folder),
                   digest=weights_digest(folder))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`mel` `[B, T, M]`, `lengths` `[B]`, `letters` `[B, L]`, `counts` `[B]`, `phones` `[B, S]` (-1 is unknown) and
        `before` `[B, L]` (see `EarData.swapped`)."""
        assert self.source is not None
        clips = [self.source.example(index) for index in indices]
        mels = [features(torch.from_numpy(clip.samples)) for clip in clips]
        mels = [_masked(mel_TM, rng(derive(self.seed, "mask", n))) if self.data.hides(n) else mel_TM
                for n, mel_TM in zip(indices, mels, strict=True)]  # fmt: skip
        texts = [encode(clip.text) for clip in clips]
        T = -(-max(map(len, mels)) // SHAPES) * SHAPES
        phones_BS = torch.full((len(clips), T // 4), -1)
        for row_S, clip in zip(phones_BS, clips, strict=True):
            if clip.phones is not None and clip.ends is not None and len(clip.ends):
                count = min(int(clip.ends[-1]) // HOP, len(row_S))
                at = np.searchsorted(clip.ends, (np.arange(count) + 0.5) * HOP)
                row_S[:count] = torch.from_numpy(clip.phones[at].astype(np.int64))
        before = [self._swapped(ids, n) for n, ids in zip(indices, texts, strict=True)]
        return {
            "mel": torch.stack([nn.functional.pad(mel, (0, 0, 0, T - len(mel))) for mel in mels]),
            "lengths": torch.tensor([len(mel) for mel in mels]),
            "letters": _padded(texts), "before": _padded(before),
            "counts": torch.tensor([len(ids) for ids in texts]), "phones": phones_BS,
        }  # fmt: skip

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(nats of the letters, and a share of those of the writer and of the phones; number of letters)."""
        called = self.network if network is None else network
        texts, written, phones = called(batch["mel"], batch["lengths"], batch["letters"], batch["counts"],
                                        batch["phones"], batch["before"])  # fmt: skip
        return texts + WRITER_WEIGHS * written + PHONES_WEIGH * phones, batch["counts"].sum()

    def _swapped(self, ids: Sequence[int], index: int) -> Sequence[int]:
        """Letters, some of them other ones."""
        if not self.data.swapped:
            return ids
        draw = rng(derive(self.seed, "swapped", index))
        other = draw.integers(1, len(SYMBOLS), size=len(ids))
        return np.where(draw.random(len(ids)) < self.data.swapped, other, ids).tolist()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """float32 `[B, S, V]`."""
        return self.network.logits(batch["mel"], batch["lengths"])[0]

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return int(batch["mel"].shape[0] * batch["mel"].shape[1] // 4)

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(*batch["mel"].shape[:2])

    def describe(self, batch: dict[str, Tensor]) -> str:
        rows = []
        for ids, count, length in zip(batch["letters"], batch["counts"], batch["lengths"], strict=True):
            text = "".join(SYMBOLS[n] for n in ids[: int(count)])
            rows.append(f"  {int(length) * MEL.hop / MEL.rate:.1f} s: {text or '(nobody speaks)'}")
        return "\n".join([f"{len(rows)} sounds, every letter carries loss:", *rows])

    def preview(self, seed: int) -> dict[str, Any]:
        """What is heard in the first sentences of the validation part."""
        clips = figures.synthetic(4)
        rows = [f"said:  {clip.text}\nheard: {text}" for clip, text in zip(clips, self.heard(clips), strict=True)]
        return {"heard": Text("\n".join(rows))}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Word and character errors on synthetic sentences that no training saw."""
        clips = figures.synthetic(limit)
        return figures.rates(self.heard(clips), clips)

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="ear", task="ear", network=self.network, sections={
            "model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        words = self.words or (learnt_words(self.data.books) if self.source is not None else None)
        if words is not None:
            words.save(folder)

    # ---------------------------------------------------------------- use
    @torch.inference_mode()
    def hear(self, parts: Sequence[Floats]) -> list[Heard]:
        """What is made of sounds at 16 kHz."""
        training = self.network.training
        self.network.eval()
        found = heard(self.network, parts)
        self.network.train(training)
        return found

    def listener(self, *, beams: int = 1) -> Listener:
        """With more than one beam, words that are likely behind each other are preferred."""
        tongue = self.words.tongue(WEIGHT, BONUS, STRANGE_LETTER) if beams > 1 and self.words else None
        return Listener(self.hear, SYMBOLS, rate=MEL.rate, hop=HOP, least=LEAST, seconds=20.0, beams=beams,
                        tongue=tongue, trust=TRUST, doubt=DOUBT, write=sentence, language="en")  # fmt: skip

    def heard(self, clips: Sequence[Clip], *, beams: int = 1) -> list[str]:
        """The letters of each clip, read whole."""
        listener, order = self.listener(beams=beams), sorted(range(len(clips)), key=lambda n: len(clips[n].samples))
        found: dict[int, str] = {}
        for start in range(0, len(order), GROUP):
            some = order[start : start + GROUP]
            found |= zip(some, map(listener.text, self.hear([clips[n].samples for n in some])), strict=True)
        return [found[n] for n in range(len(clips))]

    long = True

    def generate(self, inputs: Sequence[Any], options: EarOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One text per seed, all the same; a single one comes segment by segment."""
        if options.language and name_of(options.language) != "English":
            raise ConjureError(f"this ear knows English alone, not {name_of(options.language)}",
                               hint="take a public model, such as --model openai/whisper-base")  # fmt: skip
        for name in ("prompt", "temperature"):
            if getattr(options, name):
                yield Warn(f"this ear writes what it hears: --{name} changes nothing")
        captions = options.width > 0 and options.format in ("srt", "vtt")
        words = options.words or captions or options.who or bool(options.known)
        gate = VoiceActivity() if options.gate else None
        listener = self.listener(beams=options.beams)

        def read(samples_N: Floats, seed: int, voice: VoiceActivity | None) -> Iterator[tuple[list[Segment], float]]:
            return listener.transcribe(samples_N, Asked(words=words, voice=voice, batch=options.batch), seed)

        name = f"{self.digest} {options.beams} {words} {options.gate}"
        yield from transcripts(inputs, Listened(read=read, rate=MEL.rate, name=name, voice=gate), options, seeds)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Word errors on synthetic and on real sound apart, digits of a speaker that training never heard, and words
        that nobody said."""
        return figures.published(self, on_progress)


def learnt_words(books: Sequence[str] = ()) -> WordNGram:
    """From the sentences that may be taught, and from those of books without numbers in digits."""
    read = split(documents(books))[0] if books else ()
    found = (expanded(each) for one in read for part in one.text.split("\n\n") for each in sentences(part))
    return WordNGram.learnt(teaching_texts(), [each for each in found if not re.search(r"\d", each)])


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """int64 `[B, L]`, with room for an end L + 1 a multiple of 16: few shapes here too."""
    found_BL = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.long) for ids in rows], True)
    return nn.functional.pad(found_BL, (0, 15 - found_BL.shape[1] % 16))


def _masked(mel_TM: Tensor, draw: np.random.Generator) -> Tensor:
    """Bands moved by up to a tenth; then stretches hidden: their mean is 0."""
    T, M = mel_TM.shape
    factor = draw.uniform(0.9, 1.1)
    at_M = (torch.arange(M) * factor).clamp_max(M - 1)
    low_M, part_M = at_M.long(), at_M.frac()
    mel_TM = mel_TM[:, low_M] * (1 - part_M) + mel_TM[:, (low_M + 1).clamp_max(M - 1)] * part_M
    for _ in range(2):
        width = int(draw.integers(0, 14))
        first = int(draw.integers(M - width))
        mel_TM[:, first : first + width] = 0
    for _ in range(max(1, T // 300)):
        width = int(draw.integers(0, min(26, T // 8) + 1))
        first = int(draw.integers(T - width))
        mel_TM[first : first + width] = 0
    return mel_TM
