"""text -> image: a caption read by an illustrated text encoder, drawn by a diffusion transformer.

With a codec the transformer works on the codec's latents (pictograms); without one on pixels (digits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import ImageAutoencoder, from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.core.shelf import find
from conjure.data.captions import CaptionSource, DigitCaptions, Example, SceneCaptions
from conjure.data.phrases import spoken
from conjure.data.scenes import SceneSource
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.guidance import guided
from conjure.diffusion.names import SAMPLER_NAMES
from conjure.diffusion.samplers import SAMPLERS
from conjure.media.image import Image, grid, resized
from conjure.media.text import Text
from conjure.models.dit import DiTConfig
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.image_codec import load_codec
from conjure.models.painter import Painter, layout_loss
from conjure.models.picture_book import PictureBookConfig
from conjure.models.picture_text import BOXES, PictureTextConfig
from conjure.nn.linear import Linear
from conjure.tasks.picture_evaluation import compositions, known_things


@plain_dataclass(frozen=True, kw_only=True)
class PainterConfig:
    """`codec` names the model folder whose autoencoder is used, "" for pixels; `drop` is the share of captions that are
    emptied in training, so that guidance has something to start from."""

    text: PictureTextConfig = field(default_factory=PictureTextConfig)
    book: PictureBookConfig = field(default_factory=PictureBookConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    codec: str = ""
    drop: float = 0.1


@plain_dataclass(frozen=True, kw_only=True)
class CaptionData:
    source: Literal["scenes", "digits"] = "scenes"
    size: int = 128


@dataclass(frozen=True, kw_only=True)
class TextToImageOptions:
    steps: int = Field(12, ge=1, le=1000, description="steps of the sampler; more is slower and closer to the model")
    guidance: float = Field(1.0, ge=0, le=30, description="how strongly the prompt pulls (1: as trained)")
    negative: str = Field("", description="what the picture should not show (needs --guidance above 1)")
    size: int = Field(0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")
    sampler: Literal[*SAMPLER_NAMES] = Field("euler", description="how the noise is removed")  # type: ignore[valid-type]


MOST_THINGS = 12  # in one picture
DRIFT = 0.04  # how far, in canvas sides, places vary from seed to seed


class TextToImage:
    Options = TextToImageOptions
    ModelConfig = PainterConfig
    DataConfig = CaptionData
    causal = False

    def __init__(self, config: PainterConfig, network: Painter, words: PictureWords, codec: ImageAutoencoder | None,
                 *, source: CaptionSource | None = None, data: CaptionData | None = None, seed: int = 0) -> None:
        self.config, self.network, self.words, self.codec = config, network, words, codec
        self.source, self.data, self.seed = source, data or CaptionData(), seed

    @classmethod
    def create(cls, model: PainterConfig, data: CaptionData, seed: int = 0) -> TextToImage:
        """A new model. The vocabulary and the book come from the data; the recipe's `vocab` and `pages` must agree."""
        source = SceneCaptions(SceneSource.load(data.size)) if data.source == "scenes" else DigitCaptions()
        words = PictureWords(source.grammar, source.names if model.book.pages else [], spoken)
        for key, wanted, got in (("text.vocab", len(words.vocabulary), model.text.vocab),
                                 ("book.pages", len(source.pages), model.book.pages)):
            if got != wanted and not (key == "book.pages" and got == 0):
                raise ConjureError(f"model.{key} is {got}, but the data have {wanted}", hint=f"write model.{key}={wanted}")
        codec = load_codec(find(model.codec)) if model.codec else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.derive(seed, "weights") % 2**32)
            network = Painter(model.text, model.book, model.dit)
        task = cls(model, network, words, codec, source=source, data=data, seed=seed)
        if network.book is not None:
            for page, pixels in enumerate(source.pages):
                network.book.write(page, task._encode(torch.from_numpy(pixels)[None])[0])
        return task

    @classmethod
    def load(cls, folder: Path) -> TextToImage:
        saved = read_config(folder)
        config = from_dict(PainterConfig, saved["model"], where="model")
        network = Painter(config.text, config.book, config.dit)
        load_weights(network, folder / "model.safetensors")
        codec = load_codec(folder) if config.codec else None
        words = PictureWords.load(folder, spoken)
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
        """`things` [B, M, 4]: (token that names the thing, x, y, scale), -1 where there is none or nothing was told."""
        captions = [e.caption if tell else "" for e, tell in zip(examples, told, strict=True)]
        rows, pages = self.words.encode(captions, self.config.text.length)
        things = torch.full((len(examples), BOXES, 4), -1.0)
        for b, example in enumerate(examples):
            where = {int(page): t for t, page in reversed(list(enumerate(pages[b]))) if page >= 0}
            known = [(where[page], x, y, scale) for page, x, y, scale in example.places if page in where]
            for m, thing in enumerate(known[:BOXES]):
                things[b, m] = torch.tensor(thing)
        pixels = torch.stack([torch.from_numpy(e.pixels) for e in examples])
        return {"x": self._encode(pixels), "words": torch.from_numpy(rows), "pages": torch.from_numpy(pages),
                "things": things, "seeds": torch.tensor(list(own))}

    @torch.no_grad()
    def _encode(self, pixels_BHWC: Tensor) -> Tensor:
        x_BCHW = from_pixels(pixels_BHWC)
        return self.codec.encode(x_BCHW).contiguous() if self.codec is not None else x_BCHW

    def _decode(self, x_BZhw: Tensor) -> Tensor:
        return to_pixels(self.codec.decode(x_BZhw) if self.codec is not None else x_BZhw)

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        painter, own = network or self.network, batch["seeds"].tolist()
        x0 = batch["x"]
        noise = randomness.normal(own, x0.shape[1:]).to(x0.device, x0.dtype)
        t_B = self.config.flow.time(randomness.uniform(own)).to(x0.device)
        told = batch["words"], batch["pages"], batch["things"]
        layout: list[Tensor | None] = []

        def predict(x: Tensor, t: Tensor) -> Tensor:
            out, places = painter(x, t, *told)
            layout.append(places)
            return out

        loss_B = self.config.flow.loss(predict, x0, noise, t_B)
        if layout[0] is not None:
            loss_B = loss_B + layout_loss(layout[0], batch["pages"], batch["things"])
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["x"]) * (self.config.dit.size // self.config.dit.patch) ** 2

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward; the text encoder is counted by its matrices."""
        b, text = len(batch["x"]), self.config.text
        beside = text.length * sum(m.weight.numel() for m in self.network.text.modules() if isinstance(m, Linear))
        if self.network.book is not None:
            patches = self.tokens(batch) // b
            beside += patches * sum(m.weight.numel() for m in self.network.book.modules() if isinstance(m, Linear))
        return 3 * self.network.dit.flops(b, text.length) + 6.0 * b * beside

    def describe(self, batch: dict[str, Tensor]) -> str:
        lines = [f"{len(batch['x'])} pictures as {tuple(batch['x'].shape[1:])}; every value carries loss. Captions:"]
        lines += ["  " + self.words.read(rows, pages)
                  for rows, pages in zip(batch["words"].tolist(), batch["pages"].tolist(), strict=True)]
        return "\n".join(lines)

    def preview(self, seed: int) -> dict[str, Image]:
        assert self.source is not None
        prompts = list(self.source.prompts)
        pictures = self.draw(prompts, TextToImageOptions(), [randomness.derive(seed, i) for i in range(len(prompts))])
        return {"pictures": grid(pictures, columns=4)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Validation loss at fixed times and noise over held-out examples."""
        assert self.source is not None
        total, count = 0.0, 0
        indices = range(limit or 256)
        for start in range(0, len(indices), 32):
            part = indices[start:start + 32]
            batch = self._tensors([self.source.example(self.seed, i, "test") for i in part], [True] * len(part),
                                  [randomness.derive(0, "validation", i) for i in part])
            value, n = self.loss(batch)
            total, count = total + value.item(), count + int(n)
        return {"loss": total / count}

    def save(
        self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32", card: str = ""
    ) -> None:
        write_config(folder, kind="painter", task="draw", network=self.network, card=card, sections={
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
            raise ConjureError("expected a prompt, got an empty text", hint='for example: conjure make "a red apple" -o apple.png')
        yield from self._warnings(prompt)
        yield from self._draw([prompt] * len(seeds), options, list(seeds))

    def _warnings(self, prompt: str) -> Iterator[Event]:
        unknown = self.words.unknown(prompt)
        if unknown:
            said = "; ".join(f"{word!r}" + (f" (nearest known: {', '.join(near)})" if near else "")
                             for word, near in unknown.items())
            yield Warn(f"this model has not learnt {said}; it draws what it can. A larger model may know more: --model NAME")

    def draw(self, prompts: Sequence[str], options: TextToImageOptions, seeds: Sequence[int]) -> list[Image]:
        """Pictures of several prompts at once, in batches that fit a small machine."""
        made: list[Image] = []
        for start in range(0, len(prompts), 16):
            part = slice(start, start + 16)
            *_, last = self._draw(prompts[part], options, seeds[part])
            assert isinstance(last, Result)
            made += last.media
        return made

    @torch.no_grad()
    def _draw(self, prompts: Sequence[str], options: TextToImageOptions, seeds: Sequence[int]) -> Iterator[Event]:
        config, flow = self.config, self.config.flow
        drift = (randomness.uniform([randomness.derive(s, "places") for s in seeds], (MOST_THINGS, 2)) * 2 - 1) * DRIFT
        denoise = guided(flow.denoise(self.network.dit), options.guidance, condition=self._condition(prompts, drift),
                         unconditional=self._condition([options.negative] * len(prompts), drift))
        side = config.dit.size
        x = flow.prior(randomness.normal(seeds, (config.dit.channels, side, side)))
        steps = SAMPLERS[options.sampler].steps(denoise, x, flow.sigmas(options.steps), randomness.Noise(seeds))
        for done, (x, x0) in enumerate(steps, start=1):
            yield Progress(done, options.steps, "step")
            if done < options.steps:
                yield Preview(grid(self._pictures(x0, 0)))
        evaluations = SAMPLERS[options.sampler].evaluations(options.steps) * (1 if options.guidance == 1 else 2)
        yield Result(self._pictures(x, options.size), {"evaluations": evaluations})

    def _condition(self, prompts: Sequence[str], drift_BM2: Tensor) -> tuple[Tensor, ...]:
        """What the transformer is told of each prompt: the text's states, and what its things look like in place."""
        words, pages = (torch.from_numpy(a) for a in self.words.encode(prompts, self.config.text.length))
        context = self.network.read(words, pages)
        if self.network.book is None:
            things = context[0].new_full((len(prompts), 1, 4), -1.0)
        else:
            things = self.network.arrange(context, pages, drift_BM2)
        return (*context, self.network.guide(context, pages, things))

    def _pictures(self, x_BZhw: Tensor, size: int) -> list[Image]:
        pictures = [Image(p.numpy()) for p in self._decode(x_BZhw)]
        return [resized(p, size) for p in pictures] if size else pictures

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Known things and composition for models of scenes; the validation loss for others. `data` may name one."""
        if self.data.source != "scenes":
            self.source = DigitCaptions()
            return {"loss": {"value": self.evaluate()["loss"], "n": 256, "protocol": "flow loss, fixed times and noise"}}
        source = SceneSource.load(self.data.size)

        def draw(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
            return self.draw(prompts, TextToImageOptions(), seeds)

        measures = {"known_things": known_things, "composition": compositions}
        unknown = set(data) - measures.keys()
        if unknown:
            raise ConjureError(f"expected measures of this model, got {', '.join(sorted(unknown))}",
                               hint="known: " + ", ".join(measures))
        return {name: measures[name](draw, source, tell=on_progress) for name in data or measures}
