"""image + text -> image: a picture changed as it is told, by a public model that reads it beside the noise.

InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800). The whole picture is drawn again, so what should stay is near
what it was and not equal to it; `--mask` with a model that fills gaps keeps every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.media.fit import Fit
from conjure.media.image import Image
from conjure.models.latent_diffusion import Wish, reads_of
from conjure.models.latent_editing import instructed
from conjure.tasks.drawing_options import DrawingOptions, Longest, soft
from conjure.tasks.inputs import moving, parted
from conjure.tasks.public_model import PublicModel


@dataclass(frozen=True, kw_only=True)
class InstructPublicOptions(DrawingOptions):
    """How strongly the text and the picture pull."""

    likeness: float = Field(default=1.5, ge=1, le=20, description="how strongly the picture pulls: 1 to 1.3 changes "
                            "more, 2 less (needs guidance above 1)")
    longest: Longest = 0


class InstructPublic:
    """Changes a picture as a text says."""

    Options = InstructPublicOptions

    def __init__(self, model: PublicModel) -> None:
        self.model = model
        if reads_of(model.pipeline) != "picture":
            raise ConjureError(f"{model.path.name} was not taught to change pictures as it is told",
                               hint="such models read 8 channels; with others try --strength, or --mask")

    @classmethod
    def load(cls, folder: Path) -> InstructPublic:
        return cls(PublicModel(folder))

    def generate(
        self, inputs: Sequence[Any], options: InstructPublicOptions, seeds: Sequence[int]
    ) -> Iterator[Event]:
        """One picture a seed, of the input's size; what is transparent is white."""
        picture, text, _ = parted(inputs, options)
        if not text:
            raise ConjureError("nothing says what to change", hint='say it: conjure make photo.png "make it winter"')
        yield from moving(picture)
        its, (wish, fit) = self.model, self._wanted(picture, options)
        yield Progress(0, its.plan(wish, fit.canvas).count * len(seeds), "step", "reading the model")
        yield from its.ready(options, [text], fit.canvas)
        for said in (its.small, soft):
            yield from said(fit)
        model, (told, without) = its.read(options), its.told(options, text)
        canvas = torch.from_numpy(fit.laid(picture.rgb()))[None]
        made = yield from its.drawn(options, wish, fit, seeds, lambda noise: instructed(
            model, told, without, wish, noise, canvas, options.tile))  # fmt: skip
        yield Result(made, {"evaluations": its.evaluations(wish, fit.canvas), "steps": wish.steps,
                            "guidance": wish.guidance, "likeness": wish.likeness})  # fmt: skip

    def _wanted(self, picture: Image, options: InstructPublicOptions) -> tuple[Wish, Fit]:
        wish = self.model.wish(options, likeness=options.likeness)
        return wish, self.model.fit((picture.height, picture.width), options.longest)

    @staticmethod
    def forecast(
        folder: Path, options: InstructPublicOptions, count: int, inputs: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """`evaluations`, `memory_bytes` and `seconds` for these inputs; without them nothing can be said."""
        if not inputs:
            return {}
        its = PublicModel(folder)
        wish, fit = InstructPublic(its)._wanted(parted(inputs, options)[0], options)
        return its.forecast(options, wish, fit.canvas, count, encodes=1)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}
