"""A public picture model as tasks use it: read when it is first needed, told of texts, drawing picture after picture.

What is drawn for one seed knows nothing of the others, so it is the same alone and among them, and the memory is that
of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from conjure.core.device import matmul_rate, pick
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Warn
from conjure.diffusion.plan import Plan
from conjure.diffusion.samplers import Draw, Step
from conjure.diffusion.schedule import schedule_from
from conjure.media.fit import Fit, Size, on_multiples
from conjure.media.image import Image
from conjure.models import drawing_cost
from conjure.models.latent_diffusion import (
    GUIDANCE,
    STEPS,
    LatentDiffusion,
    TorchNoise,
    Wish,
    default_side,
    multiple_of,
    open_pipeline,
    tokens_of,
)
from conjure.models.prompts import Condition
from conjure.models.public.diffusers import Pipeline
from conjure.tasks.drawing_options import DrawingOptions

SPARE = 1.1
"""What is needed beside weights and activations, as a share of both."""
MOST = 2
"""Sides that a model learnt, beyond which a picture is not drawn at its own size unless that is asked for."""
LEAST = 8
"""Latents along a side that a canvas has at least: the networks halve it several times."""
SMALL = 0.5
"""The same, below which pictures mean little to it."""

Told = tuple[Condition, Condition | None]
"""What a model is told, and what it compares with."""


class PublicModel:
    """The model in a folder or a file; one set of files added to it is kept at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: tuple[tuple[Any, ...], LatentDiffusion] | None = None

    @cached_property
    def pipeline(self) -> Pipeline:
        """Its parts, their weights still closed."""
        return open_pipeline(self.path)

    def read(self, how: DrawingOptions) -> LatentDiffusion:
        """With its weights, and the files that options add."""
        device = str(pick(how.device))
        key = (how.lora, how.embedding, device)
        if self._held is None or self._held[0] != key:
            self._held = None
            loras = [weighted(each) for each in how.lora]
            words = [Path(each) for each in how.embedding]
            self._held = key, LatentDiffusion.load(self.path, loras=loras, words=words, device=device)
        return self._held[1]

    def wish(self, how: DrawingOptions, strength: float = 1.0, likeness: float = 0.0) -> Wish:
        """The options, what they leave open filled in for this model."""
        guidance = GUIDANCE[self.pipeline.kind] if how.guidance is None else how.guidance
        steps = how.steps or STEPS[self.pipeline.kind]
        return Wish(steps=steps, sampler=how.sampler, guidance=guidance, rescale=how.rescale, strength=strength,
                    likeness=likeness)  # fmt: skip

    # -- sizes

    @property
    def side(self) -> int:
        """That of the pictures it learnt, in pixels."""
        return default_side(self.pipeline) * drawing_cost.shrink(self.pipeline)

    def fit(self, picture: Size, longest: int = 0) -> Fit:
        """How a picture of this size lies on the model's canvas."""
        by = drawing_cost.shrink(self.pipeline)
        multiple = multiple_of(self.pipeline.kind, self.pipeline, by)
        return on_multiples(picture, multiple, longest or min(max(picture), MOST * self.side), LEAST * by)

    def small(self, fit: Fit) -> Iterator[Event]:
        """A word where a picture is much smaller than what it learnt."""
        if max(fit.scaled) < SMALL * self.side:
            yield Warn(f"the model learnt pictures of {self.side} pixels and draws {fit.scaled[1]} x {fit.scaled[0]}: "
                       f"--longest {self.side} may show more")

    def enough(self, how: DrawingOptions, canvas: Size, more: int = 0) -> None:
        """Refuses what cannot fit into this machine's memory; `more` bytes are needed beside the model."""
        if pick(how.device).type != "cpu":
            return
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        activations = drawing_cost.memory(self.pipeline, *canvas, how.tile)
        needed = SPARE * (4 * drawing_cost.parameters(self.pipeline) + activations + more)
        if needed > there:
            hint = "ask for fewer pixels" if how.tile else "try --tile 16, or ask for fewer pixels"
            raise ConjureError(f"{canvas[1]} x {canvas[0]} with this model takes about {needed / 2**30:.0f} GiB of "
                               f"memory, this machine has {there / 2**30:.0f}",
                               hint=f"{hint}: --size for new pictures, --longest for edits")

    # -- what it is told

    def ready(self, how: DrawingOptions, texts: Sequence[str], canvas: Size, more: int = 0) -> Iterator[Event]:
        """Refuses what cannot be, reads the model, and says what of the texts will not count."""
        self.enough(how, canvas, more)
        model = self.read(how)
        model.latents(*canvas)
        if how.negative and not self._compares(model, how):
            yield Warn("the negative prompt has no effect: " + ("this model compares with nothing" if model.distilled
                       else "give --guidance above 1"))
        for each in filter(None, (*texts, how.negative)):
            rest, most = model.prompts.unread(each)
            if rest:
                yield Warn(f"the prompt is longer than the {most} tokens that this model reads; not read is: {rest!r}")

    def told(self, how: DrawingOptions, text: str) -> Told:
        """What the network is told of the texts."""
        model = self.read(how)
        compares = self._compares(model, how)
        return model.encode_prompts([text], how.skip), model.encode_negative([how.negative]) if compares else None

    def _compares(self, model: LatentDiffusion, how: DrawingOptions) -> bool:
        return self.wish(how).guidance > 1 and not model.distilled

    # -- a picture

    def drawn(
        self, how: DrawingOptions, wish: Wish, fit: Fit, seeds: Sequence[int], begin: Callable[[Draw], Iterator[Step]]
    ) -> Generator[Event, None, list[Image]]:
        """Progress and previews; returns the pictures, one a seed, on what `begin` makes of each seed's noise."""
        model, count = self.read(how), self.plan(wish, fit.canvas).count
        made: list[Image] = []
        for number, seed in enumerate(seeds):
            x: Tensor | None = None
            for done, step in enumerate(begin(TorchNoise([seed])), start=1):
                x = step.x
                yield Progress(number * count + done, len(seeds) * count, "step")
                if done < count:
                    yield Preview(partial(_shown, model, step.x0))
            assert x is not None
            made.append(Image(fit.taken(model.decode(x, how.tile)[0].numpy())))
        return made

    # -- what it takes

    def plan(self, wish: Wish, canvas: Size) -> Plan:
        """The steps that a wish means."""
        by = drawing_cost.shrink(self.pipeline)
        tokens = tokens_of(self.pipeline, canvas[0] // by, canvas[1] // by)
        return schedule_from(self.pipeline.scheduler, wish.sampler).plan(
            wish.steps, strength=wish.strength, tokens=tokens
        )

    def evaluations(self, wish: Wish, canvas: Size) -> int:
        """Rows that the network is asked for, for one picture."""
        rows = 1 if wish.guidance <= 1 or drawing_cost.distilled(self.pipeline) else 3 if wish.likeness else 2
        return rows * self.plan(wish, canvas).evaluations

    def forecast(
        self, how: DrawingOptions, wish: Wish, canvas: Size, count: int, *, encodes: int = 0, more: float = 0.0
    ) -> dict[str, Any]:
        """`seconds`: the operations of the networks at the rate at which matrices multiply here, which nothing
        undercuts; `memory_bytes`: the activations, of the denoiser or the decoder, whichever are more. Pictures are
        encoded so often for each that is made; `more` operations are added to each evaluation."""
        cost = drawing_cost.of(self.pipeline, *canvas, how.tile)
        passes = self.evaluations(wish, canvas)
        each = passes * (cost.step_flops + more) + cost.decode_flops + encodes * cost.encode_flops
        return {"evaluations": passes, "memory_bytes": cost.memory, "seconds": count * each / matmul_rate()}


def weighted(text: str) -> tuple[Path, float]:
    """FILE or FILE:WEIGHT."""
    name, colon, tail = text.rpartition(":")
    try:
        return (Path(name), float(tail)) if colon and not Path(text).exists() else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _shown(model: LatentDiffusion, x0: Tensor) -> Image:
    return Image(model.preview(x0)[0].numpy())
