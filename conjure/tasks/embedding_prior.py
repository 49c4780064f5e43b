"""text -> image: a text's embedding of a picture that could go with it, then a picture of that embedding.

Figures say how much is lost on each half of the way: `decoded` draws from the embeddings of true pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result
from conjure.data.few_scenes import FRESH, FewScenes, FewScenesData
from conjure.data.phrases import spoken
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.guidance import guided
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.picture_embedding import PictureEmbedding, PictureEmbeddingConfig
from conjure.tasks.drawing_options import SamplingOptions
from conjure.tasks.memorisation import Sets
from conjure.tasks.picture_evaluation import compositions, relation_scene
from conjure.tasks.scene_drawing import COMPOSED, copied, figures, in_batches, prompted, rows, words_of

SHOWN = 8  # captions of a preview


class PriorDrawing:
    """Draws scenes of a few things. `scenes` are there while the model trains; a loaded one makes them when asked."""

    Options = SamplingOptions
    ModelConfig = PictureEmbeddingConfig
    DataConfig = FewScenesData
    sets = ("noto_emoji",)
    causal = False

    def __init__(
        self, network: PictureEmbedding, words: PictureWords, data: FewScenesData, *, scenes: FewScenes | None = None,
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
    def create(cls, model: PictureEmbeddingConfig, data: FewScenesData, seed: int = 0) -> PriorDrawing:
        """A new model; the recipe's vocabulary and side must be those of the data."""
        if model.decoder.size != data.size:
            raise ConjureError(f"data.size is {data.size}, the model draws {model.decoder.size}",
                               hint=f"data.size={model.decoder.size}")
        scenes = FewScenes.load(data)
        words = words_of(scenes.words, model.vocab)
        with randomness.drawing_weights(seed):
            network = PictureEmbedding(model)
        return cls(network, words, data, scenes=scenes, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> PriorDrawing:
        """The model in a folder, ready to draw."""
        saved = read_config(folder)
        network = PictureEmbedding(from_dict(PictureEmbeddingConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        words = words_of(PictureWords.load(folder, spoken), network.config.vocab)
        data = from_dict(FewScenesData, saved["data"], where="data")
        return cls(network.eval().requires_grad_(False), words, data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`x` pictures in [-1, 1] `[B, 3, H, W]`, `words` rows of the right caption and of wrong ones `[B, K, T]`,
        `told` whether the prior reads the right one `[B]`, `seeds` `[B]` of what the loss draws."""
        own = [randomness.derive(self.seed, "example", i) for i in indices]
        told = [randomness.rng(each).random() >= self.config.drop for each in own]
        return self._tensors(self.seed, indices, "train", told, own)

    def _tensors(
        self, seed: int, indices: Sequence[int], split: Literal["train", "test"], told: Sequence[bool],
        own: Sequence[int],
    ) -> dict[str, Tensor]:  # fmt: skip
        pixels, words = [], []
        for index, each in zip(indices, own, strict=True):
            example = self.scenes.example(seed, index, split)
            wrong = self.scenes.mistakes(self.scenes.scene(seed, index, split), each, self.config.wrong)
            pixels.append(example.pixels)
            words.append(rows(self.words, [example.caption, *wrong], self.config.length))
        return {"x": from_pixels(torch.from_numpy(np.stack(pixels))), "words": torch.stack(words),
                "told": torch.tensor(list(told)), "seeds": torch.tensor(list(own))}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum of the losses of contrast, prior and decoder, number of pictures)."""
        parts = self._losses(batch, self.network if network is None else network)
        return (parts["contrast"] + parts["prior"] + parts["decoder"]).sum(), torch.tensor(len(batch["x"]))

    def _losses(self, batch: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """Each `[B]`; `right` is 1 where no wrong caption fits the picture better than its own."""
        flow, x_B3HW, own = self.config.flow, batch["x"], batch["seeds"].tolist()

        def drawn(shape: Sequence[int], name: str) -> tuple[Tensor, Tensor]:
            """Noise and training times, a stream of their own for each `name`."""
            seeds = [randomness.derive(each, name) for each in own]
            noise, time_B = randomness.normal(seeds, shape), flow.time(randomness.uniform(seeds))
            return noise.to(x_B3HW), time_B.to(x_B3HW.device)

        noise, time_B = drawn(x_B3HW.shape[1:], "decoder")
        prior_noise, prior_time_B = drawn((self.config.embedding,), "prior")
        grain, _ = drawn((self.config.embedding,), "grain")
        noisy = flow.noisy(x_B3HW, noise, time_B)
        out = network(x_B3HW, batch["words"], batch["told"], noisy, time_B, prior_noise, grain, prior_time_B)
        first_B = torch.zeros(len(own), dtype=torch.long, device=x_B3HW.device)
        target_BE = out.embedding_BE.detach()
        return {
            "contrast": F.cross_entropy(out.logits_BK, first_B, reduction="none"),
            "prior": flow.loss(lambda *_: out.prior_BE, target_BE, prior_noise, prior_time_B),
            "decoder": flow.loss(lambda *_: out.decoder_B3HW, x_B3HW, noise, time_B),
            "right": (out.logits_BK.argmax(1) == 0).float(),
        }

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["x"]) * (self.network.decoder.patch_count + self.config.towers.image.patches)

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(len(batch["x"]))

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Captions as the network reads them, the right one first."""
        lines = [f"{len(batch['x'])} pictures {tuple(batch['x'].shape[1:])}; every value carries loss. Captions, the "
                 "right one first:"]
        each = ([self.words.read(row, [-1] * len(row)) for row in captions] for captions in batch["words"].tolist())
        return "\n".join([*lines, *("  " + " | ".join(captions) for captions in each)])

    def preview(self, seed: int) -> dict[str, Image]:
        """Captions of pairs that training never shows together, and their true pictures through the decoder."""
        examples = [self.scenes.example(0, k, "test") for k in range(SHOWN)]
        seeds = [randomness.derive(seed, k) for k in range(SHOWN)]
        return {"pictures": grid(self._plainly([each.caption for each in examples], seeds), columns=4),
                "decoded": grid(self.decoded([each.pixels for each in examples], seeds), columns=4)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Losses at fixed times and noise over held-out examples, and how often the right caption of five is found."""
        sums: dict[str, float] = {}
        places = range(limit or 256)
        for start in range(0, len(places), 32):
            part = places[start : start + 32]
            own = [randomness.derive(0, "validation", i) for i in part]
            batch = self._tensors(0, [FRESH + i for i in part], "test", [True] * len(part), own)
            for name, values_B in self._losses(batch, self.network).items():
                sums[name] = sums.get(name, 0.0) + values_B.sum().item()
        means = {name: total / len(places) for name, total in sums.items()}
        return {"loss": means["contrast"] + means["prior"] + means["decoder"], **means}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="picture_embedding", task="embedding_prior", network=self.network,
                     sections={"model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        self.words.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: SamplingOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        prompt, said = prompted(inputs, self.words, self.config.length)
        yield from said
        yield from self._draw([prompt] * len(seeds), options, list(seeds))

    def _draw(self, prompts: Sequence[str], options: SamplingOptions, seeds: Sequence[int]) -> Iterator[Event]:
        embedding_BE = self.imagine(prompts, options, seeds)
        evaluations = SAMPLERS[options.sampler].evaluations(options.steps)
        yield Progress(options.steps, 2 * options.steps, "step", "embedding")
        spent = evaluations * (2 if options.guidance == 1 else 3)
        yield from self._picture(embedding_BE, options, seeds, spent)

    @torch.no_grad()
    def imagine(self, prompts: Sequence[str], options: SamplingOptions, seeds: Sequence[int]) -> Tensor:
        """The prior's embeddings `[B, E]` for texts."""
        told, without = (self.network.read(rows(self.words, each, self.config.length))
                         for each in (prompts, [""] * len(prompts)))
        flow = self.config.flow
        denoise = guided(flow.denoise(self.network.predict), options.guidance, condition=told, unconditional=without)
        own = [randomness.derive(seed, "prior") for seed in seeds]
        x = flow.prior(randomness.normal(own, (self.config.embedding, 1, 1)))
        sampler = SAMPLERS[options.sampler]
        return sampler(denoise, x, flow.sigmas(options.steps), noise=randomness.Noise(own))[..., 0, 0]

    @torch.no_grad()
    def _picture(
        self, embedding_BE: Tensor, options: SamplingOptions, seeds: Sequence[int], evaluations: int
    ) -> Iterator[Event]:
        flow, side = self.config.flow, self.config.decoder.size
        denoise: Denoiser = guided(flow.denoise(self.network.decode), 1, condition=(embedding_BE,), unconditional=())
        x = flow.prior(randomness.normal(seeds, (3, side, side)))
        steps = SAMPLERS[options.sampler].steps(denoise, x, flow.sigmas(options.steps), randomness.Noise(seeds))
        for done, step in enumerate(steps, start=1):
            x = step.x
            yield Progress(options.steps + done, 2 * options.steps, "step")
            if done < options.steps:
                yield Preview(lambda x0=step.x0: grid(self._pictures(x0, 0)))
        yield Result(self._pictures(x, options.size), {"evaluations": evaluations})

    def _pictures(self, x_B3HW: Tensor, size: int) -> list[Image]:
        made = [Image(each.numpy()) for each in to_pixels(x_B3HW)]
        return [resized(each, size) for each in made] if size else made

    def _plainly(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return in_batches(lambda part, own: self._draw(part, SamplingOptions(), own), prompts, seeds)

    def decoded(self, pictures: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Image]:
        """Pictures uint8 `[H, W, 3]` through their embeddings and back."""
        with torch.no_grad():
            embedding_BE = self.network.look(from_pixels(torch.from_numpy(np.stack(pictures))))
        made = [e for e in self._picture(embedding_BE, SamplingOptions(), seeds, 0) if isinstance(e, Result)]
        return [each for result in made for each in result.media if isinstance(each, Image)]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Known things and composition, and composition of pictures drawn from the embeddings of true ones, which the
        prior has no part in. `data` may choose among them."""
        own = [name for name in data if name != "decoded"]
        found = figures(self._plainly, self.scenes, own, on_progress) if own or not data else {}
        if not data or "decoded" in data:
            source = self.scenes.source
            true = {randomness.derive(0, "composition", k): relation_scene(source, k) for k in range(COMPOSED)}

            def through(_: Sequence[str], seeds: Sequence[int]) -> list[Image]:
                return self.decoded([source.paint(true[seed]) for seed in seeds], seeds)

            measured = compositions(through, source, count=COMPOSED, tell=on_progress)
            found["decoded"] = {**measured, "protocol": f"from the embedding of a true picture; {measured['protocol']}"}
        return found

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        return copied(self._plainly, self.scenes.example, tell)
