"""text -> image: small pictures drawn code by code by a transformer, and put together by the codes' decoder.

The second stage of a VQ-VAE (van den Oord et al. 2017, arXiv 1711.00937, section 3.3). The first token says the class,
or that any may come; the others are the codes, row by row.

Legend: B batch, T codes of a picture, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result
from conjure.core.shelf import find
from conjure.data.pictures_small import NAMES, SHAPES, SmallPictures, SmallSet, label
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.metrics.bits import bits_per_dimension
from conjure.metrics.confidence import bootstrap_mean
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.models.vq_vae import DOWNSCALE, VQVAE, load_vq_vae
from conjure.tasks.memorisation import Sets, small_sets

PART = 50  # pictures at a time, in measuring
HELD = 500  # samples that are held against training pictures


@plain_dataclass(frozen=True, kw_only=True)
class CodePriorConfig:
    codec: str
    """The first stage: a model folder."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    """Its vocabulary is the codes, then the classes, then one for any class."""
    drop: float = 0.1
    """Share of the examples whose class is not told."""


@plain_dataclass(frozen=True, kw_only=True)
class CodePriorData:
    set: SmallSet = "cifar10"


@dataclass(frozen=True, kw_only=True)
class SampleCodesOptions:
    """How codes are drawn."""

    temperature: float = Field(default=1.0, ge=0, le=10, description="1: as trained; 0: the likeliest codes")
    top_k: int = Field(default=0, ge=0, le=65536, description="draw among so many of the likeliest (0: all)")
    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")


class SampleCodes:
    """`source` is there while the model trains; a loaded one has none."""

    Options = SampleCodesOptions
    ModelConfig = CodePriorConfig
    DataConfig = CodePriorData
    causal = True

    def __init__(self, config: CodePriorConfig, network: Transformer, codec: VQVAE, data: CodePriorData, *,
                 source: SmallPictures | None = None, seed: int = 0) -> None:
        self.config, self.network, self.codec, self.data = config, network, codec, data
        self.source, self.seed, self.sets = source, seed, (data.set,)
        self.names, self.codes = NAMES[data.set], codec.config.codes
        self.places = (SHAPES[data.set][0] // DOWNSCALE) ** 2  # T
        self._known: dict[int, Tensor] = {}  # place in the training split -> its codes

    @classmethod
    def create(cls, model: CodePriorConfig, data: CodePriorData, seed: int = 0) -> SampleCodes:
        codec = load_vq_vae(find(model.codec))
        if codec.config.channels != SHAPES[data.set][2]:
            raise ConjureError(f"{model.codec} is for pictures with {codec.config.channels} channels, {data.set} "
                               f"has {SHAPES[data.set][2]}", hint="data.set is the one the first stage was trained on")
        wanted = codec.config.codes + len(NAMES[data.set]) + 1
        if model.transformer.vocab != wanted:
            raise ConjureError(f"model.transformer.vocab is {model.transformer.vocab}, codes and classes are {wanted}",
                               hint=f"model.transformer.vocab={wanted}")
        with randomness.drawing_weights(seed):
            network = Transformer(model.transformer)
        return cls(model, network, codec, data, source=SmallPictures(data.set, seed=seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> SampleCodes:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        config = from_dict(CodePriorConfig, saved["model"], where="model")
        network = Transformer(config.transformer)
        load_weights(network, folder / "model.safetensors")
        data = from_dict(CodePriorData, saved["data"], where="data")
        return cls(config, network.eval().requires_grad_(False), load_vq_vae(folder), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`ids` and `targets` int64 `[B, T]`: the class and all codes but the last; all codes."""
        assert self.source is not None
        pixels_BHWC, labels_B = self.source.batch(indices)
        hidden = [randomness.rng(randomness.derive(self.seed, "drop", i)).random() < self.config.drop for i in indices]
        told_B = torch.from_numpy(np.where(hidden, len(self.names), labels_B))
        places_B = self.source.places(indices)
        new_B = [place not in self._known for place in places_B.tolist()]
        if any(new_B):  # later epochs find the codes of every picture known
            self._known |= dict(zip(places_B[new_B].tolist(), self._encode(pixels_BHWC[new_B]), strict=True))
        return self._rows(torch.stack([self._known[place] for place in places_B.tolist()]), told_B)

    @torch.no_grad()
    def _encode(self, pixels_BHWC: np.ndarray) -> Tensor:
        return self.codec.encode(from_pixels(torch.from_numpy(pixels_BHWC))).flatten(1)

    def _rows(self, codes_BT: Tensor, told_B: Tensor) -> dict[str, Tensor]:
        return {"ids": torch.cat([self.codes + told_B[:, None], codes_BT[:, :-1]], 1), "targets": codes_BT}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(summed cross-entropy in nats, number of codes)."""
        total = (self.network if network is None else network)(batch["ids"], targets=batch["targets"])
        return total, torch.tensor(batch["targets"].numel())

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["ids"])

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["ids"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(*batch["ids"].shape)

    def describe(self, batch: dict[str, Tensor]) -> str:
        classes = [*self.names, "any"]
        rows = zip(batch["ids"][:, 0].tolist(), batch["targets"][:, :8].tolist(), strict=True)
        lines = [f"  {classes[first - self.codes]}: {' '.join(map(str, codes))} ..." for first, codes in rows]
        return "\n".join([f"{len(lines)} pictures of {self.places} codes, all of which carry loss:", *lines])

    def preview(self, seed: int) -> dict[str, Image]:
        """Eight pictures of each class, a column a class."""
        count = 8 * len(self.names)
        seeds = [randomness.derive(seed, k) for k in range(count)]
        *_, codes_BT = self._written(seeds, [k % len(self.names) for k in range(count)], SampleCodesOptions())
        return {"samples": grid(self._pictures(codes_BT, 0), columns=len(self.names))}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Nats a code and bits a value of test pictures, the class not told."""
        codes_N, picture_N = self._measured(limit)
        values = int(np.prod(SHAPES[self.data.set]))
        return {"nats_per_code": float(codes_N.mean()) / self.places,
                "bits_per_dimension": bits_per_dimension(float((codes_N + picture_N).mean()), values),
                "code_bits": bits_per_dimension(float(codes_N.mean()), values)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="code_prior", task="vq_prior", network=self.network, sections={
            "model": to_dict(self.config), "codec": to_dict(self.codec.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        save_weights(folder, "codec", self.codec, dtype="float32")

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: SampleCodesOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed, the same alone and among others."""
        asked = label(" ".join(text.text for text in inputs), self.names)
        told = [len(self.names) if asked is None else asked] * len(seeds)
        codes_BT = torch.zeros(len(seeds), 0, dtype=torch.long)
        for codes_BT in self._written(seeds, told, options):
            done = codes_BT.shape[1]
            yield Progress(done, self.places, "code")
            if done % (self.places // 4) == 0 and done < self.places:
                yield Preview(lambda codes=codes_BT: grid(self._pictures(codes, 0)))
        yield Result(self._pictures(codes_BT, options.size), {"evaluations": self.places})

    def _written(self, seeds: Sequence[int], told: Sequence[int], options: SampleCodesOptions) -> Iterator[Tensor]:
        """The codes as they become more, `[B, 1]` to `[B, T]`; each by the inverse of its distribution function."""
        draws_BT = randomness.uniform(seeds, (self.places,))
        cache = self.network.cache(len(seeds), self.places)
        next_B1, written = self.codes + torch.tensor(told)[:, None], []
        for place in range(self.places):
            with torch.no_grad():
                logits_BV = self.network(next_B1, cache=cache, last_only=True)[:, -1, : self.codes]
            next_B1 = chosen(logits_BV, draws_BT[:, place], options)[:, None]
            written.append(next_B1)
            yield torch.cat(written, 1)

    @torch.no_grad()
    def _pictures(self, codes_BT: Tensor, size: int) -> list[Image]:
        """The likeliest pixels of these codes; places without one have the code 0."""
        side = isqrt(self.places)
        full_BT = F.pad(codes_BT, (0, self.places - codes_BT.shape[1]))
        pixels_BHWC = to_pixels(self.codec.decode(full_BT.view(-1, side, side))).numpy()
        return [resized(Image(each), size) if size else Image(each) for each in pixels_BHWC]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Bits a value over the test split: of the codes by this model, and of the values given them."""
        codes_N, picture_N = self._measured(None, on_progress)
        values = int(np.prod(SHAPES[self.data.set]))
        found = {}
        for name, nats_N, what in (
            ("bits_per_dimension", codes_N + picture_N, "codes, the class not told, plus values given codes"),
            ("code_bits_per_dimension", codes_N, "the codes' part"),
            ("picture_bits_per_dimension", picture_N, "the part of the values given the codes, each logistic"),
        ):
            bits_N = [bits_per_dimension(nats, values) for nats in nats_N.tolist()]
            value, low, high = bootstrap_mean(bits_N, seed=0)
            split = f"over {values:,} values; the test split of {self.data.set}, 95 % bootstrap interval"
            found[name] = {"value": value, "low": low, "high": high, "n": len(bits_N),
                           "protocol": f"-log2 p: {what}; {split}"}
        return found

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        made = []
        for start in range(0, HELD, PART):
            seeds = [randomness.derive(0, "measured", k) for k in range(start, start + PART)]
            *_, codes_BT = self._written(seeds, [len(self.names)] * PART, SampleCodesOptions())
            made += [each.pixels for each in self._pictures(codes_BT, 0)]
            if tell:
                tell(Progress(len(made), HELD, "picture"))
        return small_sets(self.data.set, np.stack(made))

    @torch.no_grad()
    def _measured(self, limit: int | None, tell: Callable[[Event], None] | None = None) -> tuple[Tensor, Tensor]:
        """Of test pictures, in nats `[N]`: the codes, and the values given the codes."""
        source = SmallPictures(self.data.set, "test")
        count = min(limit or len(source), len(source))
        places = np.linspace(0, len(source) - 1, count).astype(int)  # the copy's split lies in order of class
        codes, pictures = [], []
        for start in range(0, count, PART):
            pixels_BHWC = source.pixels_NHWC[places[start : start + PART]]
            batch = self._rows(self._encode(pixels_BHWC), torch.full((len(pixels_BHWC),), len(self.names)))
            nats_BT = F.cross_entropy(self.logits(batch).movedim(-1, 1), batch["targets"], reduction="none")
            codes.append(nats_BT.sum(1))
            side = isqrt(self.places)
            x_BCHW = from_pixels(torch.from_numpy(pixels_BHWC))
            pictures.append(self.codec.nats(x_BCHW, batch["targets"].view(-1, side, side)).flatten(1).sum(1))
            if tell:
                tell(Progress(start + len(pixels_BHWC), count, "picture", "likelihood"))
        return torch.cat(codes), torch.cat(pictures)


def chosen(logits_BV: Tensor, draws_B: Tensor, options: SampleCodesOptions) -> Tensor:
    """One id a row `[B]`: the first whose cumulative probability passes the draw."""
    if options.temperature == 0:
        return logits_BV.argmax(-1)
    logits_BV = logits_BV.double() / options.temperature
    if 0 < options.top_k < logits_BV.shape[1]:
        least_B1 = logits_BV.topk(options.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    reached_BV = logits_BV.softmax(-1).cumsum(-1)
    passed_B = torch.searchsorted(reached_BV, (draws_B.double() * reached_BV[:, -1])[:, None], right=True)[:, 0]
    return passed_B.clamp_max(logits_BV.shape[1] - 1)
