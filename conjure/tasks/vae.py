"""text -> image: handwritten digits from a variational autoencoder, of the class that the text names or of any.

Trained on MNIST binarised anew in every epoch; measured on the 10,000 test pictures, binarised once and for all.
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

from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.data.pictures_small import NAMES, SHAPES, SmallPictures, any_labels, binarised, label, normal
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.metrics.bits import importance_bound
from conjure.metrics.confidence import bootstrap_mean
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.vae import VAE, VAEConfig
from conjure.tasks.memorisation import Sets, small_sets

BOUND = 50  # samples of the latent in the tighter bound
FIXED = 0  # the seed of the test set's binarisation and of the latents it is measured with
PART = 200  # pictures at a time, in measuring
HELD = 1000  # samples that are held against training pictures


@plain_dataclass(frozen=True, kw_only=True)
class VAEData:
    """Bernoulli pixels fit pictures that are nearly black and white."""

    set: Literal["mnist"] = "mnist"


@dataclass(frozen=True, kw_only=True)
class VAEOptions:
    """How a digit is drawn."""

    temperature: float = Field(default=1.0, ge=0, le=10, description="spread of the latents (0: their mean)")
    binary: bool = Field(default=False, description="draw every pixel black or white, in place of its probability")
    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")


class SampleVAE:
    """`sources` is there while the model trains; a loaded one has none."""

    Options = VAEOptions
    ModelConfig = VAEConfig
    DataConfig = VAEData
    causal = False

    def __init__(
        self, network: VAE, data: VAEData, *, source: SmallPictures | None = None, seed: int = 0
    ) -> None:
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.config, self.sets = network.config, (data.set,)

    @classmethod
    def create(cls, model: VAEConfig, data: VAEData, seed: int = 0) -> SampleVAE:
        """A new model; its sides and classes must be those of the data."""
        wanted = (model.side, model.side, model.channels)
        if wanted != SHAPES[data.set] or model.classes not in (0, len(NAMES[data.set])):
            raise ConjureError(f"model: {data.set} has pictures of {SHAPES[data.set]} and {len(NAMES[data.set])} "
                               f"classes, the network is for {wanted} and {model.classes}")
        with randomness.drawing_weights(seed):
            network = VAE(model)
        return cls(network, data, source=SmallPictures(data.set, seed=seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> SampleVAE:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        network = VAE(from_dict(VAEConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        return cls(network.eval().requires_grad_(False), from_dict(VAEData, saved["data"], where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`x` 0 or 1 `[B, H, W, C]`, `labels` `[B]`, and the latents' `noise` `[B, K, Z]`."""
        assert self.source is not None
        pixels_BHWC, labels_B = self.source.batch(indices)
        return self._tensors(pixels_BHWC, labels_B, self.seed, indices, self.config.samples)

    def _tensors(
        self, pixels_BHWC: np.ndarray, labels_B: np.ndarray, seed: int, indices: Sequence[int], samples: int
    ) -> dict[str, Tensor]:
        noise_BD = normal(seed, "latents", indices, samples * self.config.latent)
        return {
            "x": torch.from_numpy(binarised(pixels_BHWC, seed, indices)),
            "labels": torch.from_numpy(labels_B),
            "noise": torch.from_numpy(noise_BD).unflatten(1, (samples, self.config.latent)),
        }

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(minus the bound in nats, number of pictures)."""
        bound_B = (self.network if network is None else network)(batch["x"], batch["noise"], batch["labels"])
        return -bound_B.sum(), torch.tensor(len(bound_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["x"])

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(len(batch["x"]), self.config.samples)

    def describe(self, batch: dict[str, Tensor]) -> str:
        names = [NAMES[self.data.set][k] for k in batch["labels"].tolist()]
        share = float(batch["x"].float().mean())
        return f"{len(names)} pictures, {share:.1%} of their pixels white; every pixel carries loss: {', '.join(names)}"

    def preview(self, seed: int) -> dict[str, Image]:
        """64 samples; of a conditional model each column one class."""
        classes = self.config.classes or 8
        seeds = [randomness.derive(seed, k) for k in range(8 * classes)]
        return {"samples": grid(self._pictures(seeds, [k % classes for k in range(8 * classes)]), columns=classes)}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """The negative ELBO of test pictures in nats, and its two parts."""
        parts = self._measured(limit, 1)
        distortion, rate = parts["distortion"].mean(), parts["rate"].mean()
        return {"negative_elbo": float(distortion + rate), "distortion": float(distortion), "rate": float(rate)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="vae", task="vae", network=self.network,
                     sections={"model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: VAEOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        names = NAMES[self.data.set]
        asked = label(" ".join(text.text for text in inputs), names)
        if asked is not None and not self.config.classes:
            yield Warn(f"this model was not told classes: it draws any, not only {names[asked]}")
        labels = any_labels(self.data.set, seeds) if asked is None else [asked] * len(seeds)
        pictures = self._pictures(list(seeds), labels, options)
        yield Progress(len(pictures), len(pictures), "picture")
        yield Result(pictures, {"evaluations": 1})

    @torch.no_grad()
    def _pictures(self, seeds: list[int], labels: list[int], options: VAEOptions | None = None) -> list[Image]:
        chosen = options or VAEOptions()
        z_BZ = randomness.normal(seeds, (self.config.latent,)) * chosen.temperature
        pixels_BHWC = self.network.decode(z_BZ, torch.tensor(labels)).sigmoid()
        if chosen.binary:
            pixels_BHWC = (randomness.uniform(seeds, pixels_BHWC.shape[1:]) < pixels_BHWC).float()
        made = [Image(each.numpy()) for each in (pixels_BHWC * 255).round().to(torch.uint8)]
        return [resized(each, chosen.size) for each in made] if chosen.size else made

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """-ELBO and the importance-weighted bound over the whole test set."""
        given = ", given each picture's class" if self.config.classes else ""
        protocol = "mean over MNIST's test pictures binarised once with seed 0{}, nats, 95 % bootstrap interval"
        found = {}
        for name, samples in (("negative_elbo", 1), (f"negative_bound_{BOUND}", BOUND)):
            parts = self._measured(None, samples, on_progress)
            nats_N = (parts["distortion"] + parts["rate"] if samples == 1 else parts["bound"]).double().numpy()
            value, low, high = bootstrap_mean(nats_N, seed=0)
            what = "one sample, divergence in closed form" if samples == 1 else f"importance-weighted, K = {samples}"
            found[name] = {"value": value, "low": low, "high": high, "n": len(nats_N),
                           "protocol": f"{what}; {protocol.format(given)}"}
        return found

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        seeds = [randomness.derive(0, "measured", k) for k in range(HELD)]
        drawn = self._pictures(seeds, any_labels(self.data.set, seeds))
        return small_sets(self.data.set, np.stack([each.pixels for each in drawn]))

    @torch.no_grad()
    def _measured(
        self, limit: int | None, samples: int, tell: Callable[[Event], None] | None = None
    ) -> dict[str, Tensor]:
        """Of the first test pictures, in nats `[N]`: -log p(x | z), the divergence, minus the bound of `samples`."""
        source = SmallPictures(self.data.set, "test")
        count = min(limit or len(source), len(source))
        found: dict[str, list[Tensor]] = {"distortion": [], "rate": [], "bound": []}
        for start in range(0, count, PART):
            places = range(start, min(start + PART, count))
            labels_B = source.labels_N[places.start : places.stop].astype(np.int64)
            batch = self._tensors(source.pixels_NHWC[places.start : places.stop], labels_B, FIXED, places, samples)
            likelihood_KB, rate_B, ratio_KB = self.network.terms(batch["x"], batch["noise"], batch["labels"])
            found["distortion"].append(-likelihood_KB.mean(0))
            found["rate"].append(rate_B)
            found["bound"].append(-importance_bound(likelihood_KB + ratio_KB))
            if tell:
                tell(Progress(places.stop, count, "picture", f"bound of {samples}"))
        return {name: torch.cat(each) for name, each in found.items()}

