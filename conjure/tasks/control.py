"""image (+ text) -> image: a new picture that follows the lines or the depth of another, by a public model and one or
several ControlNets (Zhang et al. 2023, arXiv 2302.05543)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result
from conjure.media.edges import HIGH, LOW, edges
from conjure.media.fit import Fit
from conjure.media.image import Image, grid
from conjure.models import drawing_cost
from conjure.models.controlnet import ControlNet
from conjure.models.latent_diffusion import Guide, reads_of
from conjure.models.public.controlnets import belongs, open_controlnet, read_controlnet_config
from conjure.tasks.drawing_options import DrawingOptions, Longest, soft
from conjure.tasks.inputs import LOCAL, moving, parted
from conjure.tasks.public_model import PublicModel, weighted

As = Literal["edges", "depth", "as-is"]


@dataclass(frozen=True, kw_only=True)
class ControlOptions(DrawingOptions):
    """What steers, and what it is shown."""

    control: tuple[str, ...] = Field(default=(), json_schema_extra=LOCAL, description="ControlNets, each FOLDER or "
                                     "FOLDER:WEIGHT, together")
    guide: tuple[As, ...] = Field(default=("edges",), description="what they are shown: edges found in the picture; "
                                  "the picture as depth (grey, stretched, near is bright); or as-is, for scribbles and "
                                  "maps made elsewhere. One for all, or one for each --control")
    low: float = Field(default=LOW, ge=0, le=2000, description="how steep an edge is at least")
    high: float = Field(default=HIGH, ge=0, le=2000, description="how steep it is somewhere")
    longest: Longest = 0


class Control:
    """Draws what a text says along what a picture shows."""

    Options = ControlOptions

    def __init__(self, model: PublicModel) -> None:
        self.model = model
        self._held: dict[Path, ControlNet] = {}
        if reads_of(model.pipeline):
            raise ConjureError(f"{model.path.name} changes pictures, and does not draw new ones along a guide",
                               hint="take the model that draws from texts alone")

    @classmethod
    def load(cls, folder: Path) -> Control:
        return cls(PublicModel(folder))

    def generate(self, inputs: Sequence[Any], options: ControlOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture a seed, of the guide's size; the first preview is what the networks are shown."""
        picture, text, _ = parted(inputs, options)
        yield from moving(picture)
        its, wish, steering = self.model, self.model.wish(options), chosen(options)
        fit = its.fit((picture.height, picture.width), options.longest)
        more = self._checked(steering, fit)[1]
        yield Progress(0, its.plan(wish, fit.canvas).count * len(seeds), "step", "reading the model")
        yield from its.ready(options, [text], fit.canvas, 4 * more)
        for said in (its.small, soft):
            yield from said(fit)
        shown = [drawn_as(kind, fit.laid(picture.rgb()), options) for _, _, kind in steering]
        yield Preview(lambda: grid([Image(each) for each in shown]))
        guides = [
            Guide(network=self._read(folder, its.read(options).device), weight=weight,
                  picture_BCHW=torch.from_numpy(each).permute(2, 0, 1)[None].float() / 255)
            for (folder, weight, _), each in zip(steering, shown, strict=True)
        ]  # fmt: skip
        height, width = fit.canvas
        begin = partial(its.read(options).sample, *its.told(options, text), wish, height=height, width=width,
                        guides=guides)  # fmt: skip
        made = yield from its.drawn(options, wish, fit, seeds, lambda noise: begin(noise=noise))
        yield Result(made, {"evaluations": its.evaluations(wish, fit.canvas), "steps": wish.steps,
                            "guidance": wish.guidance})  # fmt: skip

    def _checked(self, steering: Sequence[tuple[Path, float, As]], fit: Fit) -> tuple[float, int]:
        """Operations of one evaluation of all ControlNets, and their parameters; refuses those of other models."""
        pipeline, flops, parameters = self.model.pipeline, 0.0, 0
        for folder, _, _ in steering:
            config = read_controlnet_config(folder)
            belongs(folder, config, pipeline, drawing_cost.shrink(pipeline))
            its_flops, its_parameters = drawing_cost.steering(config, pipeline, *fit.canvas)
            flops, parameters = flops + its_flops, parameters + its_parameters
        return flops, parameters

    def _read(self, folder: Path, device: torch.device) -> ControlNet:
        if folder not in self._held:
            self._held[folder] = open_controlnet(folder)
        return self._held[folder].to(device)

    @staticmethod
    def forecast(folder: Path, options: ControlOptions, count: int, inputs: Sequence[Any] = ()) -> dict[str, Any]:
        """`evaluations`, `memory_bytes` and `seconds` for these inputs; without them nothing can be said."""
        if not inputs:
            return {}
        its, (picture, _, _) = PublicModel(folder), parted(inputs, options)
        fit = its.fit((picture.height, picture.width), options.longest)
        flops, parameters = Control(its)._checked(chosen(options), fit)
        told = its.forecast(options, its.wish(options), fit.canvas, count, more=flops)
        return {**told, "memory_bytes": told["memory_bytes"] + 4 * parameters}

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        return {}


def chosen(options: ControlOptions) -> list[tuple[Path, float, As]]:
    """The folder of each ControlNet, its weight, and what it is shown."""
    if not options.control:
        raise ConjureError("nothing steers the picture", hint="name a ControlNet: --control FOLDER")
    count = len(options.control)
    if len(options.guide) not in (1, count):
        raise ConjureError(f"--guide: expected one, or one for each of {count} ControlNets, got {len(options.guide)}")
    kinds = options.guide * (count if len(options.guide) == 1 else 1)
    parts = [weighted(each) for each in options.control]
    return [(shelf.find(str(name)), weight, kind) for (name, weight), kind in zip(parts, kinds, strict=True)]


def drawn_as(kind: As, pixels_HW3: np.ndarray, options: ControlOptions) -> np.ndarray:
    """What a ControlNet is shown of a picture: uint8 `[H, W, 3]`."""
    if kind == "as-is":
        return pixels_HW3
    if kind == "edges":
        return np.repeat(edges(pixels_HW3, options.low, options.high)[..., None].astype(np.uint8) * 255, 3, axis=2)
    grey_HW = pixels_HW3 @ np.array([0.299, 0.587, 0.114])
    low, high = float(grey_HW.min()), float(grey_HW.max())
    stretched = (grey_HW - low) * (255 / (high - low) if high > low else 0)
    return np.repeat(np.rint(stretched).astype(np.uint8)[..., None], 3, axis=2)
