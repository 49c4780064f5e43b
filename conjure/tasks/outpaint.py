"""image (+ text) -> image: the canvas made larger, and what is new drawn; the picture itself stays bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.media.canvas import extended, margins, margins_to
from conjure.tasks.drawing_options import DrawingOptions
from conjure.tasks.filling import FillingOptions, Gap, fill, forecast
from conjure.tasks.inputs import moving, parted
from conjure.tasks.picture_models import PictureModel, picture_model


@dataclass(frozen=True, kw_only=True)
class OutpaintOptions(FillingOptions, DrawingOptions):
    """How far the canvas grows, and how the new part is drawn."""

    extend: str = Field(default="", description="pixels on each side: left=64,top=32; or 64 for all four")
    size: str = Field(default="", description="instead: the size of the new canvas, 512x384, the picture in its middle")


class Outpaint:
    """Carries a picture on beyond its edges; what a text names is drawn in the largest new part."""

    Options = OutpaintOptions

    def __init__(self, model: PictureModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> Outpaint:
        return cls(picture_model(folder))

    def generate(self, inputs: Sequence[Any], options: OutpaintOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture a seed. The seam is blended on the new side."""
        yield from moving(parted(inputs, options)[0])
        yield from fill(self.model, gap_around(inputs, options), seeds)

    @staticmethod
    def forecast(folder: Path, options: OutpaintOptions, count: int, inputs: Sequence[Any] = ()) -> dict[str, Any]:
        """`evaluations`, `memory_bytes` and `seconds` for these inputs; without them nothing can be said."""
        if not inputs:
            return {}
        return forecast(picture_model(folder), gap_around(inputs, options), count)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def gap_around(inputs: Sequence[Any], options: OutpaintOptions) -> Gap:
    """The larger canvas, and what is new on it; `ConjureError` where that is nothing."""
    picture, text, _ = parted(inputs, options)
    if bool(options.extend) == bool(options.size):
        raise ConjureError("expected either --extend or --size, got " + ("both" if options.extend else "neither"),
                           hint="for example --extend left=64, or --size 512x384")
    by = margins(options.extend) if options.extend else margins_to(options.size, picture)
    canvas, mask = extended(picture, by)
    if not mask.any():
        raise ConjureError("the canvas stays as it is: nothing to draw", hint="--extend left=64 makes it larger")
    return Gap(picture=canvas, mask_HW=mask, text=text, how=options, filling=options)
