"""text -> text: the same in English or in Spanish, by an encoder-decoder that learnt both ways at once.

The source begins with a mark of the language to write in (Johnson et al. 2017, arXiv 1611.04558).

Legend: B rows, M tokens of the source, T tokens of the target.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from tokenizers import AddedToken
from torch import Tensor, nn

from conjure.codecs.language_names import code_of, name_of
from conjure.codecs.tokenizer import END, Tokenizer, train_bpe
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result, Warn
from conjure.data import sentence_pairs
from conjure.data.sentence_pairs import LANGUAGES, Drill
from conjure.decoding.generate import Decoding, generate
from conjure.media.text import Text
from conjure.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.nn.cross_entropy import IGNORED
from conjure.tasks import translation_figures as figures
from conjure.tasks.asked_language import languages, likely
from conjure.tasks.passages import passages
from conjure.tasks.public import parted

MARKS = tuple(f"<|{code}|>" for code in LANGUAGES)
TWICE = "encoder.embed.weight"
"""The embedding of both stacks, which a file holds once: as the decoder's."""
AT_ONCE = 64
"""Sentences that are read together."""
SHOWN = (("es", "Where is the library?"), ("es", "I don't think Tom will come tomorrow."),
         ("en", "¿Dónde está la biblioteca?"), ("en", "No creo que Tom venga mañana."))  # fmt: skip


@plain_dataclass(frozen=True, kw_only=True)
class TranslationData:
    length: int = 48
    """Tokens of the longest sentence, on either side; longer pairs are not taught, longer sentences are cut in use."""
    block: int = 64
    """So many examples after each other are of nearly one length."""
    smoothing: float = 0.1
    """Share of the target that is spread over all tokens."""


@dataclass(frozen=True, kw_only=True)
class TranslationOptions:
    target: str = Field(default="", description="into which language, by name or code (none: the one it is not in)")
    source: str = Field(default="", description="the language the text is in (none: found by its words)")
    beams: int = Field(default=4, ge=1, le=64, description="how many translations are searched at once; 1 is fastest")
    length_penalty: float = Field(default=1.0, ge=-10, le=10, description="above: longer ones win, where searched")
    temperature: float = Field(default=0.0, ge=0, le=10, description="above 0: words are drawn, with --beams 1")


class Translation:
    """`drill` and `pairs` are there while the model trains; a loaded one has none."""

    Options = TranslationOptions
    ModelConfig = EncoderDecoderConfig
    DataConfig = TranslationData
    causal = True
    sets = (sentence_pairs.SET,)

    def __init__(self, network: EncoderDecoder, tokenizer: Tokenizer, data: TranslationData, *, seed: int = 0,
                 taught: Sequence[tuple[list[int], list[int]]] = ()) -> None:
        self.network, self.tokenizer, self.data = network, tokenizer, data
        found = [index for token in (END, *MARKS) if (index := tokenizer.id(token)) is not None]
        if len(found) <= len(MARKS):
            raise ConjureError("this tokenizer has no marks for languages", hint="only models of the task translation")
        self.end = found[0]
        self.marks: dict[str, int] = dict(zip(LANGUAGES, found[1:], strict=True))
        # Both ways of each pair: the language to write in is the second part of an example.
        self.taught = [(pair, into) for pair in taught for into in (0, 1)]
        self.drill = Drill([(len(pair[1 - into]), len(pair[into])) for pair, into in self.taught], data.block, seed)

    @classmethod
    def create(cls, model: EncoderDecoderConfig, data: TranslationData, seed: int = 0) -> Translation:
        """A new model, with a tokenizer of `model.decoder.vocab` tokens, trained on the sentences it learns from."""
        pairs = [pair for group in sentence_pairs.groups("train") for pair in group]
        tokenizer = with_marks(train_bpe((text for pair in pairs for text in pair), model.decoder.vocab - len(MARKS)))
        with randomness.drawing_weights(seed):
            network = EncoderDecoder(model)
        sides = [tokenizer.encode_batch([pair[side] for pair in pairs]) for side in (0, 1)]
        taught = [pair for pair in zip(*sides, strict=True) if max(map(len, pair)) < data.length]
        return cls(network, tokenizer, data, seed=seed, taught=taught)

    @classmethod
    def load(cls, folder: Path) -> Translation:
        """The model in a folder, ready to translate."""
        saved = read_config(folder)
        network = EncoderDecoder(from_dict(EncoderDecoderConfig, saved["model"], where=f"{folder}: model"))
        network.encoder.embed = None
        load_weights(network, folder / "model.safetensors")
        network.encoder.embed = network.decoder.embed
        data = from_dict(TranslationData, saved["data"], where=f"{folder}: data")
        return cls(network.eval().requires_grad_(False), Tokenizer.load(folder), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`source` int64 `[B, M]`, `ids` and `targets` `[B, T]`, and `mask` bool `[B, M]` where sources differ in
        length."""
        return self._laid([self.taught[self.drill.example(index)] for index in indices])

    def _laid(self, examples: Sequence[tuple[tuple[list[int], list[int]], int]]) -> dict[str, Tensor]:
        sources = [[self.marks[LANGUAGES[into]], *pair[1 - into]] for pair, into in examples]
        written = [pair[into] for pair, into in examples]
        batch = {
            "source": padded(sources, self.end),
            "ids": padded([[self.end, *ids] for ids in written], self.end),
            "targets": padded([[*ids, self.end] for ids in written], IGNORED),
        }
        return batch | masks(sources)

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(summed smoothed cross-entropy in nats, number of targets)."""
        called = self.network if network is None else network
        total = called(batch["source"], batch["ids"], mask_BM=batch.get("mask"), targets=batch["targets"],
                       smoothing=self.data.smoothing)  # fmt: skip
        return total, (batch["targets"] != IGNORED).sum()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """float32 `[B, T, V]`."""
        return self.network(batch["source"], batch["ids"], mask_BM=batch.get("mask"))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["source"].numel() + batch["ids"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass. The encoder has no head."""
        encoder = self.network.encoder
        head = 2.0 * batch["source"].numel() * encoder.config.vocab * encoder.config.dim * encoder.config.tie
        return 3 * (encoder.flops(*batch["source"].shape) - head + self.network.decoder.flops(*batch["ids"].shape))

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Each source with its mark, and what carries loss."""
        lines = []
        for source_M, targets_T in zip(batch["source"].tolist(), batch["targets"].tolist(), strict=True):
            read = self.tokenizer.decode(source_M, skip_special=False).replace(END, "")
            lines.append(f"  {read!r} -> {self.tokenizer.decode([i for i in targets_T if i != IGNORED])!r}")
        return "\n".join(lines)

    def preview(self, seed: int) -> dict[str, Text]:
        """Four sentences, translated."""
        lines = [f"{text}\n-> {self.translated([text], into)[0]}" for into, text in SHOWN]
        return {"translations": Text("\n\n".join(lines) + "\n")}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Nats a token, unsmoothed, over the validation part, evenly spread where there is a `limit`."""
        pairs = [pair for group in sentence_pairs.groups("valid") for pair in group]
        pairs = pairs[:: max(1, len(pairs) // limit) if limit else 1][:limit]
        total, count = 0.0, 0
        for into in (0, 1):
            examples = [((self._read(first), self._read(second)), into) for first, second in pairs]
            for start in range(0, len(examples), AT_ONCE):
                batch = self._laid(examples[start : start + AT_ONCE])
                total += float(self.network(batch["source"], batch["ids"], mask_BM=batch.get("mask"),
                                            targets=batch["targets"]))  # fmt: skip
                count += int((batch["targets"] != IGNORED).sum())
        return {"loss": total / count, "perplexity": math.exp(total / count)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        state = dict(self.network.state_dict() if weights is None else weights)
        shared = state.pop(TWICE, None)
        if shared is not None:
            state[TWICE.replace("encoder", "decoder")] = shared
        write_config(folder, kind="encoder_decoder", task="translation", network=self.network, sections={
            "languages": list(LANGUAGES), "model": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "model", state, dtype=dtype)
        self.tokenizer.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: TranslationOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One translation per seed, sentence by sentence, with the blanks and line ends of the text between them."""
        began = time.perf_counter()
        text, instruction = parted(inputs, "translate")
        if not text.strip():
            raise ConjureError("expected a text to translate, got an empty one", hint="name a file, or write the text")
        source, target = self._languages(text, *languages(instruction, options.source, options.target))
        if source == target:
            yield Warn(f"the text seems to be in {name_of(source)} already: it is given back (--source says otherwise)")
            yield Result([Text(text) for _ in seeds], {"source": source, "target": target, "sentences": 0})
            return
        parts = list(passages(text, lambda each: len(self._encoded(each)), self.data.length - 2, together=False))
        made: list[str] = ["" for _ in seeds]
        for start in range(0, len(parts), AT_ONCE):
            some = parts[start : start + AT_ONCE]
            ended = [with_end(part) for part, _ in some if part]
            for n, seed in enumerate(seeds):
                made_of = self.translated([text for text, _ in ended], target, options, randomness.derive(seed, start))
                found = iter(without_end(text, mark) for text, (_, mark) in zip(made_of, ended, strict=True))
                piece = "".join((next(found) if part else "") + blank for part, blank in some)
                made[n] += piece
                if len(seeds) == 1:
                    yield Delta(piece)
            yield Progress(min(start + AT_ONCE, len(parts)), len(parts), "sentence")
        facts = {"source": source, "target": target, "sentences": sum(bool(part) for part, _ in parts)}
        yield Result([Text(each) for each in made], facts | {"seconds": round(time.perf_counter() - began, 3)})

    def _languages(self, text: str, source: str, target: str) -> tuple[str, str]:
        """The codes of what is read and what is written, where they are not said by `likely`."""
        try:
            source, target = (code_of(said, LANGUAGES) if said else "" for said in (source, target))
        except ConjureError as error:
            raise ConjureError(f"{error.message}: it translates between English and Spanish",
                               hint="a public model may know it: --model org/name") from None
        if not source:
            source = likely(text)
        return source, target or next(code for code in LANGUAGES if code != source)

    def translated(
        self, texts: Sequence[str], into: str, options: TranslationOptions | None = None, seed: int = 0
    ) -> list[str]:
        """Each of some sentences in the language `into`, the likeliest where no seed draws."""
        if not texts:
            return []
        options = options or TranslationOptions(beams=1)
        sources = [[self.marks[into], *self._read(text)] for text in texts]
        longest = max(map(len, sources))
        decoding = Decoding(
            tokens=2 * longest + 10, temperature=options.temperature, beams=options.beams,
            length_penalty=options.length_penalty, suppress=tuple(self.marks.values()),
        )  # fmt: skip
        with torch.inference_mode():
            reading = self.network.reading(padded(sources, self.end), masks(sources).get("mask"))
        answers = generate(
            reading, self.tokenizer, [[self.end] for _ in sources], decoding, end=(self.end,),
            seeds=[randomness.derive(seed, n) for n in range(len(sources))],
        )  # fmt: skip
        return [each.text.strip() for each in answers]

    def _encoded(self, text: str) -> list[int]:
        """What reads like a mark inside a text stays text."""
        return self.tokenizer.encode(text)

    def _read(self, text: str) -> list[int]:
        return self._encoded(text)[: self.data.length - 1]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """BLEU and chrF of the held-out sentences, each way, greedy and searched."""

        def translate(texts: Sequence[str], into: str, beams: int) -> list[str]:
            return self.translated(texts, into, TranslationOptions(beams=beams))

        return figures.published(translate, on_progress)


def with_marks(tokenizer: Tokenizer) -> Tokenizer:
    """The same with a mark for each language behind its tokens."""
    backend = tokenizer.backend
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return Tokenizer(backend)


def with_end(text: str) -> tuple[str, str | None]:
    """(the text as a sentence that ends, what stood in place of the full stop or None): what was taught ended, and a
    line without an end is gone on with."""
    bare = text.rstrip(",;:-–— ")
    if not bare or not bare[-1].isalnum():
        return text, None
    return f"{bare}.", text[len(bare) :]


def without_end(text: str, mark: str | None) -> str:
    """The translation of such a sentence as what was given ended."""
    return text if mark is None else text.removesuffix(".") + mark


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """int64 `[B, longest]`."""
    laid = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for row, ids in zip(laid, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(laid)


def masks(rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """`mask` bool `[B, longest]`, true where there is a token; nothing where all are equally long."""
    lengths_B = torch.tensor([len(ids) for ids in rows])
    longest = int(lengths_B.max())
    return {} if bool((lengths_B == longest).all()) else {"mask": torch.arange(longest) < lengths_B[:, None]}
