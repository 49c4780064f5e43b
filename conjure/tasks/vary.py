"""image (+ text) -> image: the same picture, drawn again from a noisy version of itself.

SDEdit (Meng et al., arXiv 2108.01073): noise is added up to a level and removed again; the higher the level, the less
of the picture is left and the more of the text comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.core import seeds as randomness
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.diffusion.names import SAMPLER_NAMES
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.canvas import scaled
from conjure.media.image import Image, grid
from conjure.tasks.filling import shortened
from conjure.tasks.held_region import held_steps
from conjure.tasks.inputs import moving, parted
from conjure.tasks.picture_models import Frame, PictureModel, picture_model

OUTLINE = 24  # of 255: what differs from the ground by more belongs to a thing


@dataclass(frozen=True, kw_only=True)
class VaryOptions:
    """How far the new picture may go from the old one."""

    strength: float = Field(default=0.6, gt=0, le=1, description="share of noise it starts from: 0.3 keeps nearly all, "
                            "1 nothing")
    steps: int = Field(default=12, ge=1, le=1000, description="steps of the sampler; more is slower")
    guidance: float = Field(default=1.0, ge=0, le=30, description="how strongly the text pulls (1: as trained)")
    negative: str = Field(default="", description="what the picture should not show (needs --guidance above 1)")
    sampler: Literal[*SAMPLER_NAMES] = Field(default="euler", description="how the noise is removed")  # type: ignore


class Vary:
    """Another version of a picture. The model's canvas is square: the picture is fitted into it and cut out again."""

    Options = VaryOptions

    def __init__(self, model: PictureModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> Vary:
        return cls(picture_model(folder))

    @torch.no_grad()
    def generate(self, inputs: Sequence[Any], options: VaryOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture a seed, of the input's size and with its transparency."""
        picture, text, _ = parted(inputs, options)
        yield from moving(picture)
        yield from (Warn(said) for part in (text, options.negative) if part for said in self.model.complaints(part))
        side = self.model.side
        if max(picture.height, picture.width) > 1.5 * side:
            yield Warn(f"the model draws {side} x {side} pixels: the picture is drawn that small and enlarged again")
        canvas = fitted(picture.rgb(), side)
        known = self.model.encode(torch.from_numpy(canvas)[None])
        everywhere = torch.ones(self.model.cells, self.model.cells)
        caption = self.model.caption(text, torch.from_numpy(canvas), everywhere.bool())
        denoise = self.model.denoiser(caption, seeds, guidance=options.guidance, negative=options.negative,
                                      frame=subject(canvas))
        sigmas = shortened(self.model.sigmas, options.steps, options.strength)
        x = self.model.start(seeds, float(sigmas[0]))
        steps = held_steps(SAMPLERS[options.sampler].steps, denoise, x, sigmas, randomness.Noise(seeds),
                           known=known, mask=everywhere, guess=known)
        for done, step in enumerate(steps, start=1):
            x = step.x
            yield Progress(done, options.steps, "step")
            if done < options.steps:
                yield Preview(lambda x0=step.x0: grid(self._pictures(x0, picture)))
        passes = SAMPLERS[options.sampler].evaluations(options.steps) * (1 if options.guidance == 1 else 2)
        yield Result(self._pictures(x, picture), {"evaluations": passes})

    def _pictures(self, x_BZhw: Tensor, picture: Image) -> list[Image]:
        return [unfitted(made, picture) for made in self.model.decode(x_BZhw).numpy()]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def fitted(pixels_HW3: np.ndarray, side: int) -> np.ndarray:
    """The picture in the middle of a square canvas, its edges carried on: uint8 `[side, side, 3]`."""
    height, width = _inside(pixels_HW3.shape[0], pixels_HW3.shape[1], side)
    down, across = side - height, side - width
    around = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    return np.pad(scaled(pixels_HW3, height, width), around, mode="edge")


def unfitted(canvas_HW3: np.ndarray, like: Image) -> Image:
    """The middle of the canvas at the size of `like`, as transparent as that is."""
    side = len(canvas_HW3)
    height, width = _inside(like.height, like.width, side)
    top, left = (side - height) // 2, (side - width) // 2
    out = scaled(np.ascontiguousarray(canvas_HW3[top : top + height, left : left + width]), like.height, like.width)
    alpha = like.alpha()
    return Image(out if alpha is None else np.dstack([out, alpha]))


def subject(pixels_HW3: np.ndarray) -> Frame | None:
    """The box of what differs from the ground, the commonest colour of the border, in canvas sides; None if that is
    nothing, or nearly all."""
    side = len(pixels_HW3)
    border = np.concatenate([pixels_HW3[0], pixels_HW3[-1], pixels_HW3[:, 0], pixels_HW3[:, -1]])
    colours, counts = np.unique(border // 8, axis=0, return_counts=True)
    ground = colours[counts.argmax()].astype(int) * 8 + 4
    away = np.abs(pixels_HW3 - ground).max(-1) > OUTLINE
    rows, columns = np.flatnonzero(away.any(1)), np.flatnonzero(away.any(0))
    if len(rows) == 0 or away.mean() > 0.9:
        return None
    return tuple(float(each) / side for each in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))  # type: ignore


def _inside(height: int, width: int, side: int) -> tuple[int, int]:
    """The size of a picture whose longer side is `side`."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
