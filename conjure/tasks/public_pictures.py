"""text -> image: what a text says, drawn by a public picture model (Stable Diffusion 1, 2, XL, 3, Flux, DiT).

A prompt, a seed, a sampler and its steps give the picture that diffusers gives. Pictures of one call are drawn one
after another, so each is the same alone and among others, and the memory is that of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.core.device import matmul_rate, pick
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.diffusion.names import canonical
from conjure.diffusion.schedule import schedule_from
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models import drawing_cost
from conjure.models.latent_diffusion import (
    GUIDANCE,
    STEPS,
    LatentDiffusion,
    TorchNoise,
    Wish,
    default_side,
    open_pipeline,
    tokens_of,
)
from conjure.models.prompts import Condition
from conjure.models.public.diffusers import Pipeline

SPARE = 1.1
"""What is needed beside weights and activations, as a share of both."""


@dataclass(frozen=True, kw_only=True)
class PublicPicturesOptions:
    """How a picture is drawn. What is left at 0 or none, the model decides."""

    steps: int = Field(default=0, ge=0, le=1000, description="steps of the sampler (0: as many as suit the model)")
    guidance: float | None = Field(default=None, ge=0, le=100, description="how strongly the prompt pulls; up to 1 "
                                   "nothing is compared with, which takes half the time (none: what suits the model)")
    rescale: float = Field(default=0.0, ge=0, le=1, description="takes back the glare of strong guidance; 0.7 is usual "
                           "for models that predict v")
    negative: str = Field(default="", description="what the picture should not show (needs guidance above 1)")
    size: int = Field(default=0, ge=0, le=8192, description="side of the picture in pixels (0: the model's own)")
    width: int = Field(default=0, ge=0, le=8192, description="its width, where it is not square (0: --size)")
    height: int = Field(default=0, ge=0, le=8192, description="its height, where it is not square (0: --size)")
    sampler: str = Field(default="", description="how the noise is removed, by any usual name; see `conjure list "
                         "samplers` (empty: the model's own)")
    skip: int = Field(default=0, ge=0, le=11, description="layers of CLIP that are left out, 1 for many drawn styles")
    lora: tuple[str, ...] = Field(default=(), description="LoRA files, each FILE or FILE:STRENGTH")
    embedding: tuple[str, ...] = Field(default=(), description="files of words learnt by textual inversion")
    tile: int = Field(default=0, ge=0, le=1024, description="rows of latents that are decoded at a time: less memory "
                      "(0: all)")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps")


class PublicPictures:
    """Draws what a text says. The model is read when it is first needed."""

    Options = PublicPicturesOptions

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: tuple[tuple[Any, ...], LatentDiffusion] | None = None

    @classmethod
    def load(cls, folder: Path) -> PublicPictures:
        return cls(folder)

    def model(self, options: PublicPicturesOptions) -> LatentDiffusion:
        """One at a time is kept, with the files that were added to it."""
        device = str(pick(options.device))
        key = (options.lora, options.embedding, device)
        if self._held is None or self._held[0] != key:
            self._held = None
            loras = [parted(each) for each in options.lora]
            words = [Path(each) for each in options.embedding]
            self._held = key, LatentDiffusion.load(self.path, loras=loras, words=words, device=device)
        return self._held[1]

    def generate(self, inputs: Sequence[Text], options: PublicPicturesOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed."""
        prompt = " ".join(text.text for text in inputs).strip()
        if not prompt:
            raise ConjureError("expected a prompt, got an empty text", hint='try: conjure make "a cat" -o cat.png')
        pipeline = open_pipeline(self.path)
        wish, (height, width) = wished(pipeline, options), sides(pipeline, options)
        enough(pipeline, options, height, width)
        yield Progress(0, wish.steps * len(seeds), "step", "reading the model")
        model = self.model(options)
        model.latents(height, width)
        guided = wish.guidance > 1 and not model.distilled
        if options.negative and not guided:
            yield Warn("the negative prompt has no effect: " + ("this model compares with nothing" if model.distilled
                       else "give --guidance above 1"))
        for text in filter(None, (prompt, options.negative)):
            rest, most = model.prompts.unread(text)
            if rest:
                yield Warn(f"the prompt is longer than the {most} tokens that this model reads; not read is: {rest!r}")
        told = model.encode_prompts([prompt], options.skip)
        without = model.encode_negative([options.negative]) if guided else None
        yield from self._draw(model, told, without, wish, (height, width), options.tile, seeds)

    def _draw(
        self, model: LatentDiffusion, told: Condition, without: Condition | None, wish: Wish, sides_: tuple[int, int],
        tile: int, seeds: Sequence[int],
    ) -> Iterator[Event]:  # fmt: skip
        made: list[Image] = []
        height, width = sides_
        for number, seed in enumerate(seeds):
            x: Tensor | None = None
            steps = model.sample(told, without, wish, noise=TorchNoise([seed]), height=height, width=width)
            for done, step in enumerate(steps, start=1):
                x = step.x
                yield Progress(number * wish.steps + min(done, wish.steps), len(seeds) * wish.steps, "step")
                if done < wish.steps:
                    yield Preview(partial(_picture, model.preview, step.x0))
            assert x is not None
            made.append(_picture(partial(model.decode, tile=tile), x))
        passes = evaluations(model.pipeline, wish, height, width) * (1 if without is None else 2)
        yield Result(made, {"evaluations": passes, "steps": wish.steps, "guidance": wish.guidance,
                            "size": [width, height]})  # fmt: skip

    @staticmethod
    def forecast(folder: Path, options: PublicPicturesOptions, count: int) -> dict[str, Any]:
        """`seconds`: the operations of the networks at the rate at which matrices multiply here, which nothing
        undercuts; `memory_bytes`: the activations, of the denoiser or the decoder, whichever are more."""
        pipeline = open_pipeline(folder)
        wish, (height, width) = wished(pipeline, options), sides(pipeline, options)
        cost = drawing_cost.of(pipeline, height, width, options.tile)
        passes = evaluations(pipeline, wish, height, width) * (1 if wish.guidance <= 1 or cost.distilled else 2)
        seconds = count * (passes * cost.step_flops + cost.decode_flops) / matmul_rate()
        return {"evaluations": passes, "memory_bytes": cost.memory, "seconds": seconds}

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Public picture models publish no figure that could be measured again from their files alone."""
        raise ConjureError(f"{self.path.name}: a public picture model has no published figures of ours",
                           hint="compare its pictures with those of others: conjure compare")


def wished(pipeline: Pipeline, options: PublicPicturesOptions) -> Wish:
    """The options, what they leave open filled in for this model; unknown samplers are refused."""
    if options.sampler:
        canonical(options.sampler)
    guidance = GUIDANCE[pipeline.kind] if options.guidance is None else options.guidance
    return Wish(steps=options.steps or STEPS[pipeline.kind], sampler=options.sampler, guidance=guidance,
                rescale=options.rescale)  # fmt: skip


def sides(pipeline: Pipeline, options: PublicPicturesOptions) -> tuple[int, int]:
    """(height, width) in pixels."""
    own = options.size or default_side(pipeline) * drawing_cost.shrink(pipeline)
    return options.height or own, options.width or own


def evaluations(pipeline: Pipeline, wish: Wish, height: int, width: int) -> int:
    """How often the network is asked for one picture, guidance aside."""
    by = drawing_cost.shrink(pipeline)
    tokens = tokens_of(pipeline, height // by, width // by)
    return schedule_from(pipeline.scheduler, wish.sampler).plan(wish.steps, tokens=tokens).evaluations


def enough(pipeline: Pipeline, options: PublicPicturesOptions, height: int, width: int) -> None:
    """Refuses what cannot fit into this machine's memory."""
    if pick(options.device).type != "cpu":
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    activations = drawing_cost.memory(pipeline, height, width, options.tile)
    needed = SPARE * (4 * drawing_cost.parameters(pipeline) + activations)
    if needed > there:
        hint = "ask for a smaller --size" if options.tile else "try --tile 16, or a smaller --size"
        raise ConjureError(f"{width} x {height} with this model takes about {needed / 2**30:.0f} GiB of memory, this "
                           f"machine has {there / 2**30:.0f}", hint=hint)


def parted(text: str) -> tuple[Path, float]:
    """FILE or FILE:STRENGTH."""
    name, colon, tail = text.rpartition(":")
    try:
        return (Path(name), float(tail)) if colon and not Path(text).exists() else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _picture(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Image:
    return Image(decode(latents)[0].numpy())
