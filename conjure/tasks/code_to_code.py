"""text -> text: a decoder that fills a gap in a Python file, from what stands before it and after it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.codecs.code_tokenizer import MIDDLE, PREFIX, SUFFIX, train_code
from conjure.codecs.tokenizer import END, Tokenizer
from conjure.core import seeds as randomness
from conjure.core import shelf
from conjure.core.config import from_dict, to_dict
from conjure.core.device import read_rate
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.data.books import Document, split, tokenize, trained_tokenizer
from conjure.data.fill_middle import FillMiddle, Gaps, Marks, arranged
from conjure.data.packing import Packed
from conjure.data.python_code import code_documents
from conjure.decoding.generate import Decoding, generate
from conjure.media.text import Text
from conjure.models.folder import read_config, write_config
from conjure.models.public.save import load_transformer, save_transformer
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.tasks.causal import CausalTraining, seeded
from conjure.tasks.gap_evaluation import gap_figures
from conjure.tasks.text_evaluation import measure

PREVIEW = "def read(path):\n    with open(path) as file:\n        ", "\n\n\ndef write(path, text):\n"
EVALUATION_ROWS = 16
MIDDLE_ROOM = 96
"""Tokens of the context that are kept free for what is written."""


@plain_dataclass(frozen=True, kw_only=True)
class CodeData:
    """`sets` are names of data sets whose .py files are the documents."""

    sets: tuple[str, ...] = ()
    length: int = 512
    """Tokens the network reads at once."""
    gaps: Gaps = field(default_factory=Gaps)
    start: str = ""
    """A model whose weights and tokenizer training begins with."""


@dataclass(frozen=True, kw_only=True)
class CodeToCodeOptions:
    at: str = Field(default="", description="where: LINE:COLUMN, or LINE:COLUMN-LINE:COLUMN for what to replace; the "
                                            "first line is 1, the first column 0; nothing is the end")  # fmt: skip
    tokens: int = Field(default=64, ge=1, le=10_000, description="how many tokens to write at most")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 takes the likeliest token, more is bolder")
    top_p: float = Field(default=0.95, ge=0, le=1, description="draw among the likeliest tokens of this probability")


class CodeToCode(CausalTraining[Transformer]):
    Options = CodeToCodeOptions
    ModelConfig = TransformerConfig
    DataConfig = CodeData

    def __init__(
        self, network: Transformer, tokenizer: Tokenizer, data: CodeData, *,
        training: FillMiddle | None = None, validation: Packed | None = None, bytes_per_token: float = 1.0,
    ) -> None:  # fmt: skip
        self.network, self.tokenizer, self.data, self.marks = network, tokenizer, data, _marks(tokenizer)
        self.training, self.validation, self.bytes_per_token = training, validation, bytes_per_token

    @property
    def sets(self) -> tuple[str, ...]:
        return self.data.sets

    @classmethod
    def create(cls, model: TransformerConfig, data: CodeData, seed: int = 0) -> CodeToCode:
        """A new model with a tokenizer of `model.vocab` tokens of its own, trained on the training files; or one that
        goes on from `data.start`."""
        training, validation = split(code_documents(data.sets))
        if data.start:
            begun = cls.load(shelf.find(data.start))
            network, tokenizer = begun.network.train().requires_grad_(True), begun.tokenizer
            if network.config != model:
                raise ConjureError(f"data.start: {data.start} has another shape than `model` says",
                                   hint="copy the `model` section of its recipe")
        else:
            tokenizer = trained_tokenizer(training, model.vocab, train_code)
            network = seeded(lambda: Transformer(model), seed)
        seen, unseen = tokenize(training, tokenizer), tokenize(validation, tokenizer)
        rows = Packed(seen.ids, seen.borders, data.length, randomness.derive(seed, "data"))
        return cls(
            network, tokenizer, data,
            training=FillMiddle(
                rows, encode=tokenizer.encode, decode=tokenizer.decode, marks=_marks(tokenizer), gaps=data.gaps
            ),
            validation=Packed(unseen.ids, unseen.borders, data.length),
            bytes_per_token=sum(unseen.bytes) / len(unseen.ids),
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> CodeToCode:
        """A trained model, ready for use."""
        saved = read_config(folder)
        network = load_transformer(folder, saved)
        data = from_dict(CodeData, saved.get("data", {}), where=f"{folder}: data")
        return cls(network, Tokenizer.load(folder), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        assert self.training is not None
        return self.training.batch(indices)

    def preview(self, seed: int) -> dict[str, Text]:
        """A gap in a small file, filled."""
        before, after = PREVIEW
        (piece,) = self.fill([PREVIEW], CodeToCodeOptions(), [seed])
        return {"filled": Text(before + piece + after)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Bits per byte of rows of the held-out files, read from left to right, evenly spread where there is a
        `limit`."""
        assert self.validation is not None
        rows = self.validation.rows[:: max(1, len(self.validation) // limit) if limit else 1][:limit]
        total, count = 0.0, 0
        for start in range(0, len(rows), EVALUATION_ROWS):
            value, n = self.loss(self.validation.batch(rows[start : start + EVALUATION_ROWS]))
            total, count = total + value.item(), count + int(n)
        loss = total / count
        return {"bits_per_byte": loss / math.log(2) / self.bytes_per_token, "loss": loss}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        said = save_transformer(folder, self.network, weights, dtype=dtype, length=self.data.length)
        sections = {**said, "model": to_dict(self.network.config), "data": to_dict(self.data)}
        write_config(folder, kind="transformer", task="code_to_code", network=self.network, sections=sections)
        self.tokenizer.save(folder)

    # ---------------------------------------------------------------- use
    @staticmethod
    def forecast(folder: Path, options: CodeToCodeOptions, count: int) -> dict[str, Any]:
        """`seconds`: every token reads every weight once, as fast as memory gives them."""
        return {"seconds": count * options.tokens * 4 * read_config(folder)["parameters"] / read_rate()}

    def generate(self, inputs: Sequence[Text], options: CodeToCodeOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The whole file, once per seed, with what was written in the gap; `facts["filled"]` are the pieces alone."""
        if len(inputs) != 1:
            raise ConjureError(f"expected one file of code, got {len(inputs)}")
        before, after = cut(inputs[0].text, options.at)
        pieces = []
        for done, seed in enumerate(seeds):
            yield Progress(done, len(seeds), "text")
            pieces += self.fill([(before, after)], options, [seed])
        whole = [before + piece + after for piece in pieces]
        yield Result([Text(each if each.endswith("\n") else each + "\n") for each in whole], {"filled": pieces})

    def fill(
        self, places: Sequence[tuple[str, str]], options: CodeToCodeOptions, seeds: Sequence[int]
    ) -> list[str]:
        """What is likely to stand between (before, after), in PSM order, for each of the places; the nearest of both
        sides is read, as much as has room."""
        marks = self.marks
        made = generate(
            self.network, self.tokenizer, [self._prompt(*place) for place in places],
            Decoding(tokens=options.tokens, temperature=options.temperature, top_p=options.top_p),
            seeds=seeds, end=(marks.end, marks.prefix, marks.suffix, marks.middle),
        )  # fmt: skip
        return [each.text for each in made]

    def _prompt(self, before: str, after: str) -> list[int]:
        room = max(8, self.data.length - min(MIDDLE_ROOM, self.data.length // 4) - 4)
        nearest = 12 * self.data.length  # characters that can matter at all; a long file is not encoded whole
        prefix, suffix = self.tokenizer.encode(before[-nearest:]), self.tokenizer.encode(after[:nearest])
        behind = min(len(suffix), max(room // 3, room - len(prefix)))
        ahead = min(len(prefix), room - behind)
        return arranged(prefix[len(prefix) - ahead :], [], suffix[:behind], self.marks, "psm")[:-1]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Of the held-out files of `data` (the model's own sets): gaps of one line and of half a line, and bits per
        byte."""
        held_out = _held_out(tuple(data) or self.sets, self.sets)

        def fill(places: Sequence[tuple[str, str]]) -> list[str]:
            return self.fill(places, CodeToCodeOptions(), [0] * len(places))

        end = self.tokenizer.end
        assert end is not None, "a tokenizer of code has an end"
        figures = gap_figures(fill, held_out, on_progress)
        what = f"{len(held_out)} held-out files of {', '.join(data or self.sets)}"
        return figures | measure(
            self.network, self.tokenizer, held_out, what, context=self.data.length, on_progress=on_progress
        )


def cut(text: str, at: str) -> tuple[str, str]:
    """What stands before and after the gap that `at` names; `ConjureError` where the text has no such place."""
    if not at:
        return text, ""
    match = re.fullmatch(r"(\d+):(\d+)(?:-(\d+):(\d+))?", at)
    if not match:
        raise ConjureError(f"--at: expected LINE:COLUMN or LINE:COLUMN-LINE:COLUMN, got {at!r}", hint="as in --at 12:8")
    numbers = [int(number) for number in match.groups() if number is not None]
    places = [_place(text, line, column) for line, column in zip(numbers[::2], numbers[1::2], strict=True)]
    if places[-1] < places[0]:
        raise ConjureError(f"--at {at}: the gap ends before it begins", hint="swap the two places")
    return text[: places[0]], text[places[-1] :]


def _place(text: str, line: int, column: int) -> int:
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise ConjureError(f"--at {line}:{column}: the text has lines 1 to {len(lines)}")
    if column > len(lines[line - 1]):
        raise ConjureError(f"--at {line}:{column}: line {line} has columns 0 to {len(lines[line - 1])}")
    return sum(len(each) + 1 for each in lines[: line - 1]) + column


def _marks(tokenizer: Tokenizer) -> Marks:
    found = [tokenizer.backend.token_to_id(mark) for mark in (PREFIX, SUFFIX, MIDDLE, END)]
    ids = [each for each in found if each is not None]
    if len(ids) < len(found):
        raise ConjureError(
            "this model's tokenizer has no marks for gaps", hint="only models trained as code_to_code can fill them"
        )
    return Marks(*ids)


def _held_out(names: tuple[str, ...], own: tuple[str, ...]) -> list[Document]:
    """Of the model's own sets the files that it has not read, of others all."""
    return split(code_documents(names))[1] if set(names) & set(own) else code_documents(names)
