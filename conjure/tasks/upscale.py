"""image -> image: two or four times as large, by Lanczos and back-projection. No network draws anything new.

Lanczos alone makes a picture that, shrunk again, is not quite the one it came from. Back-projection (Irani and Peleg,
Improving resolution by image registration, 1991) adds what is missing until it is: edges come out sharper, and details
that were not in the picture stay out.

Legend: H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from conjure.core.events import Event, Progress, Result
from conjure.media.bounds import PIXELS, bound, over
from conjure.media.image import Image
from conjure.tasks.inputs import moving, parted

ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """How much larger."""

    scale: Literal[2, 4] = Field(default=2, description="how many times as wide and as high")
    method: Literal["back-projection", "lanczos"] = Field(default="back-projection", description="sharpened until it "
                                                          "shrinks to the same picture, or Lanczos alone")

    @field_validator("scale", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class Upscale:
    """Enlarges a picture. It is arithmetic: no model takes part and every seed gives the same."""

    Options = UpscaleOptions

    def generate(self, inputs: Sequence[Any], options: UpscaleOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The same picture for every seed, transparency and all; `ConjureError` over `CONJURE_MAX_PIXELS`."""
        picture, _, _ = parted(inputs, options)
        yield from moving(picture)
        height, width = picture.height * options.scale, picture.width * options.scale
        if height * width > bound(PIXELS):
            raise over("the larger picture", f"{width:,} x {height:,} = {height * width:,}", PIXELS, "pixels")
        values = _premultiplied(picture)
        done, rounds = 0, ROUNDS if options.method == "back-projection" else 0
        large = values
        for larger in enlarged(values, options.scale, rounds):
            large, done = larger, done + 1
            yield Progress(done, rounds + 1, "round")
        yield Result([_picture(large)] * len(seeds), {"scale": options.scale})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def enlarged(values_HWC: np.ndarray, scale: int, rounds: int) -> Iterator[np.ndarray]:
    """Lanczos, then the picture after every round of back-projection: float32 `[H scale, W scale, C]`, 0 to 255.

    What is missing is measured by the mean of each `scale` x `scale` block, and given back bicubically.
    """
    H, W, C = values_HWC.shape
    large = np.clip(_resized(values_HWC, H * scale, W * scale, "LANCZOS"), 0, 255)
    yield large
    for _ in range(rounds):
        missing = values_HWC - large.reshape(H, scale, W, scale, C).mean((1, 3))
        large = np.clip(large + _resized(missing, H * scale, W * scale, "BICUBIC"), 0, 255)
        yield large


def _resized(values_HWC: np.ndarray, height: int, width: int, kernel: str) -> np.ndarray:
    from PIL import Image as Pillow

    planes = (Pillow.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(values_HWC, -1, 0))
    return np.stack([np.asarray(p.resize((width, height), Pillow.Resampling[kernel])) for p in planes], axis=-1)


def _premultiplied(image: Image) -> np.ndarray:
    """float32 `[H, W, C]`, so that colours nobody sees do not come in at transparent edges."""
    values = image.pixels.astype(np.float32)
    if image.alpha() is not None:
        values[:, :, :3] *= values[:, :, 3:] / 255
    return values


def _picture(values_HWC: np.ndarray) -> Image:
    if values_HWC.shape[2] == 4:
        alpha = values_HWC[:, :, 3:]
        colour = values_HWC[:, :, :3] * 255 / np.where(alpha > 0, alpha, 1)
        values_HWC = np.concatenate([colour, alpha], axis=2)
    return Image(np.rint(np.clip(values_HWC, 0, 255)).astype(np.uint8))
