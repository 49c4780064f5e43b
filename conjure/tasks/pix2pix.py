"""image -> image: pictures from outlines, learnt from pairs of both (pix2pix)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.events import Event, Progress, Result, Warn
from conjure.data.outlines import OutlineSource, fitted, grey, plainly
from conjure.media.image import Image, grid, resized
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.psnr import apart, psnrs
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.picture_translator import PairTranslator, TranslatorConfig
from conjure.tasks.memorisation import Sets

PART = 16  # pictures at a time, in measuring
SHOWN = 12  # held-out pictograms of a preview
DARK = 128  # grey level: a drawing that is mostly darker has no white ground


@plain_dataclass(frozen=True, kw_only=True)
class Pix2PixData:
    """Pictograms on white of `size` pixels a side, and their outlines."""

    size: int = 64


@dataclass(frozen=True, kw_only=True)
class Pix2PixOptions:
    """How the picture is given out."""

    size: int = Field(default=0, ge=0, le=4096, description="side of the picture in pixels (0: the model's own)")


class Pix2Pix:
    """Trains generator and critic on outlines and their pictures; colours a line drawing. A loaded one has a source
    once it is measured."""

    Options = Pix2PixOptions
    ModelConfig = TranslatorConfig
    DataConfig = Pix2PixData
    sets = ("noto_emoji",)
    causal, game = False, True

    def __init__(
        self, network: PairTranslator, data: Pix2PixData, *, source: OutlineSource | None = None, seed: int = 0
    ) -> None:
        self.network, self.data, self.seed = network, data, seed
        self._source = source

    @classmethod
    def create(cls, model: TranslatorConfig, data: Pix2PixData, seed: int = 0) -> Pix2Pix:
        """A new pair of networks."""
        model.expect(data.size, 1, 3)
        with randomness.drawing_weights(seed):
            network = PairTranslator(model)
        return cls(network, data, source=OutlineSource.load(data.size, seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Pix2Pix:
        """The model in a folder, ready to colour."""
        saved = read_config(folder)
        network = PairTranslator(from_dict(TranslatorConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        return cls(network.eval().requires_grad_(False), from_dict(Pix2PixData, saved["data"], where="data"))

    @property
    def source(self) -> OutlineSource:
        """The pictograms, read when they are asked for."""
        self._source = self._source or OutlineSource.load(self.data.size, self.seed)
        return self._source

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`lines` `[B, 1, H, W]` and `pictures` `[B, 3, H, W]` in [-1, 1]; `places` of the pictograms `[B]`."""
        lines, pictures, places_B = self.source.pairs(indices)
        return {"lines": from_pixels(torch.from_numpy(lines)), "pictures": from_pixels(torch.from_numpy(pictures)),
                "places": torch.from_numpy(places_B)}  # fmt: skip

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum over pictures of the mean distance to the true one, number of pictures). Critic and generator have their
        gradients here but no value: what one wins the other loses."""
        critic_B, judged_B, apart_B = (self.network if network is None else network)(batch["lines"], batch["pictures"])
        learnt = (critic_B + judged_B + self.network.config.weight * apart_B).sum()
        return apart_B.sum().detach() + (learnt - learnt.detach()), torch.tensor(len(apart_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return len(batch["places"])

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(self.tokens(batch))

    def describe(self, batch: dict[str, Tensor]) -> str:
        names = ", ".join(self.source.names[place] for place in batch["places"].tolist())
        return f"{self.tokens(batch)} outlines with their pictures; every pixel carries loss: {names}"

    def preview(self, seed: int) -> dict[str, Image]:
        """Held-out pictograms: outlines above what is made of them above the true pictures."""
        lines, pictures = self.source.held_out(SHOWN)
        rows = (*lines, *self._coloured(lines), *pictures)
        return {"outlines": grid([Image(np.ascontiguousarray(each)) for each in rows], columns=len(lines))}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Over held-out pictograms: mean distance of values, of 1, and PSNR."""
        lines, pictures = self.source.held_out(limit)
        made = self._coloured(lines)
        return {"l1": float(np.mean(apart(made, pictures))), "psnr_db": float(np.mean(psnrs(made, pictures)))}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="picture_translator", task="pix2pix", network=self.network,
                     sections={"model": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Image], options: Pix2PixOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same square picture; the drawing is put on white and scaled to the model's size."""
        (drawing,) = inputs
        lines = grey(fitted(drawing, self.network.config.side))
        if np.median(lines) < DARK:
            yield Warn("the drawing is mostly dark: this model colours dark lines on white")
        made = Image(self._coloured(lines[None])[0])
        yield Progress(1, 1, "picture")
        yield Result([resized(made, options.size) if options.size else made] * len(seeds), {"evaluations": 1})

    @torch.no_grad()
    def _coloured(self, lines_NHW1: np.ndarray, tell: Callable[[Event], None] | None = None) -> np.ndarray:
        """uint8 `[N, H, W, 3]`. One by one: a product of matrices may round otherwise in a batch of another size."""
        made = []
        for lines_HW1 in lines_NHW1:
            x_1CHW = from_pixels(torch.from_numpy(np.ascontiguousarray(lines_HW1[None])))
            made.append(to_pixels(self.network.generator(x_1CHW))[0].contiguous().numpy())
            if tell and len(made) % PART == 0:
                tell(Progress(len(made), len(lines_NHW1), "picture"))
        return np.stack(made)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Distance and PSNR to held-out pictures, of the model and of two that have learnt nothing."""
        lines, pictures = self.source.held_out()
        ways = {
            "": ("the model", self._coloured(lines, on_progress)),
            "plain_": ("the mean colour of the training pictures within the lines, white around",
                       plainly(lines, self.source.ink)),
            "identity_": ("the outline itself", lines.repeat(3, axis=3)),
        }  # fmt: skip
        said = f"held-out pictograms from their outlines, {self.data.size}x{self.data.size}, 95 % bootstrap interval"
        found = {}
        for name, (what, made) in ways.items():
            for figure, values_N, unit in (
                ("l1", apart(made, pictures), "mean distance of values, of 1"),
                ("psnr_db", psnrs(made, pictures), "mean of each picture's PSNR"),
            ):
                value, low, high = bootstrap_mean(values_N, seed=0)
                found[name + figure] = {"value": value, "low": low, "high": high, "n": len(values_N),
                                        "protocol": f"{unit}: {what}; {said}"}  # fmt: skip
        return found

    def memorisation_sets(self, tell: Callable[[Event], None] | None = None) -> Sets:
        """What is made of held-out outlines, against all training pictures and the held-out outlines' true ones."""
        lines, pictures = self.source.held_out()
        train = self.source.pictures_NHW3[self.source.train]
        return Sets(made_NHWC=self._coloured(lines, tell), train_MHWC=train, held_out_HHWC=pictures)
