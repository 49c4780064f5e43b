"""image (+ text) -> image: something new where a mask says so, everything else bit for bit as it was.

The new part starts as noise and is denoised beside what stays, which is put back at every step at that step's noise
level (`held_region.py`, `models/latent_editing.py`), or by a network that was taught to fill gaps. The mask is a
picture of its own (`--mask`), or the transparent part of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.media.image import Image
from conjure.media.mask import mask_of
from conjure.tasks.drawing_options import DrawingOptions
from conjure.tasks.filling import FillingOptions, Gap, fill, forecast
from conjure.tasks.inputs import FILE, moving, parted
from conjure.tasks.picture_models import PictureModel, picture_model


@dataclass(frozen=True, kw_only=True)
class InpaintOptions(FillingOptions, DrawingOptions):
    """What may change, and how the new part is drawn."""

    mask: str = Field(default="", json_schema_extra=FILE, description="picture of the same size, white where something "
                      "new should be (default: where the input is transparent)")
    invert: bool = Field(default=False, description="the mask marks what stays")


class Inpaint:
    """Draws what a text says where a mask says; without a text it carries on what is around."""

    Options = InpaintOptions

    def __init__(self, model: PictureModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> Inpaint:
        return cls(picture_model(folder))

    def generate(self, inputs: Sequence[Any], options: InpaintOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture a seed, with a mask-exact paste at the end (`media/canvas.py:pasted`)."""
        picture, _, _ = parted(inputs, options)
        yield from moving(picture)
        gap = gap_in(inputs, options)
        if gap.mask_HW.all():
            yield Warn("the mask marks the whole picture: nothing of it stays")
        yield from fill(self.model, gap, seeds)

    @staticmethod
    def forecast(folder: Path, options: InpaintOptions, count: int, inputs: Sequence[Any] = ()) -> dict[str, Any]:
        """`evaluations`, `memory_bytes` and `seconds` for these inputs; without them nothing can be said."""
        if not inputs:
            return {}
        return forecast(picture_model(folder), gap_in(inputs, options), count)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def gap_in(inputs: Sequence[Any], options: InpaintOptions) -> Gap:
    """What the inputs leave open; `ConjureError` where that is nothing."""
    picture, text, files = parted(inputs, options)
    mask = wanted_mask(picture, files.get("mask"), options.invert)
    return Gap(picture=picture, mask_HW=mask, text=text, how=options, filling=options)


def wanted_mask(picture: Image, given: Image | None, invert: bool) -> np.ndarray:
    """The mask that was given, else the picture's own transparency; `ConjureError` where there is neither."""
    if given is not None:
        return mask_of(given, picture, invert=invert)
    if picture.alpha() is None:
        raise ConjureError("nothing says what may change: no mask, and no part of the picture is transparent",
                           hint="give --mask FILE, white where something new should be; or erase that part")
    return mask_of(picture, picture, invert=invert)
