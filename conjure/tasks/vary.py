"""image (+ text) -> image: the same picture, drawn again from a noisy version of itself.

SDEdit (Meng et al., arXiv 2108.01073): noise is added up to a level and removed again; the higher the level, the less
of the picture is left and the more of the text comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.events import Event, Preview, Progress, Result
from conjure.media.image import Image, grid
from conjure.tasks.drawing_options import DrawingOptions, Longest, soft
from conjure.tasks.inputs import moving, parted
from conjure.tasks.picture_models import PictureModel, batches, picture_model
from conjure.tasks.scene_painter import Frame

OUTLINE = 24  # of 255: what differs from the ground by more belongs to a thing


@dataclass(frozen=True, kw_only=True)
class VaryOptions(DrawingOptions):
    """How far the new picture may go from the old one."""

    strength: float = Field(default=0.6, gt=0, le=1, description="share of noise it starts from: 0.3 keeps nearly all, "
                            "1 nothing")
    longest: Longest = 0


class Vary:
    """Another version of a picture, drawn on the model's canvas and cut out again."""

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
        model, strength, together = self.model, options.strength, batches(seeds, self.model.at_once)
        fit = model.fit((picture.height, picture.width), options.longest)
        count = model.count(options, strength, fit)
        yield Progress(0, count * len(together), "step", "reading the model")
        yield from model.ready(options, [text], fit)
        yield from soft(fit)
        canvas = fit.laid(picture.rgb())
        caption = model.caption(text, torch.from_numpy(canvas), torch.ones(fit.canvas).bool())
        made: list[Image] = []
        for number, some in enumerate(together):
            known = torch.from_numpy(canvas).expand(len(some), -1, -1, -1)
            steps, x = model.draw(known, None, caption, options, some, strength=strength, frame=subject(canvas)), None
            for done, step in enumerate(steps, start=1):
                x = step.x
                yield Progress(number * count + done, count * len(together), "step")
                if done < count:
                    yield Preview(lambda x0=step.x0: grid([_like(picture, fit.taken(each)) for each in
                                                           model.glance(x0, options).numpy()]))  # fmt: skip
            assert x is not None
            made += [_like(picture, fit.taken(each)) for each in model.decode(x, options).numpy()]
        yield Result(made, {"evaluations": model.evaluations(options, strength, fit)})

    @staticmethod
    def forecast(folder: Path, options: VaryOptions, count: int, inputs: Sequence[Any] = ()) -> dict[str, Any]:
        """`evaluations`, `memory_bytes` and `seconds` for these inputs; without them nothing can be said."""
        if not inputs:
            return {}
        model, (picture, _, _) = picture_model(folder), parted(inputs, options)
        fit = model.fit((picture.height, picture.width), options.longest)
        return model.forecast(options, options.strength, fit, count)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def _like(picture: Image, made_HW3: np.ndarray) -> Image:
    """What was made, as transparent as the picture is."""
    alpha = picture.alpha()
    return Image(made_HW3 if alpha is None else np.dstack([made_HW3, alpha]))


def subject(pixels_HW3: np.ndarray) -> Frame | None:
    """The box of what differs from the ground, the commonest colour of the border, in canvas sides; None if that is
    nothing, or nearly all."""
    height, width = pixels_HW3.shape[:2]
    border = np.concatenate([pixels_HW3[0], pixels_HW3[-1], pixels_HW3[:, 0], pixels_HW3[:, -1]])
    colours, counts = np.unique(border // 8, axis=0, return_counts=True)
    ground = colours[counts.argmax()].astype(int) * 8 + 4
    away = np.abs(pixels_HW3 - ground).max(-1) > OUTLINE
    rows, columns = np.flatnonzero(away.any(1)), np.flatnonzero(away.any(0))
    if len(rows) == 0 or away.mean() > 0.9:
        return None
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
