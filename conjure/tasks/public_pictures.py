"""text -> image: what a text says, drawn by a public picture model (Stable Diffusion 1, 2, XL, 3, Flux, DiT).

A prompt, a seed, a sampler and its steps give the picture that diffusers gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.media.fit import Fit
from conjure.media.text import Text
from conjure.tasks.drawing_options import DrawingOptions
from conjure.tasks.public_model import PublicModel


@dataclass(frozen=True, kw_only=True)
class PublicPicturesOptions(DrawingOptions):
    """How a picture is drawn, and how large."""

    size: int = Field(default=0, ge=0, le=8192, description="side of the picture in pixels (0: the model's own)")
    width: int = Field(default=0, ge=0, le=8192, description="its width, where it is not square (0: --size)")
    height: int = Field(default=0, ge=0, le=8192, description="its height, where it is not square (0: --size)")


class PublicPictures:
    """Draws what a text says. The model is read when it is first needed."""

    Options = PublicPicturesOptions

    def __init__(self, model: PublicModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> PublicPictures:
        return cls(PublicModel(folder))

    def generate(self, inputs: Sequence[Text], options: PublicPicturesOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed."""
        prompt = " ".join(text.text for text in inputs).strip()
        if not prompt:
            raise ConjureError("expected a prompt, got an empty text", hint='try: conjure make "a cat" -o cat.png')
        its, wish, fit = self.model, self.model.wish(options), sized(self.model, options)
        yield Progress(0, its.plan(wish, fit.canvas).count * len(seeds), "step", "reading the model")
        yield from its.ready(options, [prompt], fit.canvas)
        model, (height, width) = its.read(options), fit.canvas
        begin = partial(model.sample, *its.told(options, prompt), wish, height=height, width=width)
        made = yield from its.drawn(options, wish, fit, seeds, lambda noise: begin(noise=noise))
        passes = its.evaluations(wish, fit.canvas)
        yield Result(made, {"evaluations": passes, "steps": wish.steps, "guidance": wish.guidance,
                            "size": [width, height]})  # fmt: skip

    @staticmethod
    def forecast(folder: Path, options: PublicPicturesOptions, count: int) -> dict[str, Any]:
        """Of one picture each for `count` seeds: `PublicModel.forecast`."""
        its = PublicModel(folder)
        return its.forecast(options, its.wish(options), sized(its, options).canvas, count)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Public picture models publish no figure that could be measured again from their files alone."""
        raise ConjureError(f"{self.model.path.name}: a public picture model has no published figures of ours",
                           hint="compare its pictures with those of others: conjure compare")


def sized(model: PublicModel, options: PublicPicturesOptions) -> Fit:
    """A new picture as large as it is asked for."""
    own = options.size or model.side
    size = options.height or own, options.width or own
    return Fit(picture=size, scaled=size, canvas=size)
