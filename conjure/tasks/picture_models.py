"""What edits of pictures need of a model: our own painters and models from elsewhere behind one protocol.

Legend: B batch, one a seed; H and W pixels of the canvas, C channels; x latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from conjure.core.events import Event
from conjure.diffusion.samplers import Step
from conjure.media.fit import Fit, Size
from conjure.media.mask import Box
from conjure.tasks.abilities import is_public
from conjure.tasks.drawing_options import DrawingOptions
from conjure.tasks.public_painter import PublicPainter
from conjure.tasks.scene_painter import Frame, ScenePainter


class PictureModel(Protocol):
    """A latent diffusion model that changes pictures, on canvases whose size it chooses."""

    @property
    def at_once(self) -> int:
        """Pictures that it draws at a time."""
        ...

    @property
    def carries_on(self) -> float:
        """The strength with which a gap is filled that no text is about."""
        ...

    def fit(self, picture: Size, longest: int = 0) -> Fit:
        """How a picture of this size lies on its canvas; `longest` is the longer side, where that is asked for."""
        ...

    def windows(self, mask_HW: np.ndarray, longest: int = 0) -> list[Box]:
        """Parts of a picture that together hold all that a mask marks, in the order in which to draw them."""
        ...

    def ready(self, how: DrawingOptions, texts: Sequence[str], fit: Fit) -> Iterator[Event]:
        """Reads what is still to be read; refuses what cannot be, and says what of the options will not count."""
        ...

    def caption(self, text: str, pixels_HWC: Tensor, seen_HW: Tensor) -> str:
        """What to tell the model of a text for a canvas (uint8) whose pixels marked in `seen` (bool) stay."""
        ...

    def count(self, how: DrawingOptions, strength: float, fit: Fit) -> int:
        """Steps that `draw` will take."""
        ...

    def evaluations(self, how: DrawingOptions, strength: float, fit: Fit) -> int:
        """How often the network is asked for one picture."""
        ...

    def draw(
        self, canvas_BHWC: Tensor, open_HW: Tensor | None, text: str, how: DrawingOptions, seeds: Sequence[int], *,
        strength: float, repeats: int = 1, frame: Frame | None = None,
    ) -> Iterator[Step]:  # fmt: skip
        """Steps from a noisy version of the canvas (uint8), of the share `strength`: everywhere, or where `open` (bool)
        is true. What the text names goes into `frame`, where the model knows of places."""
        ...

    def decode(self, x: Tensor, how: DrawingOptions) -> Tensor:
        """uint8 RGB `[B, H, W, 3]`."""
        ...

    def glance(self, x0: Tensor, how: DrawingOptions) -> Tensor:
        """The same, quickly, of an estimate."""
        ...

    def forecast(self, how: DrawingOptions, strength: float, fit: Fit, count: int) -> dict[str, Any]:
        """What `count` pictures take: `evaluations`, `memory_bytes`, `seconds`."""
        ...


def picture_model(folder: Path) -> PictureModel:
    """The model in a folder that edits pictures; `ConjureError` where it cannot."""
    return PublicPainter.load(folder) if is_public(folder) else ScenePainter.load(folder)


def batches(seeds: Sequence[int], size: int) -> list[Sequence[int]]:
    """The seeds, so many at a time."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]
