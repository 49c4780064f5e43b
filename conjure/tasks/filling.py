"""Drawing into the part of a picture that a mask marks: what inpainting and outpainting share.

Legend: B batch (one a seed), H and W pixels of the picture, s side of the model's canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.core import seeds as randomness
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.diffusion.names import SAMPLER_NAMES
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.canvas import cells, cut, filled, pasted, scaled, windows
from conjure.media.image import Image, grid
from conjure.media.mask import Box, box
from conjure.tasks.held_region import held_steps
from conjure.tasks.picture_models import Frame, PictureModel

CARRY_ON = 0.4  # strength without a text: what is around goes on


@dataclass(frozen=True, kw_only=True)
class FillingOptions:
    """How the new part is drawn."""

    steps: int = Field(default=12, ge=1, le=1000, description="steps of the sampler; more is slower")
    guidance: float = Field(default=1.0, ge=0, le=30, description="how strongly the text pulls (1: as trained)")
    negative: str = Field(default="", description="what the new part should not show (needs --guidance above 1)")
    sampler: Literal[*SAMPLER_NAMES] = Field(default="euler", description="how the noise is removed")  # type: ignore
    strength: float = Field(default=0, ge=0, le=1, description="share of noise that the new part starts from, over "
                            "smooth colours of what is around it (0: 1 with a text, 0.4 without)")
    repeats: int = Field(default=1, ge=1, le=50, description="how often each step is done, to fit old and new together")
    feather: int = Field(default=4, ge=0, le=255, description="pixels inside the mask over which the seam is blended")


@torch.no_grad()
def fill(
    model: PictureModel, picture: Image, mask_HW: np.ndarray, text: str, options: FillingOptions, seeds: Sequence[int]
) -> Iterator[Event]:
    """One picture a seed: new where the mask is above 0, else the same bit for bit.

    The model's canvas is laid around the mask, or over it in several squares, scaled where it is larger. The text
    is told to the square that holds most of what is new, and what it names goes where the mask is; the other squares
    carry on what is around them.
    """
    yield from (Warn(said) for part in (text, options.negative) if part for said in model.complaints(part))
    if options.negative and options.guidance == 1:
        yield Warn("the negative prompt has no effect with a guidance of 1: give --guidance 2 or more")
    squares = windows(mask_HW, model.side)
    if squares[0].width > 1.5 * model.side:
        yield Warn(f"the model draws {model.side} x {model.side} pixels: the new part is enlarged "
                   f"{squares[0].width / model.side:.1f} times and will look soft")
    open_HW = mask_HW.copy()
    work_BHW3 = np.repeat(picture.rgb()[None], len(seeds), axis=0)
    amounts = [np.count_nonzero(each) for each in _shares(open_HW, squares)]
    for number, window in enumerate(squares):
        main = number == int(np.argmax(amounts))
        yield from _square(model, picture, work_BHW3, mask_HW, open_HW, window, text if main else "", options,
                           [randomness.derive(s, "square", number) if number else s for s in seeds],
                           (number * options.steps, len(squares) * options.steps))  # fmt: skip
        open_HW[window.within] = 0
    made = [pasted(picture, work, mask_HW, options.feather) for work in work_BHW3]
    yield Result(made, {"squares": len(squares), "evaluations": len(squares) * _evaluations(options)})


def _square(
    model: PictureModel, picture: Image, work_BHW3: np.ndarray, mask_HW: np.ndarray, open_HW: np.ndarray, window: Box,
    text: str, options: FillingOptions, seeds: Sequence[int], progress: tuple[int, int],
) -> Iterator[Event]:  # fmt: skip
    """Draws one square for all seeds, into `work`."""
    part_HW = open_HW[window.within]
    canvas = torch.from_numpy(np.stack([_canvas(work[window.within], part_HW, model.side) for work in work_BHW3]))
    new = torch.from_numpy(cells(open_HW, window, model.cells)).float()[None, None]
    # Not from `work`: what a model is told must not depend on the seeds.
    plain = torch.from_numpy(_canvas(picture.rgb()[window.within], mask_HW[window.within], model.side))
    told = model.caption(text, plain, ~new[0, 0].bool())
    denoise = model.denoiser(told, seeds, guidance=options.guidance, negative=options.negative,
                             frame=frame(open_HW, window))
    sigmas = shortened(model.sigmas, options.steps, options.strength or (1.0 if text else CARRY_ON))
    x_BZhw = model.start(seeds, float(sigmas[0]))
    known = model.encode(canvas)
    steps = held_steps(SAMPLERS[options.sampler].steps, denoise, x_BZhw, sigmas, randomness.Noise(seeds),
                       known=known, guess=known, mask=new, repeats=options.repeats)

    def drawn(x: Tensor) -> np.ndarray:
        out = work_BHW3.copy()
        for work, made in zip(out, model.decode(x).numpy(), strict=True):
            there = work[window.within]
            there[part_HW > 0] = scaled(made, window.height, window.width)[part_HW > 0]
        return out

    for done, step in enumerate(steps, start=1):
        x_BZhw = step.x
        yield Progress(progress[0] + done, progress[1], "step")
        if done < options.steps:
            yield Preview(lambda x0=step.x0: grid([pasted(picture, each, mask_HW, options.feather)
                                                   for each in drawn(x0)]))
    work_BHW3[...] = drawn(x_BZhw)


def frame(mask_HW: np.ndarray, window: Box) -> Frame:
    """Where in the window the mask is, in sides of the window."""
    part = box(mask_HW[window.within])
    side = window.width
    return part.left / side, part.top / side, part.right / side, part.bottom / side


def shortened(sigmas: Callable[[int], Tensor], steps: int, strength: float) -> Tensor:
    """`steps` noise levels down to 0, from the share `strength` of the whole way on: `sigmas(steps)` for 1."""
    if strength >= 1:
        return sigmas(steps)
    return sigmas(max(steps, round(steps / strength)))[-steps - 1 :]


def _canvas(pixels_HW3: np.ndarray, open_HW: np.ndarray, side: int) -> np.ndarray:
    """What the model sees of a square: smooth colours where there will be something new."""
    return cut(filled(pixels_HW3, open_HW), Box(0, 0, *open_HW.shape), side)


def _shares(open_HW: np.ndarray, squares: Sequence[Box]) -> Iterator[np.ndarray]:
    left_HW = open_HW.copy()
    for window in squares:
        yield left_HW[window.within].copy()
        left_HW[window.within] = 0


def _evaluations(options: FillingOptions) -> int:
    return options.repeats * SAMPLERS[options.sampler].evaluations(options.steps) * (1 if options.guidance == 1 else 2)
