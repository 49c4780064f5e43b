"""text -> audio: music as a text describes it, by public MusicGen models.

Legend: B samples, Q books, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.codecs.tokenizer import Tokenizer
from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.decoding.delay_pattern import Drawing, write
from conjure.media.audio import Audio
from conjure.models.checkpoint import Checkpoint
from conjure.models.musicgen import Guided, MusicGen
from conjure.models.public.load import build


@dataclass(frozen=True, kw_only=True)
class ComposeSoundOptions:
    seconds: float = Field(default=8.0, gt=0, le=120, description="how long (the published models learnt 30)")
    guidance: float = Field(default=3.0, ge=1, le=20, description="how much the text counts (1: as the model has it)")
    temperature: float = Field(default=1.0, ge=0, le=2, description="1: as trained; 0: the likeliest codes")
    top_k: int = Field(default=250, ge=0, le=65536, description="draw among so many of the likeliest (0: all)")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw among the likeliest with this share")


class ComposeSound:
    Options = ComposeSoundOptions

    def __init__(self, network: MusicGen, tokenizer: Tokenizer) -> None:
        self.network, self.tokenizer = network, tokenizer

    @classmethod
    def load(cls, folder: Path) -> ComposeSound:
        network, _ = build(shelf.read_config(folder), Checkpoint(folder), torch.float32)
        if not isinstance(network, MusicGen):
            raise ConjureError(f"{folder.name} is no model of music", hint="for example: facebook/musicgen-small")
        return cls(network, Tokenizer.load(folder))

    @torch.no_grad()
    def generate(self, inputs: Sequence[Any], options: ComposeSoundOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One sound per seed, each drawn by its own seed alone."""
        text = " ".join(str(each) for each in inputs).strip()
        if not text:
            raise ConjureError("an empty text describes no music", hint='for example: "slow jazz with a double bass"')
        config, codec = self.network.config, self.network.config.codec
        memory_1MD = self.network.read(torch.tensor([self.tokenizer.encode(text, special=True)]))
        frames = max(1, round(options.seconds * codec.rate / codec.hop))
        how = Drawing(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
        none_BQT = made_BQT = torch.zeros(len(seeds), config.writer.books, 0, dtype=torch.long)
        guided, pad = Guided(self.network, memory_1MD, options.guidance), self.network.writer.pad
        for done, made_BQT in write(  # noqa: B007
            guided, none_BQT, frames, pad, seeds, how, together=config.channels
        ):
            yield Progress(done, frames, "frame")
        sounds = [self._sound(codes_QT) for codes_QT in made_BQT]
        yield Result(sounds, {"codes": frames * config.writer.books, "seconds": frames * codec.hop / codec.rate})

    def _sound(self, codes_QT: Tensor) -> Audio:
        made_CN = self.network.sound(codes_QT[None])[0].clamp(-1, 1)
        return Audio(np.ascontiguousarray(made_CN.numpy(), np.float32), self.network.config.codec.rate)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        raise ConjureError("a public model of music has no published figures of ours", hint="listen to it")
