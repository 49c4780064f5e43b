"""text -> image: a small picture of what a text says, then the same at full size by a second network.

A recipe without a second network trains the direct model that the cascade is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result
from conjure.data.captions import Example
from conjure.data.few_scenes import FRESH, FewScenes, FewScenesData
from conjure.data.phrases import spoken
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.guidance import guided
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.cascade import CascadeConfig, CascadeNetwork, augmented, shrunk
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.tasks.drawing_options import SamplingOptions
from conjure.tasks.memorisation import Sets
from conjure.tasks.scene_drawing import copied, figures, in_batches, prompted, rows, words_of

SHOWN = 8  # captions of a preview


@dataclass(frozen=True, kw_only=True)
class CascadeOptions(SamplingOptions):
    """How a picture is drawn."""

    augment: float = Field(default=0.1, ge=0, lt=1, description="noise in the small picture before it is enlarged")


class Cascade:
    """Draws scenes of a few things. `source` is there while the model trains; a loaded one makes it when asked."""

    Options = CascadeOptions
    ModelConfig = CascadeConfig
    DataConfig = FewScenesData
    sets = ("noto_emoji",)
    causal = False

    def __init__(
        self, network: CascadeNetwork, words: PictureWords, data: FewScenesData, *, scenes: FewScenes | None = None,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.network, self.words, self.data, self.seed = network, words, data, seed
        self.config = network.config
        if scenes is not None:
            self.scenes = scenes

    @cached_property
    def scenes(self) -> FewScenes:
        return FewScenes.load(self.data)

    @classmethod
    def create(cls, model: CascadeConfig, data: FewScenesData, seed: int = 0) -> Cascade:
        """A new model; the recipe's vocabulary and sides must be those of the data."""
        if model.size != data.size:
            raise ConjureError(f"data.size is {data.size}, the model draws {model.size}",
                               hint=f"data.size={model.size}")
        scenes = FewScenes.load(data)
        words = words_of(scenes.words, model.text.vocab)
        with randomness.drawing_weights(seed):
            network = CascadeNetwork(model)
        return cls(network, words, data, scenes=scenes, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Cascade:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        network = CascadeNetwork(from_dict(CascadeConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        words = words_of(PictureWords.load(folder, spoken), network.config.text.vocab)
        data = from_dict(FewScenesData, saved["data"], where="data")
        return cls(network.eval().requires_grad_(False), words, data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`x` pictures in [-1, 1] `[B, 3, H, W]`, `words` rows `[B, T]`, and `seeds` `[B]` of what the loss draws."""
        own = [randomness.derive(self.seed, "example", i) for i in indices]
        told = [randomness.rng(each).random() >= self.config.drop for each in own]
        return self._tensors([self.scenes.example(self.seed, i) for i in indices], told, own)

    def _tensors(self, examples: Sequence[Example], told: Sequence[bool], own: Sequence[int]) -> dict[str, Tensor]:
        said = [each.caption if tell else "" for each, tell in zip(examples, told, strict=True)]
        pixels_BHWC = torch.from_numpy(np.stack([each.pixels for each in examples]))
        return {"x": from_pixels(pixels_BHWC), "words": rows(self.words, said, self.config.text.length),
                "seeds": torch.tensor(list(own))}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum of both networks' losses, number of pictures)."""
        first_B, second_B = self._losses(batch, self.network if network is None else network)
        return (first_B + second_B).sum(), torch.tensor(len(first_B))

    def _losses(self, batch: dict[str, Tensor], network: nn.Module) -> tuple[Tensor, Tensor]:
        """Of each picture, the loss of the first network and that of the second, 0 where there is none."""
        flow, large_B3HW, own = self.config.flow, batch["x"], batch["seeds"].tolist()
        small_B3hw, words_BT = shrunk(large_B3HW, self.config.first.size), batch["words"]

        def drawn(x0: Tensor, name: str) -> tuple[Tensor, Tensor]:
            """Noise like `x0` and, per picture, a uniform number; a stream of their own for each `name`."""
            seeds = [randomness.derive(each, name) for each in own]
            return randomness.normal(seeds, x0.shape[1:]).to(x0), randomness.uniform(seeds).to(x0.device)

        noise, u_B = drawn(small_B3hw, "first")
        time_B = flow.time(u_B)
        first = flow.noisy(small_B3hw, noise, time_B)
        if self.network.second is None:
            out, _ = network(words_BT, first, time_B)
            first_B = flow.loss(lambda *_: out, small_B3hw, noise, time_B)
            return first_B, torch.zeros_like(first_B)
        grain, u_B = drawn(small_B3hw, "augment")
        level_B = u_B * self.config.noise
        second_noise, u_B = drawn(large_B3HW, "second")
        second_time_B = flow.time(u_B)
        second = flow.noisy(large_B3HW, second_noise, second_time_B)
        told = (second, second_time_B, augmented(small_B3hw, grain, level_B), level_B)
        out, second_out = network(words_BT, first, time_B, told)
        first_B = flow.loss(lambda *_: out, small_B3hw, noise, time_B)
        return first_B, flow.loss(lambda *_: second_out, large_B3HW, second_noise, second_time_B)

    def tokens(self, batch: dict[str, Tensor]) -> int:
        second = 0 if self.network.second is None else self.network.second.dit.patch_count
        return len(batch["x"]) * (self.network.first.patch_count + second)

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(len(batch["x"]))

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Captions as the network reads them."""
        lines = [f"{len(batch['x'])} pictures {tuple(batch['x'].shape[1:])}; every value carries loss. Captions:"]
        return "\n".join([*lines, *("  " + self.words.read(row, [-1] * len(row)) for row in batch["words"].tolist())])

    def preview(self, seed: int) -> dict[str, Image]:
        """Captions of pairs that training never shows together."""
        told = [self.scenes.example(0, k, "test").caption for k in range(SHOWN)]
        return {"pictures": grid(self._plainly(told, [randomness.derive(seed, k) for k in range(SHOWN)]), columns=4)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Losses at fixed times and noise over held-out examples: of both networks together, and of each."""
        first = second = 0.0
        places = range(limit or 256)
        for start in range(0, len(places), 32):
            part = places[start : start + 32]
            batch = self._tensors([self.scenes.example(0, FRESH + i, "test") for i in part], [True] * len(part),
                                  [randomness.derive(0, "validation", i) for i in part])
            first_B, second_B = self._losses(batch, self.network)
            first, second = first + first_B.sum().item(), second + second_B.sum().item()
        parts = {} if self.network.second is None else {"first": first / len(places), "second": second / len(places)}
        return {"loss": (first + second) / len(places), **parts}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="cascade", task="cascade", network=self.network,
                     sections={"model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        self.words.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: CascadeOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        prompt, said = prompted(inputs, self.words, self.config.text.length)
        yield from said
        yield from self._draw([prompt] * len(seeds), options, list(seeds))

    @torch.no_grad()
    def _draw(self, prompts: Sequence[str], options: CascadeOptions, seeds: Sequence[int]) -> Iterator[Event]:
        told, without = (self.network.read(rows(self.words, each, self.config.text.length))
                         for each in (prompts, [""] * len(prompts)))
        first = guided(self.config.flow.denoise(self.network.first), options.guidance, condition=told,
                       unconditional=without)
        stages = 1 if self.network.second is None else 2
        x = yield from self._stage(first, self.config.first.size, options, seeds, (0, stages))
        evaluations = SAMPLERS[options.sampler].evaluations(options.steps)
        spent = evaluations * (1 if options.guidance == 1 else 2)
        if self.network.second is not None:
            own = [randomness.derive(seed, "augment") for seed in seeds]
            level_B = torch.full((len(x),), options.augment)
            told = (augmented(x, randomness.normal(own, x.shape[1:]), level_B), level_B, *told)
            second = guided(self.config.flow.denoise(self.network.second), 1, condition=told, unconditional=())
            own = [randomness.derive(seed, "second") for seed in seeds]
            x = yield from self._stage(second, self.config.size, options, own, (1, stages))
            spent += evaluations
        yield Result(self._pictures(x, options.size), {"evaluations": spent})

    def _stage(
        self, denoise: Denoiser, side: int, options: CascadeOptions, seeds: Sequence[int], place: tuple[int, int]
    ) -> Generator[Event, None, Tensor]:
        """One network's steps, from noise to a picture of that side; `place` is (stage, stages)."""
        flow, total = self.config.flow, place[1] * options.steps
        x = flow.prior(randomness.normal(seeds, (3, side, side)))
        steps = SAMPLERS[options.sampler].steps(denoise, x, flow.sigmas(options.steps), randomness.Noise(seeds))
        for done, step in enumerate(steps, start=place[0] * options.steps + 1):
            x = step.x
            yield Progress(done, total, "step")
            if done < total:
                yield Preview(lambda x0=step.x0: grid(self._pictures(x0, self.config.size)))
        return x

    def _pictures(self, x_B3HW: Tensor, size: int) -> list[Image]:
        made = [Image(each.numpy()) for each in to_pixels(x_B3HW)]
        return [resized(each, size) if size not in (0, each.width) else each for each in made]

    def _plainly(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return in_batches(lambda part, own: self._draw(part, CascadeOptions(), own), prompts, seeds)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Known things and composition. `data` may choose among them."""
        return figures(self._plainly, self.scenes, data, on_progress)

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        return copied(self._plainly, self.scenes.example, tell)
