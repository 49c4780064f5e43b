"""text -> image: small pictures from noise, of the class that the text names or of any.

One trainer for all: a U-Net or a DiT, in the process of DDPM, EDM or rectified flow (`models/pixel_denoiser.py`), drawn
by any sampler. DDPM's own way of drawing is the sampler "ddpm", DDIM's is "ddim".

Legend: B batch, N pictures, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.data.pictures_small import NAMES, SHAPES, SmallPictures, SmallSet, any_labels, label, uniform
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.guidance import guided
from conjure.diffusion.samplers import SAMPLERS
from conjure.diffusion.stepping import Step
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.pixel_denoiser import PixelDenoiser, PixelDiffusionConfig
from conjure.tasks.drawing_options import Sampler, SamplingOptions
from conjure.tasks.memorisation import Sets, small_sets
from conjure.tasks.picture_figures import COUNT, picture_figures

PART = 100  # pictures at a time, in measuring
COPIES = 500  # samples that are held against the training pictures
LOOKED = 1000  # test pictures whose loss is measured while training
GOLDEN = 0.6180339887498949
"""Its multiples, without what is before the point, lie evenly over 0 to 1, those of neighbouring examples too."""


@plain_dataclass(frozen=True, kw_only=True)
class PixelData:
    set: SmallSet = "mnist"
    mirror: bool = False
    """Whether half of the pictures come mirrored: right for photographs, wrong for digits."""


@dataclass(frozen=True, kw_only=True)
class PixelOptions(SamplingOptions):
    """How a picture is drawn."""

    steps: int = Field(default=10, ge=1, le=1000, description="steps of the sampler; more is slower and more faithful")
    guidance: float = Field(default=1.0, ge=0, le=30, description="how strongly the class pulls (1: as trained)")
    sampler: Sampler = Field(default="dpmpp_2m", description="how the noise is removed")


class SamplePixels:
    """`source` is there while the model trains; a loaded one has none."""

    Options = PixelOptions
    ModelConfig = PixelDiffusionConfig
    DataConfig = PixelData
    causal = False

    def __init__(
        self, network: PixelDenoiser, data: PixelData, *, source: SmallPictures | None = None, seed: int = 0
    ) -> None:
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.config, self.sets = network.config, (data.set,)
        self._flops = network.flops(*SHAPES[data.set][:2]) if source else 0.0

    @classmethod
    def create(cls, model: PixelDiffusionConfig, data: PixelData, seed: int = 0) -> SamplePixels:
        """A new network; channels and classes must be those of the data, and the patch must divide the sides."""
        fits(model, data)
        with randomness.drawing_weights(seed):
            network = PixelDenoiser(model)
        return cls(network, data, source=SmallPictures(data.set, seed=seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> SamplePixels:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        network = PixelDenoiser(from_dict(PixelDiffusionConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        return cls(network.eval().requires_grad_(False), from_dict(PixelData, saved["data"], where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`pixels` uint8 `[B, C, H, W]`, `labels` (the last one: not told), `seeds` and `indices` `[B]`."""
        assert self.source is not None
        pixels_BHWC, labels_B = self.source.batch(indices)
        drop_B, mirror_B = uniform(self.seed, "choices", indices, 2).T
        labels_B = np.where(drop_B < self.config.drop, self.network.none, labels_B)
        if self.data.mirror:
            turned = (mirror_B < 0.5)[:, None, None, None]
            pixels_BHWC = np.where(turned, pixels_BHWC[:, :, ::-1], pixels_BHWC)
        return self._tensors(pixels_BHWC, labels_B, self.seed, indices)

    def _tensors(
        self, pixels_BHWC: np.ndarray, labels_B: np.ndarray, seed: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        return {
            "pixels": torch.tensor(pixels_BHWC).permute(0, 3, 1, 2).contiguous(),
            "labels": torch.from_numpy(labels_B.astype(np.int64)),
            "seeds": torch.tensor([randomness.derive(seed, "example", i) for i in indices]),
            "indices": torch.tensor(list(indices)),
        }

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(the process's loss, number of pictures). Times lie evenly over a batch, which makes its loss a steadier
        estimate (Kingma et al. 2021, arXiv 2107.00630, appendix I.1)."""
        denoiser, process = self.network if network is None else network, self.config.process
        x0 = batch["pixels"].float() / 127.5 - 1  # not before: half precision would blur it
        noise = randomness.normal(batch["seeds"].tolist(), x0.shape[1:]).to(x0.device)
        u_B = (batch["indices"].double() * GOLDEN + 0.5) % 1
        t_B = process.time(u_B.float()).to(x0.device)
        labels_B = batch["labels"]
        loss_B = process.loss(lambda x, told_B: denoiser(x, told_B, labels_B), x0, noise, t_B)
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["pixels"])

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * len(batch["pixels"]) * self._flops

    def describe(self, batch: dict[str, Tensor]) -> str:
        names = [*NAMES[self.data.set], "(not told)"]
        shown = ", ".join(names[k] for k in batch["labels"].tolist())
        pixels_BCHW = batch["pixels"]
        return f"{len(pixels_BCHW)} pictures as {tuple(pixels_BCHW.shape[1:])}; every value carries loss: {shown}"

    def preview(self, seed: int) -> dict[str, Image]:
        """64 or 80 samples; of a conditional model each column one class."""
        columns = self.config.classes or 8
        seeds = [randomness.derive(seed, k) for k in range(8 * columns)]
        pixels_BHWC = self.draw(seeds, [k % columns for k in range(8 * columns)], PixelOptions())
        return {"samples": grid([Image(each) for each in pixels_BHWC], columns=columns)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Loss at fixed times and noise over test pictures, told their classes."""
        source = SmallPictures(self.data.set, "test")
        count, total = min(limit or LOOKED, LOOKED, len(source)), 0.0
        for start in range(0, count, PART):
            places = range(start, min(start + PART, count))
            part = slice(places.start, places.stop)
            total += self.loss(self._tensors(source.pixels_NHWC[part], source.labels_N[part], 0, places))[0].item()
        return {"loss": total / count}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="pixel_denoiser", task="pixel_diffusion", network=self.network,
                     sections={"model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    @torch.no_grad()
    def generate(self, inputs: Sequence[Text], options: PixelOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others: each is drawn by itself, since a product
        of matrices may round otherwise in a batch of another size."""
        names = NAMES[self.data.set]
        asked = label(" ".join(text.text for text in inputs), names)
        if asked is not None and not self.config.classes:
            yield Warn(f"this model was not told classes: it draws any, not only {names[asked]}")
        if options.guidance != 1 and not self.config.classes:
            yield Warn("guidance has no effect on a model that was not told classes")
        labels = any_labels(self.data.set, seeds) if asked is None else [asked] * len(seeds)
        alone = [self.steps([seed], [k], options) for seed, k in zip(seeds, labels, strict=True)]
        pictures: list[Image] = []
        for done, steps in enumerate(zip(*alone, strict=True), start=1):
            yield Progress(done, options.steps, "step")
            yield Preview(lambda steps=steps: grid([Image(each) for step in steps for each in pixels(step.x0)]))
            pictures = [Image(each) for step in steps for each in pixels(step.x)]
        pictures = [resized(each, options.size) for each in pictures] if options.size else pictures
        yield Result(pictures, {"evaluations": self.evaluations(options)})

    def evaluations(self, options: PixelOptions) -> int:
        """Passes of the network for one picture: guidance needs a second one, without the class."""
        twice = options.guidance != 1 and self.config.classes
        return SAMPLERS[options.sampler].evaluations(options.steps) * (2 if twice else 1)

    def steps(self, seeds: Sequence[int], labels: Sequence[int], options: PixelOptions) -> Iterator[Step]:
        """From noise to pictures, for many at once."""
        process, told_B = self.config.process, torch.tensor(list(labels))
        none_B = torch.full_like(told_B, self.network.none)
        denoise = guided(process.denoise(self.network), options.guidance if self.config.classes else 1.0,
                         condition=[told_B], unconditional=[none_B])
        height, width, channels = SHAPES[self.data.set]
        x = process.prior(randomness.normal(seeds, (channels, height, width)))
        return SAMPLERS[options.sampler].steps(
            within_pixels(denoise), x, process.sigmas(options.steps), randomness.Noise(seeds)
        )

    @torch.no_grad()
    def draw(
        self, seeds: Sequence[int], labels: Sequence[int], options: PixelOptions,
        tell: Callable[[Event], None] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Many pictures, some at a time: uint8 `[N, H, W, C]`."""
        parts = []
        for start in range(0, len(seeds), PART):
            part = slice(start, start + PART)
            *_, last = self.steps(seeds[part], labels[part], options)
            parts.append(pixels(last.x))
            if tell:
                tell(Progress(min(part.stop, len(seeds)), len(seeds), "picture"))
        return np.concatenate(parts)

    def many(
        self, count: int, options: PixelOptions, tell: Callable[[Event], None] | None = None
    ) -> np.ndarray:
        """`count` samples of all classes alike with fixed seeds, for measuring: uint8 `[N, H, W, C]`."""
        seeds = [randomness.derive(0, "measured", k) for k in range(count)]
        return self.draw(seeds, any_labels(self.data.set, seeds), options, tell)

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        """Samples, training pictures and test pictures."""
        return small_sets(self.data.set, self.many(COPIES, PixelOptions(), tell))

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Frechet and kernel distance to test pictures, precision and recall, over our own features."""
        return picture_figures(self.many(COUNT, PixelOptions(), on_progress), self.data.set)


def fits(model: PixelDiffusionConfig, data: PixelData) -> None:
    """`ConjureError` where the network is for other pictures."""
    height, width, channels = SHAPES[data.set]
    classes, multiple = len(NAMES[data.set]), model.multiple
    if model.channels != channels or model.classes not in (0, classes):
        raise ConjureError(f"model: {data.set} has {channels} channels and {classes} classes, the network is for "
                           f"{model.channels} and {model.classes}",
                           hint=f"a U-Net counts one class more, for none: model.unet.classes={classes + 1}")
    if height % multiple or width % multiple or (model.dit and model.dit.size != height):
        raise ConjureError(f"model: {data.set} has pictures of {width} x {height} pixels, the network is for "
                           f"{f'a side of {model.dit.size}' if model.dit else f'multiples of {multiple}'}")


def within_pixels(denoise: Denoiser) -> Denoiser:
    """The same with estimates cut to [-1, 1]: the mean of all pictures that could lie under the noise is never outside,
    so what is there is error (and, with guidance, overexposed)."""
    return replace(denoise, estimate=lambda x, sigma_B: denoise(x, sigma_B).clamp(-1, 1))


def pixels(x_BCHW: Tensor) -> np.ndarray:
    """[-1, 1] -> uint8 `[B, H, W, C]`."""
    return to_pixels(x_BCHW.float()).contiguous().numpy()
