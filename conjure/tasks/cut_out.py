"""image -> image: a plain background becomes transparent. No model takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.media.cutout import cut_out
from conjure.media.image import Image
from conjure.tasks.inputs import moving, parted

PLAIN = 0.9  # share of the border that the ground's colours should explain


@dataclass(frozen=True, kw_only=True)
class CutOutOptions:
    """How plain the background has to be."""

    tolerance: float = Field(default=24, ge=0, le=255, description="how far the background may be from its colour, in "
                                                                   "levels of 255")


class CutOut:
    """Cuts things out of a plain ground. It is arithmetic: every seed gives the same."""

    Options = CutOutOptions

    def generate(self, inputs: Sequence[Any], options: CutOutOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The same picture for every seed, its background transparent; what was transparent stays so."""
        picture, _, _ = parted(inputs, options)
        yield from moving(picture)
        made = cut_out(picture.rgb(), options.tolerance)
        if made.removed == 1:
            raise ConjureError("the picture is background throughout: nothing would be left",
                               hint=f"--tolerance {options.tolerance / 3:.0f}, if there is something on it")
        if made.explained < PLAIN:
            yield Warn(f"only {made.explained:.0%} of the border is of a plain colour: the cut will have gaps")
        rgba_HW4 = made.rgba_HW4
        if (own_HW := picture.alpha()) is not None:
            least = np.minimum(rgba_HW4[..., 3], own_HW)
            rgba_HW4 = np.concatenate([rgba_HW4[..., :3], least[..., None]], -1)
        yield Progress(1, 1, "picture")
        yield Result([Image(rgba_HW4)] * len(seeds), {"removed": round(made.removed, 4)})
