"""image -> text: which class a picture shows. Trains the small networks whose features FID and its kin are taken from.

The protocol `conjure-features-v1` (`models/features.py`) is such a network, its data and its resize method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.core import seeds
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.data.phrases import spoken
from conjure.data.pictures_small import NAMES, SmallPictures, SmallSet
from conjure.data.scene_graph import Split
from conjure.data.scenes import SceneSource
from conjure.media.image import Image, grid
from conjure.media.text import Text
from conjure.metrics.confidence import wilson
from conjure.models.features import (
    BATCH,
    KIND,
    FeatureConfig,
    FeatureNetwork,
    load_network,
    network_input,
    new_network,
)
from conjure.models.folder import read_config, save_weights, write_config

SHIFT = {"mnist": 2, "cifar10": 4, "cifar10_jpeg": 4}
"""Pixels by which training pictures are moved at most; scenes move their things themselves."""
SHOWN = 24  # mistakes on a preview
SCENES_TESTED = 2000
BEST = 5  # classes in the facts of a result


@plain_dataclass(frozen=True, kw_only=True)
class FeatureData:
    """`size` is the side in which composed scenes are painted; the others have their own."""

    source: Literal["mnist", "cifar10", "cifar10_jpeg", "scenes"] = "mnist"
    size: int = 64


@dataclass(frozen=True, kw_only=True)
class RecogniseOptions:
    """None: there is nothing to choose."""


class Labelled(Protocol):
    """Pictures with the numbers of their classes."""

    @property
    def names(self) -> Sequence[str]: ...

    def count(self, split: Split) -> int: ...

    def some(self, split: Split, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [B, H, W, C] and the classes, int64 [B]; each a pure function of (split, index)."""
        ...


class Features:
    """A classifier of pictures. `source` is there while it trains; a loaded one reads it where it is measured."""

    Options = RecogniseOptions
    ModelConfig = FeatureConfig
    DataConfig = FeatureData
    causal = False

    def __init__(
        self,
        network: FeatureNetwork,
        names: Sequence[str],
        *,
        data: FeatureData,
        source: Labelled | None = None,
        seed: int = 0,
    ) -> None:
        self.network, self.names, self.data, self.source, self.seed = network, tuple(names), data, source, seed

    @property
    def sets(self) -> tuple[str, ...]:
        return ("noto_emoji",) if self.data.source == "scenes" else (self.data.source,)

    @classmethod
    def create(cls, model: FeatureConfig, data: FeatureData, seed: int = 0) -> Features:
        source = _source(data, seed)
        if len(source.names) != model.classes:
            raise ConjureError(
                f"model.classes is {model.classes}, the data have {len(source.names)}",
                hint=f"model.classes={len(source.names)}",
            )
        with seeds.drawing_weights(seed):
            network = new_network(model)
        return cls(network, source.names, data=data, source=source, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Features:
        saved = read_config(folder)
        data = FeatureData(**saved["data"])
        return cls(load_network(folder), saved["classes"], data=data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        assert self.source is not None
        pixels_BHWC, labels_B = self.source.some("train", indices)
        moved = np.stack([self._moved(pixels, index) for pixels, index in zip(pixels_BHWC, indices, strict=True)])
        return {"pixels": torch.from_numpy(moved), "targets": torch.from_numpy(labels_B)}

    def _moved(self, pixels_HWC: np.ndarray, index: int) -> np.ndarray:
        """A picture moved by some pixels; photographs are also mirrored half of the time."""
        most = SHIFT.get(self.data.source, 0)
        if most == 0:
            return pixels_HWC
        draw = seeds.rng(seeds.derive(self.seed, "move", index))
        height, width = pixels_HWC.shape[:2]
        photograph = self.data.source != "mnist"
        wide = np.pad(pixels_HWC, ((most, most), (most, most), (0, 0)), mode="reflect" if photograph else "constant")
        top, left = draw.integers(2 * most + 1, size=2)
        moved = wide[top : top + height, left : left + width]
        return np.ascontiguousarray(moved[:, ::-1] if photograph and draw.random() < 0.5 else moved)

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        x_BCHW = _scaled(batch["pixels"])
        logits_BK = (self.network if network is None else network)(x_BCHW)
        return functional.cross_entropy(logits_BK, batch["targets"], reduction="sum"), torch.tensor(len(logits_BK))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["pixels"])

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(len(batch["pixels"]))

    def describe(self, batch: dict[str, Tensor]) -> str:
        b, h, w, c = batch["pixels"].shape
        shown = ", ".join(self.names[label] for label in batch["targets"].tolist())
        return f"{b} pictures of {w} x {h} pixels, {c} channels, one target each: {shown}"

    @torch.no_grad()
    def preview(self, seed: int) -> dict[str, Image]:
        """Test pictures that are taken for something else, as many as there is room for."""
        wrong: list[Image] = []
        for pixels_BHWC, labels_B in self._batches("test", 4 * BATCH):
            found_B = self.network(_scaled(pixels_BHWC)).argmax(1)
            wrong += [Image(p.numpy()) for p in pixels_BHWC[found_B != labels_B]]
        return {"mistakes": grid(wrong[:SHOWN], columns=8)} if wrong else {}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Cross-entropy in nats and the share that is right, over test pictures."""
        loss = right = count = 0.0
        for pixels_BHWC, labels_B in self._batches("test", limit):
            logits_BK = self.network(_scaled(pixels_BHWC))
            loss += functional.cross_entropy(logits_BK, labels_B, reduction="sum").item()
            right += (logits_BK.argmax(1) == labels_B).sum().item()
            count += len(labels_B)
        return {"loss": loss / count, "accuracy": right / count}

    def _batches(self, split: Split, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.source is not None
        count = min(limit or self.source.count(split), self.source.count(split))
        for start in range(0, count, BATCH):
            pixels_BHWC, labels_B = self.source.some(split, range(start, min(start + BATCH, count)))
            yield torch.from_numpy(pixels_BHWC), torch.from_numpy(labels_B)

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        sections = {"model": to_dict(self.network.config), "data": to_dict(self.data), "classes": list(self.names)}
        write_config(folder, kind=KIND, task="features", network=self.network, sections=sections)
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    @torch.no_grad()
    def generate(self, inputs: Sequence[Image], options: RecogniseOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The name of the likeliest class; the facts have the probabilities of the first few."""
        (pixels_HWC,) = (picture.rgb() for picture in inputs)
        logits_K = self.network(network_input(pixels_HWC[None], self.network.config))[0]
        shares_K, order_K = logits_K.softmax(0).sort(descending=True)
        scores = {
            self.names[k]: round(share, 4)
            for share, k in zip(shares_K[:BEST].tolist(), order_K[:BEST].tolist(), strict=True)
        }
        yield Progress(1, 1, "picture")
        yield Result([Text(self.names[int(order_K[0])])] * len(seeds), {"results": [{"labels": scores}] * len(seeds)})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The share of test pictures whose class is found."""
        self.source = self.source or _source(self.data, self.seed)
        n = self.source.count("test")
        value, low, high = wilson(round(self.evaluate()["accuracy"] * n), n)
        protocol = f"test pictures of {self.data.source} whose class is found, 95 % Wilson interval"
        return {"accuracy": {"value": value, "low": low, "high": high, "n": n, "protocol": protocol}}


# -- where the pictures come from -------------------------------------------------------------------------


class _Small:
    """MNIST or CIFAR-10; test pictures in the order of their file."""

    def __init__(self, name: SmallSet, seed: int) -> None:
        self.train, self.test, self.names = SmallPictures(name, "train", seed), SmallPictures(name, "test"), NAMES[name]

    def count(self, split: Split) -> int:
        return len(self.train if split == "train" else self.test)

    def some(self, split: Split, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        if split == "train":
            return self.train.batch(indices)
        return self.test.pixels_NHWC[indices], self.test.labels_N[indices].astype(np.int64)


class _Scenes:
    """One thing on a background, of any colour it can take; the class is the thing."""

    def __init__(self, size: int, seed: int) -> None:
        self.scenes, self.seed = SceneSource.load(size), seed
        self.names = [spoken(pictogram.name) for pictogram in self.scenes.pictograms]

    def count(self, split: Split) -> int:
        return SCENES_TESTED

    def some(self, split: Split, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        drawn = [seeds.derive(self.seed, "recognise", split, index) for index in indices]
        scenes = [self.scenes.sample(own, kind="single") for own in drawn]
        labels_B = np.array([scene.things[0].concept for scene in scenes], np.int64)
        return np.stack([self.scenes.paint(scene) for scene in scenes]), labels_B


def _source(data: FeatureData, seed: int) -> Labelled:
    return _Scenes(data.size, seed) if data.source == "scenes" else _Small(data.source, seed)


def _scaled(pixels_BHWC: Tensor) -> Tensor:
    """uint8 [B, H, W, C] -> float32 [B, C, H, W] in [-1, 1]."""
    return pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
