"""text -> image: a caption read by an illustrated text encoder, drawn by a diffusion transformer.

With a codec the transformer works on the codec's latents (pictograms); without one on pixels (digits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import DOWNSCALE, ImageAutoencoder
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.shelf import find
from conjure.data.captions import COLOUR_NUMBERS, CaptionSource, DigitCaptions, Example, SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.scenes import SceneSource
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.image_codec import load_codec
from conjure.models.painter import Painter, PainterConfig, layout_loss, named_places
from conjure.models.picture_text import Layout
from conjure.tasks.digit_evaluation import recognised
from conjure.tasks.drawing_options import Negative, SamplingOptions
from conjure.tasks.memorisation import Sets
from conjure.tasks.picture_evaluation import compositions, known_things
from conjure.tasks.scene_drawing import copied
from conjure.tasks.scene_painter import ScenePainter, evaluations, forecast


@plain_dataclass(frozen=True, kw_only=True)
class CaptionData:
    """`size` is the side of composed scenes in pixels; digits have 28."""

    source: Literal["scenes", "digits"] = "scenes"
    size: int = 128


@dataclass(frozen=True, kw_only=True)
class TextToImageOptions(SamplingOptions):
    """How a picture is drawn."""

    negative: Negative = ""


class TextToImage:
    """Trains a painter and draws with it what a text says. `source` is there while it trains; a loaded one has none."""

    Options = TextToImageOptions
    ModelConfig = PainterConfig
    DataConfig = CaptionData
    causal = False

    def __init__(
        self, painter: ScenePainter, *, source: CaptionSource | None = None, data: CaptionData | None = None,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.painter, self.source, self.data, self.seed = painter, source, data or CaptionData(), seed

    @property
    def config(self) -> PainterConfig:
        return self.painter.config

    @property
    def network(self) -> Painter:
        return self.painter.network

    @property
    def words(self) -> PictureWords:
        return self.painter.words

    @property
    def codec(self) -> ImageAutoencoder | None:
        return self.painter.codec

    @property
    def sets(self) -> tuple[str, ...]:
        return ("noto_emoji",) if self.data.source == "scenes" else ("mnist",)

    @classmethod
    def create(cls, model: PainterConfig, data: CaptionData, seed: int = 0) -> TextToImage:
        """A new model. The vocabulary and the book come from the data; the recipe's `vocab` and `pages` must agree."""
        source: CaptionSource = DigitCaptions()
        if data.source == "scenes":
            source = SceneCaptions(SceneSource.load(data.size))
        words = PictureWords(source.grammar, source.names if model.book.pages else [], spoken)
        for key, wanted, got in (("text.vocab", len(words.vocabulary), model.text.vocab),
                                 ("text.colours", len(COLOUR_NUMBERS), model.text.colours),
                                 ("book.pages", len(source.pages), model.book.pages)):
            if got != wanted and (model.book.pages or key == "text.vocab"):
                raise ConjureError(f"model.{key} is {got}, the data have {wanted}", hint=f"model.{key}={wanted}")
        codec = load_codec(find(model.codec)) if model.codec else None
        with randomness.drawing_weights(seed):
            network = Painter(model.text, model.book, model.dit)
        task = cls(ScenePainter(model, network, words, codec), source=source, data=data, seed=seed)
        shape = tuple(task._encode([source.example(seed, 0).pixels]).shape[1:])
        if shape != (model.dit.channels, model.dit.size, model.dit.size):
            raise ConjureError(f"the pictures come as {shape}, model.dit has {model.dit.channels} channels and side "
                               f"{model.dit.size}", hint="data.size, the codec and model.dit belong together")
        if network.book is not None:
            for page, pixels in enumerate(source.pages):
                network.book.write(page, task._encode([pixels])[0])
        return task

    @classmethod
    def load(cls, folder: Path) -> TextToImage:
        """The model in a folder, ready to draw."""
        painter = ScenePainter.load(folder)
        return cls(painter, data=from_dict(CaptionData, read_config(folder)["data"], where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        assert self.source is not None
        examples = [self.source.example(self.seed, i) for i in indices]
        own = [randomness.derive(self.seed, "example", i) for i in indices]
        told = [randomness.rng(s).random() >= self.config.drop for s in own]
        return self._tensors(examples, told, own)

    def _tensors(self, examples: Sequence[Example], told: Sequence[bool], own: Sequence[int]) -> dict[str, Tensor]:
        captions = [e.caption if tell else "" for e, tell in zip(examples, told, strict=True)]
        rows, pages = self.words.encode(captions, self.config.text.length)
        things_BK5 = named_places(torch.from_numpy(pages), [e.places for e in examples])
        return {"x": self._encode([e.pixels for e in examples]), "words": torch.from_numpy(rows),
                "pages": torch.from_numpy(pages), "things": things_BK5, "seeds": torch.tensor(list(own))}

    @torch.no_grad()
    def _encode(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return self.painter.encode(torch.from_numpy(np.stack(pictures)))

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        painter, own = self.network if network is None else network, batch["seeds"].tolist()
        x0 = batch["x"]
        noise = randomness.normal(own, x0.shape[1:]).to(x0.device, x0.dtype)
        t_B = self.config.flow.time(randomness.uniform(own)).to(x0.device)
        told = batch["words"], batch["pages"], batch["things"]
        layout: list[Layout | None] = []

        def predict(x: Tensor, t: Tensor) -> Tensor:
            out, places = painter(x, t, *told)
            layout.append(places)
            return out

        loss_B = self.config.flow.loss(predict, x0, noise, t_B)
        if layout[0] is not None:
            loss_B = loss_B + layout_loss(layout[0], batch["pages"], batch["things"])
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["x"]) * self.network.dit.patch_count

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(len(batch["x"]))

    def describe(self, batch: dict[str, Tensor]) -> str:
        """Captions as the network reads them, and where their things are."""
        lines = [f"{len(batch['x'])} pictures as {tuple(batch['x'].shape[1:])}; every value carries loss. Captions:"]
        for *told, things in zip(*(batch[key].tolist() for key in ("words", "pages", "things")), strict=True):
            places = [f"{x:.2f} {y:.2f} x{scale:.2f}" for token, x, y, scale, _ in things if token >= 0]
            lines.append("  " + self.words.read(*told) + (f"   at {', '.join(places)}" if places else ""))
        return "\n".join(lines)

    def preview(self, seed: int) -> dict[str, Image]:
        """The source's prompts, in two rows."""
        assert self.source is not None
        prompts = self.source.prompts
        pictures = self._plainly(prompts, [randomness.derive(seed, i) for i in range(len(prompts))])
        return {"pictures": grid(pictures, columns=len(prompts) // 2)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Loss at fixed times and noise over held-out examples."""
        assert self.source is not None
        total, indices = 0.0, range(limit or 256)
        for start in range(0, len(indices), 32):
            part = indices[start : start + 32]
            batch = self._tensors([self.source.example(self.seed, i, "test") for i in part], [True] * len(part),
                                  [randomness.derive(0, "validation", i) for i in part])
            total += self.loss(batch)[0].item()
        return {"loss": total / len(indices)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        codec = self.codec
        write_config(folder, kind="painter", task="draw", network=self.network, sections={
            "model": to_dict(self.config), "data": to_dict(self.data),
            **({"codec": to_dict(codec.config)} if codec is not None else {})})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        if codec is not None:
            save_weights(folder, "codec", codec, dtype=dtype)
        self.words.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: TextToImageOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        for _, event in self.together([(inputs, seeds)], options):
            yield event

    def together(
        self, asked: Sequence[tuple[Sequence[Text], Sequence[int]]], options: TextToImageOptions
    ) -> Iterator[tuple[int, Event]]:
        """What `generate` yields for each of several inputs with their seeds, as (number, event), from one batch."""
        prompts: list[str] = []
        parts: list[slice] = []
        for number, (inputs, seeds) in enumerate(asked):
            prompt = " ".join(t.text for t in inputs).strip()
            if not prompt:
                raise ConjureError("expected a prompt, got an empty text", hint='try: conjure make "a cat" -o cat.png')
            if options.negative and options.guidance == 1:
                yield number, Warn("the negative prompt has no effect with a guidance of 1: give --guidance 2 or more")
            for text in filter(None, (prompt, options.negative)):
                for event in self.painter.unread(text):
                    yield number, event
            parts.append(slice(len(prompts), len(prompts) + len(seeds)))
            prompts += [prompt] * len(seeds)
        yield from self._draw(prompts, options, [seed for _, seeds in asked for seed in seeds], parts)

    def draw(self, prompts: Sequence[str], options: TextToImageOptions, seeds: Sequence[int]) -> list[Image]:
        """Pictures of several prompts at once, in batches that fit a small machine."""
        made: list[Image] = []
        for start in range(0, len(prompts), self.painter.at_once):
            part = slice(start, start + self.painter.at_once)
            results = (e for _, e in self._draw(prompts[part], options, seeds[part]) if isinstance(e, Result))
            made += [medium for result in results for medium in result.media if isinstance(medium, Image)]
        return made

    @staticmethod
    def forecast(folder: Path, options: TextToImageOptions, count: int) -> dict[str, Any]:
        """As `scene_painter.forecast` has it."""
        config = from_dict(PainterConfig, read_config(folder)["model"], where="model")
        side = options.size or config.dit.size * (DOWNSCALE if config.codec else 1)
        return forecast(config, _evaluations(options), count, side)

    @torch.no_grad()
    def _draw(
        self, prompts: Sequence[str], options: TextToImageOptions, seeds: Sequence[int],
        parts: Sequence[slice] = (slice(None),),
    ) -> Iterator[tuple[int, Event]]:  # fmt: skip
        """One batch, told to each of those who wait for `parts` of it."""
        denoise = self.painter.denoiser(prompts, seeds, guidance=options.guidance, negative=options.negative)
        sigmas = self.config.flow.sigmas(options.steps)
        x = self.painter.prior(seeds, float(sigmas[0]))
        steps = SAMPLERS[options.sampler].steps(denoise, x, sigmas, randomness.Noise(seeds))
        for done, step in enumerate(steps, start=1):
            x = step.x
            for number, part in enumerate(parts):
                yield number, Progress(done, options.steps, "step")
                if done < options.steps:
                    yield number, Preview(lambda x0=step.x0[part]: grid(self._pictures(x0, 0)))
        made = self._pictures(x, options.size)
        for number, part in enumerate(parts):
            yield number, Result(made[part], {"evaluations": _evaluations(options)})

    def _pictures(self, x_BZhw: Tensor, size: int) -> list[Image]:
        pictures = (Image(p.numpy()) for p in self.painter.pixels(x_BZhw))
        return [resized(p, size) if size else p for p in pictures]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Known things and composition for scenes, recognised digits for digits. `data` may choose among them."""
        measures: dict[str, Callable[..., dict[str, Any]]] = {"recognised": recognised}
        if self.data.source == "scenes":
            source = SceneSource.load(self.data.size)
            both = {"known_things": known_things, "composition": compositions}
            measures = {name: partial(measure, source=source) for name, measure in both.items()}
        for name in data:
            if name not in measures:
                raise ConjureError(f"this model has no measure '{name}'", hint=suggest(name, measures))
        return {name: measures[name](self._plainly, tell=on_progress) for name in data or measures}

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        """Samples beside the first examples of training, and as many that nobody saw."""
        if self.data.source == "digits":
            return copied(self._plainly, DigitCaptions().example, tell, unseen="test")
        return copied(self._plainly, SceneCaptions(SceneSource.load(self.data.size)).example, tell)

    def _plainly(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return self.draw(prompts, TextToImageOptions(), seeds)


def _evaluations(options: TextToImageOptions) -> int:
    return evaluations(options.sampler, options.steps, options.guidance)
