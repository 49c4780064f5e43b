"""image -> image: outlines to pictures and pictures to outlines, learnt without pairs (CycleGAN).

Two faults of such models are measured. Collapse: all outlines come out alike, or in one colour (`variety`,
`colour_variety`). Hiding: the outline carries the picture in grey levels nobody sees, so that the way back is easy (Chu
et al. 2017, arXiv 1712.02950); therefore the way back is also measured from outlines in black and white alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.events import Event, Progress, Result, Warn
from conjure.data.outlines import OutlineSource, fitted, grey, inside, plainly
from conjure.media.image import Image, grid, resized
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.measured import resampled
from conjure.metrics.psnr import apart, psnrs
from conjure.metrics.variety import COLLAPSED, neighbours, ratio
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.picture_translator import CycleTranslator, Translator, TranslatorConfig
from conjure.tasks.memorisation import Sets

SHOWN = 12  # held-out pictograms of a preview
DARK = 128  # grey level: a drawing that is mostly darker has no white ground
RESAMPLES = 400


@plain_dataclass(frozen=True, kw_only=True)
class CycleGANData:
    """Pictograms on white of `size` pixels a side, and outlines of others."""

    size: int = 64


@dataclass(frozen=True, kw_only=True)
class CycleGANOptions:
    """Which way to go, and how the picture is given out."""

    direction: Literal["outline->picture", "picture->outline"] = Field(
        default="outline->picture", description="what the input is, and what is made of it"
    )
    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")


class CycleGAN:
    """Trains two generators and two critics on outlines and pictures that do not belong together. A loaded one has a
    source once it is measured."""

    Options = CycleGANOptions
    ModelConfig = TranslatorConfig
    DataConfig = CycleGANData
    sets = ("noto_emoji",)
    causal, game = False, True

    def __init__(
        self, network: CycleTranslator, data: CycleGANData, *, source: OutlineSource | None = None, seed: int = 0
    ) -> None:
        self.network, self.data, self.seed = network, data, seed
        self._source = source

    @classmethod
    def create(cls, model: TranslatorConfig, data: CycleGANData, seed: int = 0) -> CycleGAN:
        """Four new networks."""
        model.expect(data.size, 1, 3)
        with randomness.drawing_weights(seed):
            network = CycleTranslator(model)
        return cls(network, data, source=OutlineSource.load(data.size, seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> CycleGAN:
        """The model in a folder, ready to go either way."""
        saved = read_config(folder)
        network = CycleTranslator(from_dict(TranslatorConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        return cls(network.eval().requires_grad_(False), from_dict(CycleGANData, saved["data"], where="data"))

    @property
    def source(self) -> OutlineSource:
        """The pictograms, read when they are asked for."""
        self._source = self._source or OutlineSource.load(self.data.size, self.seed)
        return self._source

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`lines` `[B, 1, H, W]` of some pictograms and `pictures` `[B, 3, H, W]` of others, in [-1, 1]; `places` of
        both `[B, 2]`."""
        lines, pictures, places_B2 = self.source.strangers(indices)
        return {"lines": from_pixels(torch.from_numpy(lines)), "pictures": from_pixels(torch.from_numpy(pictures)),
                "places": torch.from_numpy(places_B2)}  # fmt: skip

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum over examples of how far off both ways there and back arrive, number of examples). Critics and
        generators have the gradients of their game here but no value: what one side wins the other loses."""
        critic_B, judged_B, cycle_B = (self.network if network is None else network)(batch["lines"], batch["pictures"])
        learnt = (critic_B + judged_B + self.network.config.weight * cycle_B).sum()
        return cycle_B.sum().detach() + (learnt - learnt.detach()), torch.tensor(len(cycle_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["places"])

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(self.tokens(batch))

    def describe(self, batch: dict[str, Tensor]) -> str:
        drawn, painted = (
            ", ".join(self.source.names[place] for place in column) for column in batch["places"].T.tolist()
        )
        return f"outlines of {drawn}; pictures of {painted}; every pixel carries loss"

    def preview(self, seed: int) -> dict[str, Image]:
        """Held-out pictograms, row by row: outline, coloured, the true picture, its outline as the model sees it."""
        lines, pictures = self.source.held_out(SHOWN)
        rows = (*lines, *self._through(self.network.there, lines), *pictures,
                *self._through(self.network.back, pictures))  # fmt: skip
        return {"outlines": grid([Image(np.ascontiguousarray(each)) for each in rows], columns=len(lines))}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Over held-out pictograms: how far off the ways there and back arrive, of 1; PSNR to the true pictures and
        outlines, which training had no pairs of; and variety."""
        lines, pictures = self.source.held_out(limit)
        painted, traced = self._through(self.network.there, lines), self._through(self.network.back, pictures)
        found = self._cycles(lines, pictures, painted, traced)
        return {
            "cycle_l1": float(np.mean(found["outline_cycle_l1"]) + np.mean(found["picture_cycle_l1"])) / 2,
            "picture_psnr_db": float(np.mean(psnrs(painted, pictures))),
            "outline_psnr_db": float(np.mean(psnrs(traced, lines))),
            "variety": ratio(neighbours(painted), neighbours(pictures)),
            "colour_variety": ratio(*(neighbours(colours(each, lines)) for each in (painted, pictures))),
        }

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="picture_translator", task="cycle_gan", network=self.network,
                     sections={"model": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Image], options: CycleGANOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same square picture; the input is put on white and scaled to the model's size."""
        (given,) = inputs
        pixels = fitted(given, self.network.config.side)
        if options.direction == "picture->outline":
            made = self._through(self.network.back, pixels[None])[0]
        else:
            if np.median(grey(pixels)) < DARK:
                yield Warn("the drawing is mostly dark: this model colours dark lines on white")
            made = self._through(self.network.there, grey(pixels)[None])[0]
        yield Progress(1, 1, "picture")
        image = Image(made)
        yield Result([resized(image, options.size) if options.size else image] * len(seeds), {"evaluations": 1})

    @torch.no_grad()
    def _through(
        self, way: Translator, pixels_NHWC: np.ndarray, tell: Callable[[Event], None] | None = None
    ) -> np.ndarray:
        """uint8 `[N, H, W, C]`. One by one: a product of matrices may round otherwise in a batch of another size."""
        made = []
        for pixels_HWC in pixels_NHWC:
            x_1CHW = from_pixels(torch.from_numpy(np.ascontiguousarray(pixels_HWC[None])))
            made.append(to_pixels(way(x_1CHW))[0].contiguous().numpy())
            if tell:
                tell(Progress(len(made), len(pixels_NHWC), "picture"))
        return np.stack(made)

    def _cycles(
        self, lines: np.ndarray, pictures: np.ndarray, painted: np.ndarray, traced: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Distances, of 1, between where a way there and back starts and where it ends, picture by picture. The last
        way goes through outlines of which every value was made black or white."""
        bare = np.where(traced < DARK, np.uint8(0), np.uint8(255))
        return {
            "outline_cycle_l1": apart(self._through(self.network.back, painted), lines),
            "picture_cycle_l1": apart(self._through(self.network.there, traced), pictures),
            "picture_cycle_l1_black_and_white": apart(self._through(self.network.there, bare), pictures),
        }

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The ways there and back, PSNR to the truth beside what has learnt nothing, and whether it has collapsed."""
        lines, pictures = self.source.held_out()
        painted = self._through(self.network.there, lines, on_progress)
        traced = self._through(self.network.back, pictures, on_progress)
        cycle, plain = "mean distance of values, of 1, after there and back", plainly(lines, self.source.ink)
        means = {name: (values_N, cycle) for name, values_N in self._cycles(lines, pictures, painted, traced).items()}
        for name, made, true, what in (
            ("picture_psnr_db", painted, pictures, "coloured outlines against the true pictures"),
            ("plain_picture_psnr_db", plain, pictures, "the training pictures' mean colour within the lines, likewise"),
            ("outline_psnr_db", traced, lines, "the model's outlines of pictures against the true outlines"),
            ("blank_outline_psnr_db", np.full_like(lines, 255), lines, "an empty page, likewise"),
            ("grey_outline_psnr_db", grey(pictures), lines, "the picture in grey, likewise"),
        ):
            means[name] = (np.array(psnrs(made, true)), f"mean of each picture's PSNR: {what}")
        said = f"held-out pictograms, {self.data.size}x{self.data.size}, 95 % bootstrap interval"
        found = {}
        for name, (values_N, what) in means.items():
            value, low, high = bootstrap_mean(values_N, seed=0)
            found[name] = {"value": value, "low": low, "high": high, "n": len(values_N), "protocol": f"{what}; {said}"}
        for name, made, true, what in (
            ("variety", painted, pictures, "pictures, value by value"),
            ("colour_variety", colours(painted, lines), colours(pictures, lines), "mean colours within the lines"),
        ):
            found[name] = self._various(neighbours(made), neighbours(true), what)
        return found

    @staticmethod
    def _various(made_N: np.ndarray, true_N: np.ndarray, what: str) -> dict[str, Any]:
        value = ratio(made_N, true_N)

        def measure(first: np.ndarray, second: np.ndarray) -> float:
            return ratio(made_N[first], true_N[second])

        drawn = resampled(measure, (len(made_N), len(true_N)), seed=0, resamples=RESAMPLES)
        said = f"mean distance between two coloured outlines over that between two true pictures: {what}; "
        said += "below 0.5: it has COLLAPSED to few pictures; " if value < COLLAPSED else ""
        low, high = (float(each) for each in np.quantile(drawn, (0.025, 0.975)))
        return {"value": value, "low": low, "high": high, "n": len(made_N),
                "protocol": f"{said}95 % bootstrap interval"}

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        """What is made of held-out outlines, against the pictures of training and the held-out ones."""
        lines, pictures = self.source.held_out()
        made = self._through(self.network.there, lines, tell)
        train = self.source.pictures_NHW3[self.source.painted]
        return Sets(made_NHWC=made, train_MHWC=train, held_out_HHWC=pictures)


def colours(pictures_NHW3: np.ndarray, lines_NHW1: np.ndarray) -> np.ndarray:
    """The mean colour within the lines, `[N, 3]`."""
    within = inside(lines_NHW1)
    return (pictures_NHW3 * within).sum((1, 2)) / within.sum((1, 2)).clip(1)
