"""text -> image: a caption read by an illustrated text encoder, drawn by a diffusion transformer.

With a codec the transformer works on the codec's latents (pictograms); without one on pixels (digits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import DOWNSCALE, ImageAutoencoder, from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.device import matmul_rate
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.shelf import find
from conjure.data.captions import COLOUR_NUMBERS, CaptionSource, DigitCaptions, Example, SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.scenes import SceneSource
from conjure.diffusion.guidance import guided
from conjure.diffusion.names import SAMPLER_NAMES, without_spacing
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.dit import DiT
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.image_codec import load_codec
from conjure.models.painter import Painter, PainterConfig, layout_loss, named_places
from conjure.models.picture_text import Layout
from conjure.tasks.digit_evaluation import recognised
from conjure.tasks.picture_evaluation import compositions, known_things
from conjure.tasks.picture_models import DRIFT, MOST_THINGS

BATCH = 16  # pictures at a time


@plain_dataclass(frozen=True, kw_only=True)
class CaptionData:
    """`size` is the side of composed scenes in pixels; digits have 28."""

    source: Literal["scenes", "digits"] = "scenes"
    size: int = 128


@dataclass(frozen=True, kw_only=True)
class TextToImageOptions:
    """How a picture is drawn."""

    steps: int = Field(default=8, ge=1, le=1000, description="steps of the sampler; more is slower and more faithful")
    guidance: float = Field(default=1.0, ge=0, le=30, description="how strongly the prompt pulls (1: as trained)")
    negative: str = Field(default="", description="what the picture should not show (needs --guidance above 1)")
    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")
    sampler: Annotated[Literal[*SAMPLER_NAMES], BeforeValidator(without_spacing)] = Field(  # type: ignore
        default="euler", description="how the noise is removed"
    )


class TextToImage:
    """Draws what a text says. `source` is there while the model trains; a loaded one has none."""

    Options = TextToImageOptions
    ModelConfig = PainterConfig
    DataConfig = CaptionData
    causal = False

    def __init__(self, config: PainterConfig, network: Painter, words: PictureWords, codec: ImageAutoencoder | None,
                 *, source: CaptionSource | None = None, data: CaptionData | None = None, seed: int = 0) -> None:
        self.config, self.network, self.words, self.codec = config, network, words, codec
        self.source, self.data, self.seed = source, data or CaptionData(), seed

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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.derive(seed, "weights") % 2**32)
            network = Painter(model.text, model.book, model.dit)
        task = cls(model, network, words, codec, source=source, data=data, seed=seed)
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
        saved = read_config(folder)
        config = from_dict(PainterConfig, saved["model"], where="model")
        network = Painter(config.text, config.book, config.dit)
        load_weights(network, folder / "model.safetensors")
        codec = load_codec(folder) if config.codec else None
        words = PictureWords.load(folder, spoken, pages=config.book.pages)
        if len(words.vocabulary) != config.text.vocab:
            raise ConjureError(f"{folder / 'words.json'}: {len(words.vocabulary)} words for a network of "
                               f"{config.text.vocab}", hint="fetch or train the model again")
        data = from_dict(CaptionData, saved["data"], where="data")
        return cls(config, network.eval().requires_grad_(False), words, codec, data=data)

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
        x_BCHW = from_pixels(torch.from_numpy(np.stack(pictures)))
        return self.codec.encode(x_BCHW).contiguous() if self.codec is not None else x_BCHW

    def _decode(self, x_BZhw: Tensor) -> Tensor:
        return to_pixels(self.codec.decode(x_BZhw) if self.codec is not None else x_BZhw)

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
        write_config(folder, kind="painter", task="draw", network=self.network, sections={
            "model": to_dict(self.config), "data": to_dict(self.data),
            **({"codec": to_dict(self.codec.config)} if self.codec is not None else {})})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        if self.codec is not None:
            save_weights(folder, "codec", self.codec, dtype=dtype)
        self.words.save(folder)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Text], options: TextToImageOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One picture per seed; sample k is the same alone and among others."""
        prompt = " ".join(t.text for t in inputs).strip()
        if not prompt:
            raise ConjureError("expected a prompt, got an empty text", hint='try: conjure make "a cat" -o cat.png')
        if options.negative and options.guidance == 1:
            yield Warn("the negative prompt has no effect with a guidance of 1: give --guidance 2 or more")
        for text in filter(None, (prompt, options.negative)):
            yield from self._warnings(text)
        yield from self._draw([prompt] * len(seeds), options, list(seeds))

    def _warnings(self, text: str) -> Iterator[Event]:
        unknown, cut = self.words.unknown(text), self.words.cut(text, self.config.text.length)
        if unknown:
            said = "; ".join(f"{word!r}" + (f" (nearest known: {', '.join(near)})" if near else "")
                             for word, near in unknown.items())
            yield Warn(f"not learnt: {said}. This model draws what it can; a larger one may know more: --model NAME")
        if cut:
            yield Warn(f"the text is too long for this model, which does not read its end: {cut!r}")

    def draw(self, prompts: Sequence[str], options: TextToImageOptions, seeds: Sequence[int]) -> list[Image]:
        """Pictures of several prompts at once, in batches that fit a small machine."""
        made: list[Image] = []
        for start in range(0, len(prompts), BATCH):
            part = slice(start, start + BATCH)
            results = (e for e in self._draw(prompts[part], options, seeds[part]) if isinstance(e, Result))
            made += [medium for result in results for medium in result.media if isinstance(medium, Image)]
        return made

    @staticmethod
    def forecast(folder: Path, options: TextToImageOptions, count: int) -> dict[str, Any]:
        """`seconds`: the transformer's operations at the rate at which matrices multiply here, which nothing undercuts;
        `memory_bytes`: the activations of its widest layer and of the finished pictures."""
        config = from_dict(PainterConfig, read_config(folder)["model"], where="model")
        with torch.device("meta"):
            transformer = DiT(config.dit)
        evaluations = _evaluations(options)
        activations = 4 * count * transformer.patch_count * (config.dit.dim * 6 + config.dit.hidden)
        pictures = 4 * count * 3 * (options.size or config.dit.size * (DOWNSCALE if config.codec else 1)) ** 2
        seconds = evaluations * transformer.flops(count, config.text.length) / matmul_rate()
        return {"evaluations": evaluations, "memory_bytes": activations + pictures, "seconds": seconds}

    @torch.no_grad()
    def _draw(self, prompts: Sequence[str], options: TextToImageOptions, seeds: Sequence[int]) -> Iterator[Event]:
        config, flow = self.config, self.config.flow
        drift = (randomness.uniform([randomness.derive(s, "places") for s in seeds], (MOST_THINGS, 2)) * 2 - 1) * DRIFT
        without = () if options.guidance == 1 else self._condition([options.negative] * len(prompts), drift)
        denoise = guided(flow.denoise(self.network.dit), options.guidance,
                         condition=self._condition(prompts, drift), unconditional=without)
        side = config.dit.size
        x = flow.prior(randomness.normal(seeds, (config.dit.channels, side, side)))
        steps = SAMPLERS[options.sampler].steps(denoise, x, flow.sigmas(options.steps), randomness.Noise(seeds))
        for done, step in enumerate(steps, start=1):
            x = step.x
            yield Progress(done, options.steps, "step")
            if done < options.steps:
                yield Preview(lambda x0=step.x0: grid(self._pictures(x0, 0)))
        yield Result(self._pictures(x, options.size), {"evaluations": _evaluations(options)})

    def _condition(self, prompts: Sequence[str], drift_BM2: Tensor) -> tuple[Tensor, ...]:
        """What the transformer is told of each prompt: the text's states, and what its things look like in place."""
        words, pages = (torch.from_numpy(a) for a in self.words.encode(prompts, self.config.text.length))
        context = self.network.read(words, pages)
        if self.network.book is None:
            things = context[0].new_full((len(prompts), 1, 5), -1.0)
        else:
            things = self.network.arrange(context, pages, drift_BM2)
        return (*context, self.network.guide(context, pages, things))

    def _pictures(self, x_BZhw: Tensor, size: int) -> list[Image]:
        pictures = (Image(p.numpy()) for p in self._decode(x_BZhw))
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

    def _plainly(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        return self.draw(prompts, TextToImageOptions(), seeds)


def _evaluations(options: TextToImageOptions) -> int:
    """Passes of the network for one picture: guidance needs a second one, without the prompt."""
    return SAMPLERS[options.sampler].evaluations(options.steps) * (1 if options.guidance == 1 else 2)
