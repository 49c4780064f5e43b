"""The knobs of everything that draws: `SamplingOptions` of models trained here, `DrawingOptions` of those from
elsewhere and of edits with any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from conjure.core.events import Event, Warn
from conjure.diffusion.names import SAMPLER_NAMES, canonical, without_spacing
from conjure.media.fit import Fit
from conjure.tasks.inputs import LOCAL

if TYPE_CHECKING:
    Sampler = str
else:
    Sampler = Annotated[Literal[*SAMPLER_NAMES], BeforeValidator(without_spacing)]
    """A sampler for models trained here, whose levels are their own."""

Negative = Annotated[str, Field(description="what the picture should not show (needs --guidance above 1)")]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How a picture is drawn."""

    steps: int = Field(default=8, ge=1, le=1000, description="steps of the sampler; more is slower and more faithful")
    guidance: float = Field(default=1.0, ge=0, le=30, description="how strongly the prompt pulls (1: as trained)")
    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")
    sampler: Sampler = Field(default="euler", description="how the noise is removed")


def _known(name: str) -> str:
    if name:
        canonical(name)
    return name


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """How a picture is drawn. What is left at 0 or none, the model decides."""

    steps: int = Field(default=0, ge=0, le=1000, description="steps of the sampler (0: as many as suit the model)")
    guidance: float | None = Field(default=None, ge=0, le=100, description="how strongly the text pulls; up to 1 "
                                   "nothing is compared with, which takes half the time (none: what suits the model)")
    rescale: float = Field(default=0.0, ge=0, le=1, description="takes back the glare of strong guidance; 0.7 is usual "
                           "for models that predict v")
    negative: str = Field(default="", description="what the picture should not show (needs guidance above 1)")
    sampler: Annotated[str, AfterValidator(_known)] = Field(default="", description="how the noise is removed, by any "
                         "usual name; see `conjure list samplers` (empty: the model's own)")
    skip: int = Field(default=0, ge=0, le=11, description="layers of CLIP that are left out, 1 for many drawn styles")
    lora: tuple[str, ...] = Field(default=(), json_schema_extra=LOCAL, description="LoRA files, each FILE or "
                                  "FILE:STRENGTH")
    embedding: tuple[str, ...] = Field(default=(), json_schema_extra=LOCAL, description="files of words learnt by "
                                       "textual inversion")
    tile: int = Field(default=0, ge=0, le=1024, description="rows of latents that are coded at a time: less memory "
                      "(0: all)")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps")


SOFT = 1.5
"""How much what is drawn may be enlarged without a word."""

PUBLIC = ("skip", "lora", "embedding", "tile", "device", "longest")
"""Those that only models from elsewhere know."""

Longest = Annotated[int, Field(ge=0, le=8192, description="longer side in pixels at which the model draws (0: models "
                               "from elsewhere draw at the picture's own size, up to twice what they learnt)")]
"""The type of a further knob of edits."""


def soft(fit: Fit) -> Iterator[Event]:
    """A word where what is drawn will be enlarged a lot."""
    if fit.enlarges > SOFT:
        height, width = fit.scaled
        yield Warn(f"the model draws {width} x {height} pixels: that is enlarged {fit.enlarges:.1f} times and will "
                   "look soft")
