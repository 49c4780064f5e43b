"""text -> image: latent diffusion of scenes of a few things, conditioned by cross-attention or by joint attention.

The text is read word by word, without a book of pictures: what a name looks like is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import ImageAutoencoder, from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.device import matmul_rate
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.shelf import find
from conjure.data.captions import Example
from conjure.data.few_scenes import FRESH, FewScenes, FewScenesData
from conjure.data.phrases import spoken
from conjure.diffusion.guidance import guided
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.kl_codec import KLCodec, load_any_codec
from conjure.models.latent_painter import LatentPainter, LatentPainterConfig
from conjure.tasks.drawing_options import Negative, SamplingOptions
from conjure.tasks.memorisation import Sets
from conjure.tasks.scene_drawing import copied, figures, in_batches, prompted, rows, words_of

SHOWN = 8  # captions of a preview


@dataclass(frozen=True, kw_only=True)
class LatentDrawingOptions(SamplingOptions):
    """How a picture is drawn."""

    negative: Negative = ""


class LatentDrawing:
    """Draws scenes of a few things. `scenes` are there while the model trains; a loaded one makes them when asked."""

    Options = LatentDrawingOptions
    ModelConfig = LatentPainterConfig
    DataConfig = FewScenesData
    sets = ("noto_emoji",)
    causal = False

    def __init__(
        self, network: LatentPainter, words: PictureWords, codec: KLCodec | ImageAutoencoder, data: FewScenesData, *,
        scenes: FewScenes | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.network, self.words, self.codec, self.data, self.seed = network, words, codec, data, seed
        self.config = network.config
        if scenes is not None:
            self.scenes = scenes

    @cached_property
    def scenes(self) -> FewScenes:
        return FewScenes.load(self.data)

    @classmethod
    def create(cls, model: LatentPainterConfig, data: FewScenesData, seed: int = 0) -> LatentDrawing:
        """A new model; the recipe's vocabulary must be that of the captions, and its canvas that of the codec."""
        if not model.codec:
            raise ConjureError("model.codec: expected the folder of an autoencoder of pictures",
                               hint="conjure train scenes-autoencoder makes one")
        scenes, codec = FewScenes.load(data), load_any_codec(find(model.codec))
        words = words_of(scenes.words, model.text.vocab)
        with randomness.drawing_weights(seed):
            network = LatentPainter(model)
        task = cls(network, words, codec, data, scenes=scenes, seed=seed)
        shape = tuple(task._latents(task.batch([0])).shape[1:])
        if shape != (model.channels, model.side, model.side):
            raise ConjureError(f"pictures of {data.size} x {data.size} come out of {model.codec} as {shape}, the model "
                               f"draws {model.channels} channels of {model.side} x {model.side}",
                               hint="model.channels, model.side, data.size and the codec belong together")
        return task

    @classmethod
    def load(cls, folder: Path) -> LatentDrawing:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        network = LatentPainter(from_dict(LatentPainterConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        words = words_of(PictureWords.load(folder, spoken), network.config.text.vocab)
        data = from_dict(FewScenesData, saved["data"], where="data")
        return cls(network.eval().requires_grad_(False), words, load_any_codec(folder), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`pixels` uint8 `[B, H, W, 3]`, `words` rows `[B, T]`, and `seeds` `[B]` of what the loss draws."""
        own = [randomness.derive(self.seed, "example", i) for i in indices]
        told = [randomness.rng(each).random() >= self.config.drop for each in own]
        return self._tensors([self.scenes.example(self.seed, i) for i in indices], told, own)

    def _tensors(self, examples: Sequence[Example], told: Sequence[bool], own: Sequence[int]) -> dict[str, Tensor]:
        said = [each.caption if tell else "" for each, tell in zip(examples, told, strict=True)]
        return {"pixels": torch.from_numpy(np.stack([each.pixels for each in examples])),
                "words": rows(self.words, said, self.config.text.length), "seeds": torch.tensor(list(own))}

    @torch.no_grad()
    def _latents(self, batch: dict[str, Tensor]) -> Tensor:
        """`[B, Z, h, w]`"""
        x_BCHW = from_pixels(batch["pixels"])
        return self.codec.to(x_BCHW.device).encode(x_BCHW).contiguous()

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum of the flow's losses, number of pictures)."""
        painter, own, x0 = self.network if network is None else network, batch["seeds"].tolist(), self._latents(batch)
        noise = randomness.normal(own, x0.shape[1:]).to(x0)
        t_B = self.config.flow.time(randomness.uniform(own)).to(x0.device)
        loss_B = self.config.flow.loss(lambda x, t: painter(x, t, batch["words"]), x0, noise, t_B)
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Places that the network computes with."""
        patch = self.config.mmdit.patch if self.config.mmdit else self.config.patch
        return len(batch["pixels"]) * (self.config.side // patch) ** 2

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward, three times the forward pass; the codec's are not counted."""
        return 3 * len(batch["pixels"]) * self._flops

    @cached_property
    def _flops(self) -> float:
        return self.network.flops(1)

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Captions as the network reads them."""
        shape = (self.config.channels, self.config.side, self.config.side)
        lines = [f"{len(batch['pixels'])} pictures as {shape}; every value carries loss. Captions:"]
        return "\n".join([*lines, *("  " + self.words.read(row, [-1] * len(row)) for row in batch["words"].tolist())])

    def preview(self, seed: int) -> dict[str, Image]:
        """Scenes that training never shows, as their captions tell them."""
        told = [self.scenes.example(0, k, "test").caption for k in range(SHOWN)]
        return {"pictures": grid(self._plainly(told, [randomness.derive(seed, k) for k in range(SHOWN)]), columns=4)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Loss at fixed times and noise over held-out examples."""
        total, places = 0.0, range(limit or 256)
        for start in range(0, len(places), 32):
            part = places[start : start + 32]
            batch = self._tensors([self.scenes.example(0, FRESH + i, "test") for i in part], [True] * len(part),
                                  [randomness.derive(0, "validation", i) for i in part])
            total += self.loss(batch)[0].item()
        return {"loss": total / len(places)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        """The codec goes with the model."""
        write_config(folder, kind="latent_painter", task="latent_drawing", network=self.network, sections={
            "model": to_dict(self.config), "data": to_dict(self.data), "codec": to_dict(self.codec.config)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        save_weights(folder, "codec", self.codec, dtype=dtype)
        self.words.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: LatentDrawingOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        prompt, said = prompted(inputs, self.words, self.config.text.length)
        yield from said
        if options.negative:
            if options.guidance == 1:
                yield Warn("the negative prompt has no effect with a guidance of 1: give --guidance 2 or more")
            yield from prompted([Text(options.negative)], self.words, self.config.text.length)[1]
        yield from self._draw([prompt] * len(seeds), options, list(seeds))

    @staticmethod
    def forecast(folder: Path, options: LatentDrawingOptions, count: int) -> dict[str, Any]:
        """`seconds`: the operations at the rate at which matrices multiply here, which nothing undercuts;
        `memory_bytes`: the finished pictures and some maps of the decoder at their size."""
        saved = read_config(folder)
        config = from_dict(LatentPainterConfig, saved["model"], where="model")
        evaluations = _evaluations(options)
        side = options.size or from_dict(FewScenesData, saved["data"], where="data").size
        seconds = evaluations * LatentPainter(config).flops(count) / matmul_rate()
        return {"evaluations": evaluations, "memory_bytes": 4 * count * side**2 * 64, "seconds": seconds}

    @torch.no_grad()
    def _draw(self, prompts: Sequence[str], options: LatentDrawingOptions, seeds: Sequence[int]) -> Iterator[Event]:
        config, flow, plain = self.config, self.config.flow, options.guidance == 1
        told = self._read(prompts)
        without = () if plain else self._read([options.negative] * len(prompts))
        denoise = guided(flow.denoise(self.network.paint), options.guidance, condition=told, unconditional=without)
        x = flow.prior(randomness.normal(seeds, (config.channels, config.side, config.side)))
        steps = SAMPLERS[options.sampler].steps(denoise, x, flow.sigmas(options.steps), randomness.Noise(seeds))
        for done, step in enumerate(steps, start=1):
            x = step.x
            yield Progress(done, options.steps, "step")
            if done < options.steps:
                yield Preview(lambda x0=step.x0: grid(self._pictures(x0, 0)))
        yield Result(self._pictures(x, options.size), {"evaluations": _evaluations(options)})

    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.read(rows(self.words, texts, self.config.text.length))

    def _pictures(self, x_BZhw: Tensor, size: int) -> list[Image]:
        made = [Image(each.numpy()) for each in to_pixels(self.codec.decode(x_BZhw))]
        return [resized(each, size) if size not in (0, each.width) else each for each in made]

    def _plainly(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return in_batches(lambda part, own: self._draw(part, LatentDrawingOptions(), own), prompts, seeds)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Known things and composition. `data` may choose among them."""
        return figures(self._plainly, self.scenes, data, on_progress)

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        return copied(self._plainly, self.scenes.example, tell)


def _evaluations(options: LatentDrawingOptions) -> int:
    """Passes of the network for one picture: guidance needs a second one, without the prompt."""
    return SAMPLERS[options.sampler].evaluations(options.steps) * (1 if options.guidance == 1 else 2)
