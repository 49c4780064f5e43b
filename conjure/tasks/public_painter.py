"""Models from elsewhere (Stable Diffusion 1, 2, XL, 3, Flux) as editors of pictures: `picture_models.PictureModel`.

A canvas has the picture's own size, its sides rounded up to what the model takes.

Legend: B batch, one a seed; H and W pixels of the canvas, C channels; x latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.diffusion.samplers import Step
from conjure.media.canvas import scaled, windows
from conjure.media.fit import Fit, Size
from conjure.media.mask import Box
from conjure.models.latent_diffusion import TorchNoise, reads_of
from conjure.models.latent_editing import inpainted, redrawn
from conjure.tasks.drawing_options import DrawingOptions
from conjure.tasks.public_model import MOST, PublicModel


class PublicPainter:
    """A model that fills gaps, or any that draws from a text."""

    def __init__(self, model: PublicModel) -> None:
        self.its = model
        self.reads = reads_of(model.pipeline)
        if self.reads == "picture":
            raise ConjureError(f"{model.path.name} changes a picture as it is told, and does nothing else",
                               hint='say what to change: conjure make photo.png "make it winter" --task edit')

    @classmethod
    def load(cls, folder: Path) -> PublicPainter:
        return cls(PublicModel(folder))

    @property
    def at_once(self) -> int:
        return 1

    @property
    def carries_on(self) -> float:
        return 1.0

    def fit(self, picture: Size, longest: int = 0) -> Fit:
        return self.its.fit(picture, longest)

    def windows(self, mask_HW: np.ndarray, longest: int = 0) -> list[Box]:
        """The whole picture, unless it is so large that squares around the mask are drawn better."""
        if max(mask_HW.shape) <= max(longest, MOST * self.its.side):
            return [Box(0, 0, *mask_HW.shape)]
        return windows(mask_HW, self.its.side)

    def ready(self, how: DrawingOptions, texts: Sequence[str], fit: Fit) -> Iterator[Event]:
        yield from self.its.ready(how, texts, fit.canvas)
        yield from self.its.small(fit)

    def caption(self, text: str, pixels_HWC: Tensor, seen_HW: Tensor) -> str:
        return text

    def count(self, how: DrawingOptions, strength: float, fit: Fit) -> int:
        return self.its.plan(self.its.wish(how, strength), fit.canvas).count

    def evaluations(self, how: DrawingOptions, strength: float, fit: Fit) -> int:
        return self.its.evaluations(self.its.wish(how, strength), fit.canvas)

    def draw(
        self, canvas_BHWC: Tensor, open_HW: Tensor | None, text: str, how: DrawingOptions, seeds: Sequence[int], *,
        strength: float, repeats: int = 1, frame: object = None,
    ) -> Iterator[Step]:  # fmt: skip
        if repeats > 1:
            raise ConjureError("--repeats: for models trained here, not for this one", hint="leave it out")
        if open_HW is None and self.reads:
            raise ConjureError(f"{self.its.path.name} fills gaps, and does nothing else", hint="say where: --mask FILE")
        model, (told, without) = self.its.read(how), self.its.told(how, text)
        told, without = told.of(len(seeds)), None if without is None else without.of(len(seeds))
        wish, noise = self.its.wish(how, strength), TorchNoise(seeds)
        if open_HW is None:
            return redrawn(model, told, without, wish, noise, canvas_BHWC, how.tile)
        return inpainted(model, told, without, wish, noise, canvas_BHWC, open_HW, how.tile)

    def decode(self, x: Tensor, how: DrawingOptions) -> Tensor:
        return self.its.read(how).decode(x, how.tile)

    def glance(self, x0: Tensor, how: DrawingOptions) -> Tensor:
        model = self.its.read(how)
        height, width = (side * model.downscale for side in x0.shape[2:])
        small = model.preview(x0).numpy()
        return torch.from_numpy(np.stack([scaled(each, height, width) for each in small]))

    def forecast(self, how: DrawingOptions, strength: float, fit: Fit, count: int) -> dict[str, Any]:
        return self.its.forecast(how, self.its.wish(how, strength), fit.canvas, count, encodes=1 + bool(self.reads))
