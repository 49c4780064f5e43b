"""What edits of pictures need of a model, and our painters as such a model.

Legend: B batch, H and W pixels, C channels, Z latent channels, h and w cells, M things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from conjure.codecs.image_autoencoder import DOWNSCALE, ImageAutoencoder, from_pixels, to_pixels
from conjure.codecs.picture_words import PictureWords
from conjure.core import seeds as randomness
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.data.phrases import spoken
from conjure.data.scene_graph import BACKGROUNDS
from conjure.diffusion.denoiser import Denoiser
from conjure.diffusion.guidance import guided
from conjure.models.folder import load_weights, read_config
from conjure.models.image_codec import load_codec
from conjure.models.painter import Painter, PainterConfig

MOST_THINGS = 12  # in one picture
DRIFT = 0.04  # how far, in canvas sides, places vary from seed to seed
GRID = 16  # things were learnt with their corners on so many lines
NEAR = 16  # of 255: how far a ground may be from the colour that its name stands for

Frame = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of the canvas, in canvas sides."""


class PictureModel(Protocol):
    """A latent diffusion model on square canvases of `side` pixels, `cells` latent cells a side."""

    @property
    def side(self) -> int: ...

    @property
    def cells(self) -> int: ...

    def encode(self, pixels_BHWC: Tensor) -> Tensor:
        """uint8 RGB `[B, side, side, 3]` -> latents `[B, Z, cells, cells]`."""
        ...

    def decode(self, x_BZhw: Tensor) -> Tensor:
        """Latents -> uint8 RGB."""
        ...

    def denoiser(
        self, text: str, seeds: Sequence[int], *, guidance: float = 1.0, negative: str = "", frame: Frame | None = None
    ) -> Denoiser:
        """The denoiser told of `text`, one row a seed. What it names goes into `frame` where that is given."""
        ...

    def caption(self, text: str, pixels_HWC: Tensor, seen_hw: Tensor) -> str:
        """What to tell the model of a text for a part of a canvas whose cells marked in `seen` stay as they are."""
        ...

    def sigmas(self, steps: int) -> Tensor:
        """Noise levels, from pure noise to 0."""
        ...

    def start(self, seeds: Sequence[int], sigma: float) -> Tensor:
        """Noise of that size, as latents, each row by its seed alone."""
        ...

    def complaints(self, text: str) -> list[str]:
        """What the model cannot read in a text."""
        ...


@dataclass(frozen=True)
class ScenePainter:
    """A painter of this project as a `PictureModel`."""

    config: PainterConfig
    network: Painter
    words: PictureWords
    codec: ImageAutoencoder | None

    @classmethod
    def load(cls, folder: Path) -> ScenePainter:
        """The model in a folder; `ConjureError` where it is no painter."""
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
        return cls(config, network.eval().requires_grad_(False), words, codec)

    @property
    def cells(self) -> int:
        return self.config.dit.size

    @property
    def side(self) -> int:
        return self.cells * (DOWNSCALE if self.codec is not None else 1)

    def encode(self, pixels_BHWC: Tensor) -> Tensor:
        x_BCHW = from_pixels(pixels_BHWC)
        if self.codec is not None:
            return self.codec.encode(x_BCHW).contiguous()
        return x_BCHW if self.config.dit.channels == 3 else x_BCHW.mean(1, keepdim=True)

    def decode(self, x_BZhw: Tensor) -> Tensor:
        pixels_BHWC = to_pixels(self.codec.decode(x_BZhw) if self.codec is not None else x_BZhw)
        return pixels_BHWC if pixels_BHWC.shape[-1] == 3 else pixels_BHWC.expand(-1, -1, -1, 3)

    def sigmas(self, steps: int) -> Tensor:
        return self.config.flow.sigmas(steps)

    def start(self, seeds: Sequence[int], sigma: float) -> Tensor:
        return sigma * randomness.normal(seeds, (self.config.dit.channels, self.cells, self.cells))

    def denoiser(
        self, text: str, seeds: Sequence[int], *, guidance: float = 1.0, negative: str = "", frame: Frame | None = None
    ) -> Denoiser:
        told = self._condition(text, seeds, frame)
        without = () if guidance == 1 else self._condition(negative, seeds, frame)
        return guided(self.config.flow.denoise(self.network.dit), guidance, condition=told, unconditional=without)

    def caption(self, text: str, pixels_HWC: Tensor, seen_hw: Tensor) -> str:
        """Scenes have one of nine grounds and captions name it, so a text that names none is told of the one that is
        seen: the commonest colour, if it is near one of them."""
        if "background" in text or self.network.book is None or not seen_hw.any():
            return text
        step = self.side // self.cells
        seen_HW = seen_hw.repeat_interleave(step, 0).repeat_interleave(step, 1)
        colours, counts = torch.unique(pixels_HWC[seen_HW] // 8, dim=0, return_counts=True)
        commonest = colours[counts.argmax()].float() * 8 + 4
        away = {name: float((commonest - torch.tensor(rgb)).abs().max()) for name, rgb in BACKGROUNDS.items()}
        name = min(away, key=lambda each: away[each])
        if away[name] > NEAR or name == "white":
            return text
        return f"{text}, on a {name} background" if text else f"a {name} background"

    def complaints(self, text: str) -> list[str]:
        said = []
        if unknown := self.words.unknown(text):
            listed = "; ".join(f"{word!r}" + (f" (nearest known: {', '.join(near)})" if near else "")
                               for word, near in unknown.items())
            said.append(f"not learnt: {listed}. This model draws what it can")
        if cut := self.words.cut(text, self.config.text.length):
            said.append(f"the text is too long for this model, which does not read its end: {cut!r}")
        return said

    def _condition(self, text: str, seeds: Sequence[int], frame: Frame | None) -> tuple[Tensor, ...]:
        """What the transformer is told: the text's states, and what its things look like in place."""
        words, pages = (torch.from_numpy(a) for a in self.words.encode([text] * len(seeds), self.config.text.length))
        context = self.network.read(words, pages)
        if self.network.book is None:
            things = context[0].new_full((len(seeds), 1, 5), -1.0)
        else:
            own = [randomness.derive(seed, "places") for seed in seeds]
            drift_BM2 = (randomness.uniform(own, (MOST_THINGS, 2)) * 2 - 1) * DRIFT
            things = self.network.arrange(context, pages, drift_BM2 if frame is None else 0 * drift_BM2)
            things = things if frame is None else framed(things, frame)
        return (*context, self.network.guide(context, pages, things))


def picture_model(folder: Path) -> PictureModel:
    """The model in a folder that edits pictures; `ConjureError` where it cannot."""
    return ScenePainter.load(folder)


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
