"""Small tasks that need no training, found through the entry-point group as a plugin's would be."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from conjure.core.events import Delta, Event, Progress, Result, Warn
from conjure.media import Image, Text
from conjure.models.folder import load_weights
from conjure.tasks.table import Edge


@dataclass(frozen=True, kw_only=True)
class ParrotOptions:
    tokens: int = Field(3, ge=1, le=100, description="how many words to add")
    top_p: float = Field(1.0, gt=0, le=1, description="share of the probability to draw from")
    stop: tuple[str, ...] = Field((), description="stop before this text")
    loud: bool = Field(False, description="write in capitals")


class Parrot:
    """Adds the seed again and again."""

    Options = ParrotOptions

    @classmethod
    def load(cls, folder: Path) -> Parrot:
        return cls()

    def generate(self, inputs: Sequence[Text], options: ParrotOptions, seeds: Sequence[int]) -> Iterator[Event]:
        prompt = inputs[0].text
        yield Delta(prompt)
        if "interrupt" in prompt:
            yield Delta(" half")
            os.kill(os.getpid(), signal.SIGINT)
        made = []
        for seed in seeds:
            words = [f" {seed}"] * options.tokens
            words = [word for word in words if word.strip() not in options.stop]
            for done, word in enumerate(words, start=1):
                yield Progress(done, len(words), "token")
                yield Delta(word.upper() if options.loud else word)
            made.append(Text(prompt + "".join(words)))
        yield Result(made, {"tokens": options.tokens * len(seeds)})

    def evaluate_published(
        self, data: Sequence[str], on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        if on_progress is not None:
            on_progress(Progress(1, 1, "book"))
        return {"bits_per_byte": {"value": 1.25, "low": 1.0, "high": 1.5, "n": 10, "protocol": f"on {list(data)}"}}


@dataclass(frozen=True, kw_only=True)
class DaubOptions:
    steps: int = Field(2, ge=1, le=1000, description="steps of the sampler")
    guidance: float = Field(1.0, ge=0, le=30, description="how strongly the prompt pulls")
    sampler: Literal["euler", "heun"] = Field("euler", description="how the noise is removed")


class Daub:
    """A plain picture whose colour is the seed's and whose width is the prompt's length."""

    Options = DaubOptions

    @classmethod
    def load(cls, folder: Path) -> Daub:
        load_weights(nn.Linear(1, 1), folder / "model.safetensors")
        return cls()

    @staticmethod
    def forecast(folder: Path, options: DaubOptions, count: int) -> dict[str, Any]:
        return {"memory_bytes": 5_000_000, "seconds": 0.5 * options.steps * count}

    def generate(self, inputs: Sequence[Text], options: DaubOptions, seeds: Sequence[int]) -> Iterator[Event]:
        prompt = inputs[0].text
        if "zyx" in prompt:
            yield Warn("this model has not learnt 'zyx'")
        for step in range(options.steps):
            if "interrupt" in prompt and step:
                os.kill(os.getpid(), signal.SIGINT)
            yield Progress(step + 1, options.steps)
        yield Result([Image(np.full((8, 8 + len(prompt), 3), seed % 256, np.uint8)) for seed in seeds], {})


@dataclass(frozen=True, kw_only=True)
class MirrorOptions:
    """None."""


class Mirror:
    """The picture from right to left."""

    Options = MirrorOptions

    @classmethod
    def load(cls, folder: Path) -> Mirror:
        return cls()

    def generate(self, inputs: Sequence[Image], options: MirrorOptions, seeds: Sequence[int]) -> Iterator[Event]:
        yield Result([Image(inputs[0].pixels[:, ::-1].copy())] * len(seeds), {})


EDGES = (
    Edge(("text",), "text", "continue", "tests.stand_ins:Parrot", "starter/parrot", "says it again"),
    Edge(("text",), "image", "draw", "tests.stand_ins:Daub", "starter/daub", "paints"),
    Edge(("image",), "image", "mirror", "tests.stand_ins:Mirror", "starter/daub", "turns round", made_by=("draw",)),
)
"""All three live in one module, so their model folders name the task by its verb."""
