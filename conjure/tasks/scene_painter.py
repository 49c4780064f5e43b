"""Our own painters as they are used: read from a folder, told of texts, drawing new pictures and edits.

Legend: B batch, H and W pixels, C channels, Z latent channels, h and w cells, M things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import DOWNSCALE, ImageAutoencoder, from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict
from conjure.core.device import matmul_rate
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Warn
from conjure.data.phrases import spoken
from conjure.data.scene_graph import BACKGROUNDS
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.guidance import guided
from conjure.diffusion.names import without_spacing
from conjure.diffusion.samplers import SAMPLERS, Step
from conjure.media.canvas import windows
from conjure.media.fit import Fit, Size, on_square
from conjure.media.mask import Box
from conjure.models.dit import DiT
from conjure.models.folder import load_weights, read_config
from conjure.models.image_codec import load_codec
from conjure.models.painter import Painter, PainterConfig
from conjure.tasks.drawing_options import PUBLIC, DrawingOptions
from conjure.tasks.held_region import held_steps
from conjure.tasks.options import knobs

MOST_THINGS = 12  # in one picture
DRIFT = 0.04  # how far, in canvas sides, places vary from seed to seed
GRID = 16  # things were learnt with their corners on so many lines
NEAR = 16  # of 255: how far a ground may be from the colour that its name stands for
STEPS = 12  # of an edit, where nothing is said
BATCH = 16  # pictures at a time

Frame = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of the canvas, in canvas sides."""


@dataclass(frozen=True)
class ScenePainter:
    """A painter with its words and its codec. Canvases are squares of `side` pixels, `cells` latent cells a side."""

    config: PainterConfig
    network: Painter
    words: PictureWords
    codec: ImageAutoencoder | None

    @classmethod
    def load(cls, folder: Path) -> ScenePainter:
        """The model in a folder, ready to draw; `ConjureError` where it is no painter."""
        saved = read_config(folder)
        if saved.get("kind") != "painter":
            kind = saved.get("kind") or "something else"
            raise ConjureError(f"{folder}: expected a model that draws, this is {kind}",
                               hint="`conjure list models` shows which can")
        config = from_dict(PainterConfig, saved["model"], where="model")
        network = Painter(config.text, config.book, config.dit)
        load_weights(network, folder / "model.safetensors")
        codec = load_codec(folder) if config.codec else None
        words = PictureWords.load(folder, spoken, pages=config.book.pages)
        if len(words.vocabulary) != config.text.vocab:
            raise ConjureError(f"{folder / 'words.json'}: {len(words.vocabulary)} words for a network of "
                               f"{config.text.vocab}", hint="fetch or train the model again")
        return cls(config, network.eval().requires_grad_(False), words, codec)

    # -- pixels and latents

    @property
    def cells(self) -> int:
        return self.config.dit.size

    @property
    def side(self) -> int:
        return self.cells * (DOWNSCALE if self.codec is not None else 1)

    def encode(self, pixels_BHWC: Tensor) -> Tensor:
        """uint8, grey or RGB as the model has it -> `[B, Z, h, w]`."""
        x_BCHW = from_pixels(pixels_BHWC)
        return x_BCHW if self.codec is None else self.codec.encode(x_BCHW).contiguous()

    def pixels(self, x_BZhw: Tensor) -> Tensor:
        """uint8, grey or RGB as the model has it."""
        return to_pixels(self.codec.decode(x_BZhw) if self.codec is not None else x_BZhw)

    # -- what it is told

    def denoiser(
        self, texts: Sequence[str], seeds: Sequence[int], *, guidance: float = 1.0, negative: str = "",
        rescale: float = 0.0, frame: Frame | None = None,
    ) -> Denoiser:  # fmt: skip
        """The denoiser told of a text for each seed. What they name goes into `frame` where that is given."""
        told = self._condition(texts, seeds, frame)
        without = () if guidance == 1 else self._condition([negative] * len(seeds), seeds, frame)
        return guided(self.config.flow.denoise(self.network.dit), guidance, condition=told, unconditional=without,
                      rescale=rescale)  # fmt: skip

    def prior(self, seeds: Sequence[int], sigma: float) -> Tensor:
        """Noise of that size, as latents, each row by its seed alone."""
        return sigma * randomness.normal(seeds, (self.config.dit.channels, self.cells, self.cells))

    def unread(self, text: str) -> Iterator[Event]:
        """Words about what it cannot read in a text."""
        advice = "This model draws what it can; a larger one may know more: --model NAME"
        yield from map(Warn, self.words.unread(text, self.config.text.length, advice))

    def _condition(self, texts: Sequence[str], seeds: Sequence[int], frame: Frame | None) -> tuple[Tensor, ...]:
        """What the transformer is told: the texts' states, and what their things look like in place."""
        words, pages = (torch.from_numpy(a) for a in self.words.encode(texts, self.config.text.length))
        context = self.network.read(words, pages)
        if self.network.book is None:
            things = context[0].new_full((len(seeds), 1, 5), -1.0)
        else:
            own = [randomness.derive(seed, "places") for seed in seeds]
            drift_BM2 = (randomness.uniform(own, (MOST_THINGS, 2)) * 2 - 1) * DRIFT
            things = self.network.arrange(context, pages, drift_BM2 if frame is None else 0 * drift_BM2)
            things = things if frame is None else framed(things, frame)
        return (*context, self.network.guide(context, pages, things))

    # -- edits: `picture_models.PictureModel`

    @property
    def at_once(self) -> int:
        return BATCH

    @property
    def carries_on(self) -> float:
        return 0.4

    def fit(self, picture: Size, longest: int = 0) -> Fit:
        return on_square(picture, self.side)

    def windows(self, mask_HW: Any, longest: int = 0) -> list[Box]:
        """As many squares as it takes."""
        return windows(mask_HW, self.side)

    def ready(self, how: DrawingOptions, texts: Sequence[str], fit: Fit) -> Iterator[Event]:
        """Refuses options that mean nothing to it, and says what of the texts will not count."""
        given = {knob.name: knob.flag for knob in knobs(type(how)) if getattr(how, knob.name) != knob.default}
        if refused := [given[name] for name in PUBLIC if name in given]:
            raise ConjureError(f"{', '.join(refused)}: for models from elsewhere, not for this one",
                               hint="leave it out, or name such a model: --model")
        without_spacing(how.sampler or "euler")
        for text in filter(None, (*texts, how.negative)):
            yield from self.unread(text)
        if how.negative and _guidance(how) == 1:
            yield Warn("the negative prompt has no effect with a guidance of 1: give --guidance 2 or more")

    def caption(self, text: str, pixels_HWC: Tensor, seen_HW: Tensor) -> str:
        """Scenes have one of nine grounds and captions name it, so a text that names none is told of the one that is
        seen: the commonest colour, if it is near one of them."""
        if "background" in text or self.network.book is None or not seen_HW.any():
            return text
        colours, counts = torch.unique(pixels_HWC[seen_HW] // 8, dim=0, return_counts=True)
        commonest = colours[counts.argmax()].float() * 8 + 4
        away = {name: float((commonest - torch.tensor(rgb)).abs().max()) for name, rgb in BACKGROUNDS.items()}
        name = min(away, key=lambda each: away[each])
        if away[name] > NEAR or name == "white":
            return text
        return f"{text}, on a {name} background" if text else f"a {name} background"

    def count(self, how: DrawingOptions, strength: float, fit: Fit) -> int:
        return how.steps or STEPS

    def evaluations(self, how: DrawingOptions, strength: float, fit: Fit) -> int:
        return evaluations(how.sampler, how.steps or STEPS, _guidance(how))

    def draw(
        self, canvas_BHWC: Tensor, open_HW: Tensor | None, text: str, how: DrawingOptions, seeds: Sequence[int], *,
        strength: float, repeats: int = 1, frame: Frame | None = None,
    ) -> Iterator[Step]:  # fmt: skip
        denoise = self.denoiser([text] * len(seeds), seeds, guidance=_guidance(how), negative=how.negative,
                                rescale=how.rescale, frame=frame)  # fmt: skip
        sigmas = shortened(self.config.flow.sigmas, how.steps or STEPS, strength)
        whole = torch.ones(1, 1, self.cells, self.cells)
        new = whole if open_HW is None else nn.functional.adaptive_max_pool2d(open_HW.float()[None, None], self.cells)
        known = self.encode(canvas_BHWC)
        known = known if known.shape[1] == self.config.dit.channels else known.mean(1, keepdim=True)
        steps = SAMPLERS[without_spacing(how.sampler or "euler")].steps
        return held_steps(steps, denoise, self.prior(seeds, float(sigmas[0])), sigmas, randomness.Noise(seeds),
                          known=known, guess=known, mask=new, repeats=repeats)  # fmt: skip

    def decode(self, x: Tensor, how: DrawingOptions) -> Tensor:
        pixels_BHWC = self.pixels(x)
        return pixels_BHWC if pixels_BHWC.shape[-1] == 3 else pixels_BHWC.expand(-1, -1, -1, 3)

    def glance(self, x0: Tensor, how: DrawingOptions) -> Tensor:
        return self.decode(x0, how)

    def forecast(self, how: DrawingOptions, strength: float, fit: Fit, count: int) -> dict[str, Any]:
        return forecast(self.config, self.evaluations(how, strength, fit), count, max(fit.picture))


def forecast(config: PainterConfig, passes: int, count: int, side: int) -> dict[str, Any]:
    """What `passes` evaluations for each of `count` pictures take. `seconds`: the transformer's operations at the rate
    at which matrices multiply here, which nothing undercuts; `memory_bytes`: the activations of its widest layer and of
    the finished pictures, `side` pixels square."""
    with torch.device("meta"):
        transformer = DiT(config.dit)
    activations = 4 * count * transformer.patch_count * (config.dit.dim * 6 + config.dit.hidden)
    seconds = passes * transformer.flops(count, config.text.length) / matmul_rate()
    return {"evaluations": passes, "memory_bytes": activations + 4 * count * 3 * side**2, "seconds": seconds}


def evaluations(sampler: str, steps: int, guidance: float) -> int:
    """Passes of the network for one picture: guidance needs a second one, without the text."""
    return SAMPLERS[without_spacing(sampler or "euler")].evaluations(steps) * (1 if guidance == 1 else 2)


def shortened(sigmas: Callable[[int], Tensor], steps: int, strength: float) -> Tensor:
    """`steps` noise levels down to 0, from the share `strength` of the whole way on: `sigmas(steps)` for 1."""
    if strength >= 1:
        return sigmas(steps)
    return sigmas(max(steps, round(steps / strength)))[-steps - 1 :]


def framed(things_BM5: Tensor, frame: Frame) -> Tensor:
    """Things (token or -1, x, y, scale, colour) moved and scaled together so that they fill the frame, on the grid."""
    left, top, right, bottom = frame
    centre = torch.tensor([(left + right) / 2, (top + bottom) / 2])
    out = things_BM5.clone()
    for b, row in enumerate(things_BM5):
        used = row[:, 0] >= 0
        if not used.any():
            continue
        low = (row[used, 1:3] - row[used, 3:4] / 2).amin(0)
        high = (row[used, 1:3] + row[used, 3:4] / 2).amax(0)
        ratio = min((right - left) / float(high[0] - low[0]), (bottom - top) / float(high[1] - low[1]))
        scale_M1 = ((row[:, 3:4] * ratio) * GRID).round().clamp(1, GRID) / GRID
        place_M2 = (row[:, 1:3] - (low + high) / 2) * ratio + centre
        out[b, :, 1:3] = ((place_M2 - scale_M1 / 2) * GRID).round() / GRID + scale_M1 / 2
        out[b, :, 3:4] = scale_M1
    return out


def _guidance(how: DrawingOptions) -> float:
    return 1.0 if how.guidance is None else how.guidance
