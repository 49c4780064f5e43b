"""text -> image: small pictures from a generative adversarial network, of the class that the text names or of any.

Generator and critic learn in the one loop: `models/gan.py` gives both losses in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.data.pictures_small import NAMES, SHAPES, SmallPictures, SmallSet, any_labels, label, normal, uniform
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.metrics.frechet import distance, gaussian
from conjure.metrics.variety import COLLAPSED, variety
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.gan import GAN, GANConfig
from conjure.tasks.memorisation import Sets, small_sets
from conjure.tasks.picture_figures import COUNT, picture_figures

LOOKED = 1000  # pictures that the evaluation while training looks at
COARSE = 7  # pixels of a side to which pictures are averaged for it
PART = 200  # pictures at a time


@plain_dataclass(frozen=True, kw_only=True)
class GANData:
    """The generator learns from every `turns`-th run of `block` examples; `block` is the recipe's batch."""

    set: SmallSet = "mnist"
    turns: int = 1
    block: int = 64


@dataclass(frozen=True, kw_only=True)
class GANOptions:
    """How a picture is drawn."""

    temperature: float = Field(default=1.0, ge=0, le=10, description="spread of the noise (1: as trained, 0: none)")
    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")


class SampleGAN:
    """`source` is there while the model trains; a loaded one has none."""

    Options = GANOptions
    ModelConfig = GANConfig
    DataConfig = GANData
    causal, game = False, True

    def __init__(self, network: GAN, data: GANData, *, source: SmallPictures | None = None, seed: int = 0) -> None:
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.config, self.sets = network.config, (data.set,)

    @classmethod
    def create(cls, model: GANConfig, data: GANData, seed: int = 0) -> SampleGAN:
        """A new pair of networks; sides and classes must be those of the data."""
        wanted, classes = (model.side, model.side, model.channels), len(NAMES[data.set])
        if wanted != SHAPES[data.set] or model.classes not in (0, classes):
            raise ConjureError(f"model: {data.set} has pictures of {SHAPES[data.set]} and {classes} classes, the "
                               f"network is for {wanted} and {model.classes}")
        if data.turns < 1 or data.block < 1:
            raise ConjureError(f"data: expected turns and block above 0, got {data.turns} and {data.block}")
        with randomness.drawing_weights(seed):
            network = GAN(model)
        return cls(network, data, source=SmallPictures(data.set, seed=seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> SampleGAN:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        network = GAN(from_dict(GANConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        return cls(network.eval().requires_grad_(False), from_dict(GANData, saved["data"], where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`x` in [-1, 1] `[B, C, H, W]`, `labels` and `turn` `[B]`, and the noise: `z` `[B, Z]`, `mix` `[B]`."""
        assert self.source is not None
        pixels_BHWC, labels_B = self.source.batch(indices)
        turn_B = [index // self.data.block % self.data.turns == 0 for index in indices]
        return {
            "x": from_pixels(torch.from_numpy(pixels_BHWC)),
            "labels": torch.from_numpy(labels_B),
            "z": torch.from_numpy(normal(self.seed, "latents", indices, self.config.latent)),
            "mix": torch.from_numpy(uniform(self.seed, "mix", indices, 1)[:, 0]),
            "turn": torch.tensor(turn_B, dtype=torch.float32),
        }

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(the critic's loss, number of pictures). The generator's has gradients here but no value: the sum of the two
        says nothing, since what one wins the other loses."""
        play = self.network if network is None else network
        critic_B, generator_B, _ = play(batch["x"], batch["z"], batch["mix"], batch["labels"], batch["turn"])
        total = critic_B.sum() + (generator_B - generator_B.detach()).sum()
        return total, torch.tensor(len(critic_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["x"])

    def flops(self, batch: dict[str, Tensor]) -> float:
        """The critic sees three batches and the generator makes one; backward passes cost twice as much."""
        return 6 * self.network.flops(len(batch["x"]))

    def describe(self, batch: dict[str, Tensor]) -> str:
        names = [NAMES[self.data.set][k] for k in batch["labels"].tolist()]
        turn = "learns" if bool(batch["turn"].any()) else "sits out"
        return f"{len(names)} pictures; the generator {turn}: {', '.join(names)}"

    def preview(self, seed: int) -> dict[str, Image]:
        """64 samples; of a conditional model each column one class."""
        columns = self.config.classes or 8
        seeds = [randomness.derive(seed, k) for k in range(8 * columns)]
        pixels_BHWC = self._drawn(seeds, [k % columns for k in range(8 * columns)])
        return {"samples": grid([Image(each) for each in pixels_BHWC], columns=columns)}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """How far samples are from test pictures, both averaged to 7 x 7 pixels and taken for Gaussians, and how
        various they are: the mean distance between two samples over that between two test pictures. Near 0 the
        generator has collapsed to few pictures."""
        real = SmallPictures(self.data.set, "test")
        count = min(limit or LOOKED, LOOKED, len(real))
        made_NHWC, places = self._many(count), slice(None, None, len(real) // count)
        real_NHWC, labels_N = real.pixels_NHWC[places][:count].copy(), real.labels_N[places][:count]
        return {"coarse_distance": _coarse_distance(made_NHWC, real_NHWC),
                "variety": self._variety(made_NHWC, real_NHWC, labels_N)}

    def _variety(self, made_NHWC: np.ndarray, real_NHWC: np.ndarray, labels_N: np.ndarray) -> float:
        """Within the classes where the model was told them: one picture of each class is a collapse too."""
        if not self.config.classes:
            return variety(made_NHWC, real_NHWC)
        seeds = [randomness.derive(0, "measured", k) for k in range(len(made_NHWC))]
        drawn_N = np.array(any_labels(self.data.set, seeds))
        both = [(made_NHWC[drawn_N == k], real_NHWC[labels_N == k]) for k in range(self.config.classes)]
        return float(np.mean([variety(*each) for each in both if min(map(len, each)) > 1]))

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="gan", task="gan", network=self.network,
                     sections={"model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: GANOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        names = NAMES[self.data.set]
        asked = label(" ".join(text.text for text in inputs), names)
        if asked is not None and not self.config.classes:
            yield Warn(f"this model was not told classes: it draws any, not only {names[asked]}")
        labels = any_labels(self.data.set, seeds) if asked is None else [asked] * len(seeds)
        pictures = [Image(each) for each in self._drawn(seeds, labels, options.temperature)]
        pictures = [resized(each, options.size) for each in pictures] if options.size else pictures
        yield Progress(len(pictures), len(pictures), "picture")
        yield Result(pictures, {"evaluations": 1})

    @torch.no_grad()
    def _drawn(self, seeds: Sequence[int], labels: Sequence[int], temperature: float = 1.0) -> np.ndarray:
        """uint8 `[B, H, W, C]`. One by one: a matrix product may round otherwise in a batch of another size."""
        z_BZ = randomness.normal(list(seeds), (self.config.latent,)) * temperature
        rows = zip(z_BZ.split(1), torch.tensor(list(labels)).split(1), strict=True)
        x_BCHW = torch.cat([self.network.generator(*row) for row in rows])
        return to_pixels(x_BCHW).contiguous().numpy()

    @torch.no_grad()
    def _many(self, count: int, tell: Callable[[Event], None] | None = None) -> np.ndarray:
        """`count` samples of all classes alike, for measuring: uint8 `[N, H, W, C]`."""
        parts = []
        for start in range(0, count, PART):
            seeds = [randomness.derive(0, "measured", k) for k in range(start, min(start + PART, count))]
            z_BZ = randomness.normal(seeds, (self.config.latent,))
            x_BCHW = self.network.generator(z_BZ, torch.tensor(any_labels(self.data.set, seeds)))
            parts.append(to_pixels(x_BCHW).numpy())
            if tell:
                tell(Progress(start + len(seeds), count, "picture"))
        return np.concatenate(parts)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Frechet and kernel distance to test pictures, precision and recall over our own features, and variety."""
        source, made = SmallPictures(self.data.set, "test"), self._many(COUNT, on_progress)
        found, real = picture_figures(made, self.data.set), source.pixels_NHWC
        value = self._variety(made[:LOOKED], real[:LOOKED], source.labels_N[:LOOKED])
        within = " of one class" if self.config.classes else ""
        said = f"mean distance between two samples{within} over that between two test pictures{within}, pixel by pixel"
        said += "; below 0.5: the generator has COLLAPSED to few pictures" if value < COLLAPSED else ""
        found["variety"] = {"value": value, "low": value, "high": value, "n": LOOKED, "protocol": said}
        return found

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        return small_sets(self.data.set, self._many(LOOKED, tell))


def _coarse(pixels_NHWC: np.ndarray) -> np.ndarray:
    x_NCHW = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(x_NCHW, COARSE).flatten(1).numpy()


def _coarse_distance(made_NHWC: np.ndarray, real_NHWC: np.ndarray) -> float:
    return distance(gaussian(_coarse(made_NHWC)), gaussian(_coarse(real_NHWC)))
