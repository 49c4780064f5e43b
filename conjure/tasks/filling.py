"""Drawing into the part of a picture that a mask marks: what inpainting and outpainting share.

Legend: B batch (one a seed), H and W pixels of the picture, h and w of the model's canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.core import seeds as randomness
from conjure.core.events import Event, Preview, Progress, Result
from conjure.media.canvas import filled, pasted
from conjure.media.fit import Fit
from conjure.media.image import Image, grid
from conjure.media.mask import Box, box
from conjure.tasks.drawing_options import DrawingOptions, Longest, soft
from conjure.tasks.picture_models import PictureModel, batches
from conjure.tasks.scene_painter import Frame


@dataclass(frozen=True, kw_only=True)
class FillingOptions:
    """How a gap is filled."""

    strength: float = Field(default=0, ge=0, le=1, description="share of noise that the new part starts from (0: 1; "
                            "0.4 where models trained here are given no text)")
    start: Literal["around", "picture"] = Field(default="around", description="what is below that noise: smooth "
                                                "colours of what is around the gap, or the picture as it was")
    repeats: int = Field(default=1, ge=1, le=50, description="how often each step is done, to fit old and new together "
                         "(models trained here)")
    feather: int = Field(default=4, ge=0, le=255, description="pixels inside the mask over which the seam is blended")
    longest: Longest = 0


@plain_dataclass(frozen=True, kw_only=True)
class Gap:
    """What is to be filled, and how."""

    picture: Image
    mask_HW: np.ndarray
    text: str
    how: DrawingOptions
    filling: FillingOptions

    def parts(self, model: PictureModel) -> list[Part]:
        """In which it is drawn. The text is told to the one that holds most of what is new."""
        longest = self.filling.longest
        windows = model.windows(self.mask_HW, longest)
        amounts = _amounts(self.mask_HW, windows)
        found = []
        for number, window in enumerate(windows):
            text = self.text if number == int(np.argmax(amounts)) else ""
            strength = self.filling.strength or (1.0 if text else model.carries_on)
            fit = model.fit((window.height, window.width), longest)
            found.append(Part(window=window, fit=fit, text=text, strength=strength))
        return found


@plain_dataclass(frozen=True, kw_only=True)
class Part:
    """A window of the picture, how it lies on the model's canvas, and what is drawn there."""

    window: Box
    fit: Fit
    text: str
    strength: float


@torch.no_grad()
def fill(model: PictureModel, gap: Gap, seeds: Sequence[int]) -> Iterator[Event]:
    """One picture a seed: new where the mask is above 0, else the same bit for bit.

    The model's canvas is laid around the mask, or over it in several windows, scaled where they are larger. What the
    text names goes where the mask is; windows that are told nothing carry on what is around them.
    """
    parts, together = gap.parts(model), batches(seeds, model.at_once)
    total = sum(model.count(gap.how, part.strength, part.fit) for part in parts) * len(together)
    yield Progress(0, total, "step", "reading the model")
    yield from model.ready(gap.how, [gap.text], parts[0].fit)
    yield from soft(parts[0].fit)
    made: list[Image] = []
    done = 0
    for some in together:
        open_HW = gap.mask_HW.copy()
        work_BHW3 = np.repeat(gap.picture.rgb()[None], len(some), axis=0)
        for number, part in enumerate(parts):
            own = [randomness.derive(seed, "square", number) if number else seed for seed in some]
            for each in _drawn(model, gap, work_BHW3, open_HW, part, own):
                done += isinstance(each, Progress)
                yield Progress(done, total, "step") if isinstance(each, Progress) else each
            open_HW[part.window.within] = 0
        made += [pasted(gap.picture, work, gap.mask_HW, gap.filling.feather) for work in work_BHW3]
    passes = sum(model.evaluations(gap.how, part.strength, part.fit) for part in parts) * gap.filling.repeats
    yield Result(made, {"squares": len(parts), "evaluations": passes})


def forecast(model: PictureModel, gap: Gap, count: int) -> dict[str, Any]:
    """What filling it `count` times takes: `evaluations` for one, `memory_bytes`, `seconds`."""
    each = [model.forecast(gap.how, part.strength, part.fit, count) for part in gap.parts(model)]
    repeats = gap.filling.repeats
    return {"evaluations": repeats * sum(part["evaluations"] for part in each),
            "memory_bytes": max(part["memory_bytes"] for part in each),
            "seconds": repeats * sum(part["seconds"] for part in each)}  # fmt: skip


def _drawn(
    model: PictureModel, gap: Gap, work_BHW3: np.ndarray, open_HW: np.ndarray, part: Part, seeds: Sequence[int]
) -> Iterator[Event]:
    """Draws one part for all seeds, into `work`."""
    window, fit = part.window, part.fit
    part_HW = open_HW[window.within]
    over = gap.filling.start == "picture"
    before = [work[window.within] if over else filled(work[window.within], part_HW) for work in work_BHW3]
    marked = torch.from_numpy(fit.marked(part_HW))
    # Not from `work`: what a model is told must not depend on the seeds.
    plain = fit.laid(filled(gap.picture.rgb()[window.within], gap.mask_HW[window.within]))
    told = model.caption(part.text, torch.from_numpy(plain), ~marked)
    canvas = torch.from_numpy(np.stack([fit.laid(each) for each in before]))
    steps = model.draw(canvas, marked, told, gap.how, seeds, strength=part.strength, repeats=gap.filling.repeats,
                       frame=frame(open_HW, window))  # fmt: skip
    count, x = model.count(gap.how, part.strength, fit), None

    def drawn(pixels_Bhw3: Tensor) -> np.ndarray:
        out = work_BHW3.copy()
        for work, made in zip(out, pixels_Bhw3.numpy(), strict=True):
            work[window.within][part_HW > 0] = fit.taken(made)[part_HW > 0]
        return out

    def shown(x0: Tensor) -> Image:
        return grid([pasted(gap.picture, each, gap.mask_HW, gap.filling.feather)
                     for each in drawn(model.glance(x0, gap.how))])  # fmt: skip

    for done, step in enumerate(steps, start=1):
        x = step.x
        yield Progress(done, count, "step")
        if done < count:
            yield Preview(lambda x0=step.x0: shown(x0))
    assert x is not None
    work_BHW3[...] = drawn(model.decode(x, gap.how))


def frame(mask_HW: np.ndarray, window: Box) -> Frame:
    """Where in the window the mask is, in sides of the window."""
    part = box(mask_HW[window.within])
    height, width = window.height, window.width
    return part.left / width, part.top / height, part.right / width, part.bottom / height


def _amounts(mask_HW: np.ndarray, windows: Sequence[Box]) -> list[int]:
    """Pixels that each window will draw, those before it aside."""
    left_HW, found = mask_HW.copy(), []
    for window in windows:
        found.append(np.count_nonzero(left_HW[window.within]))
        left_HW[window.within] = 0
    return found
