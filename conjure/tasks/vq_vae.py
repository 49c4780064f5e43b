"""image -> image: small pictures through a book of codes and back. Trains the codes that `vq_prior` draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.data.pictures_small import SHAPES, SmallPictures
from conjure.media.image import Image, grid
from conjure.metrics.bits import bits_per_dimension, code_usage
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.psnr import psnr, psnrs
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.vq_vae import DOWNSCALE, VQVAE, VQVAEConfig, load_vq_vae

FIRST = 256  # pictures from which the first codes come
PART = 100  # pictures at a time, in measuring


@plain_dataclass(frozen=True, kw_only=True)
class VQVAEData:
    """`cifar10_jpeg` is a lossy copy of CIFAR-10's training part, with a test split of its own."""

    set: Literal["mnist", "cifar10", "cifar10_jpeg"] = "cifar10"


@dataclass(frozen=True, kw_only=True)
class QuantiseOptions:
    """None: the codes have nothing to choose."""


class Quantise:
    """Trains encoder, codes and decoder together, and sends any picture through them."""

    Options = QuantiseOptions
    ModelConfig = VQVAEConfig
    DataConfig = VQVAEData
    causal = False

    def __init__(
        self, network: VQVAE, data: VQVAEData, *, source: SmallPictures | None = None, seed: int = 0
    ) -> None:
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.sets = (data.set,)

    @classmethod
    def create(cls, model: VQVAEConfig, data: VQVAEData, seed: int = 0) -> Quantise:
        """A new model, whose codes are what its encoder makes of the first pictures."""
        if SHAPES[data.set][2] != model.channels:
            raise ConjureError(f"model.channels is {model.channels}, {data.set} has {SHAPES[data.set][2]}")
        with randomness.drawing_weights(seed):
            network = VQVAE(model)
        task = cls(network, data, source=SmallPictures(data.set, seed=seed), seed=seed)
        network.start_from(from_pixels(task.batch(range(FIRST))["pixels"]))
        return task

    @classmethod
    def load(cls, folder: Path) -> Quantise:
        """The codes' own folder, or that of a model that draws them."""
        saved = read_config(folder)
        return cls(load_vq_vae(folder), VQVAEData(set=saved["data"]["set"]))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`pixels` uint8 `[B, H, W, C]`."""
        assert self.source is not None
        return {"pixels": torch.from_numpy(self.source.batch(indices)[0])}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(sum over pictures of nats a value and the weighed commitment, number of pictures)."""
        run = self.network if network is None else network
        nats_BCHW, commitment_B, _ = run(from_pixels(batch["pixels"]))
        loss_B = nats_BCHW.flatten(1).mean(1) + self.network.config.commitment * commitment_B
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Codes."""
        return batch["pixels"][..., 0].numel() // DOWNSCALE**2

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(self.tokens(batch))

    def describe(self, batch: dict[str, Tensor]) -> str:
        b, h, w, _ = batch["pixels"].shape
        return f"{b} pictures of {w} x {h} pixels, {self.tokens(batch) // b} codes each; every value carries loss"

    @torch.no_grad()
    def preview(self, seed: int) -> dict[str, Image]:
        """Test pictures above what their codes make of them."""
        pixels = torch.from_numpy(SmallPictures(self.data.set, "test").pixels_NHWC[seed % 1000 :][:16])
        made = to_pixels(self.network.decode(self.network.encode(from_pixels(pixels))))
        both = (*pixels[:8], *made[:8], *pixels[8:], *made[8:])
        return {"reconstructions": grid([Image(each.numpy()) for each in both], columns=8)}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Bits a value of test pictures, with every code as likely as any other, and how the codes are used."""
        nats_N, ids, _ = self._measured(limit)
        usage = code_usage(torch.bincount(ids.flatten(), minlength=self.network.config.codes))
        values = int(np.prod(SHAPES[self.data.set]))
        picture, codes = float(nats_N.mean()), ids[0].numel() * np.log(self.network.config.codes)
        return {"bits_per_dimension": bits_per_dimension(picture + codes, values),
                "reconstruction_bits": bits_per_dimension(picture, values),
                "codes_used": float(usage.used), "perplexity": usage.perplexity}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="vq_vae", task="vq_vae", network=self.network,
                     sections={"codec": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "codec", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    @torch.no_grad()
    def generate(self, inputs: Sequence[Image], options: QuantiseOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same picture; its sides are padded to multiples of 4 and cut again."""
        (picture,) = inputs
        channels = self.network.config.channels
        pixels_HWC = picture.rgb() if channels == 3 else picture.rgb().mean(2, keepdims=True).round().astype(np.uint8)
        height, width = pixels_HWC.shape[:2]
        edges = ((0, -height % DOWNSCALE), (0, -width % DOWNSCALE), (0, 0))
        padded = torch.from_numpy(np.pad(pixels_HWC, edges, mode="edge"))
        ids_1hw = self.network.encode(from_pixels(padded[None]))
        made = Image(to_pixels(self.network.decode(ids_1hw))[0, :height, :width].numpy())
        yield Progress(1, 1, "picture")
        facts = {"psnr_db": round(psnr(made.pixels, pixels_HWC), 2), "codes": ids_1hw.numel()}
        yield Result([made] * len(seeds), facts)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Bits a value, use of the codes and PSNR over the whole test split."""
        nats_N, ids, psnr_N = self._measured(None, on_progress)
        c, values, n = self.network.config, int(np.prod(SHAPES[self.data.set])), len(nats_N)
        codes = ids[0].numel() * float(np.log(c.codes))
        bits_N = [bits_per_dimension(nats + codes, values) for nats in nats_N.tolist()]
        usage = code_usage(torch.bincount(ids.flatten(), minlength=c.codes))
        split = f"the test split of {self.data.set}"
        counted = (f"-log2 of the logistic likelihood of every value given the codes, plus {ids[0].numel()} codes at "
                   f"log2({c.codes}) bits each, over {values:,} values; {split}, 95 % bootstrap interval")
        found = {}
        for name, value_N, protocol in (
            ("bits_per_dimension", bits_N, counted),
            ("psnr_db", psnr_N, f"mean of each picture's; {split}, 95 % bootstrap interval"),
        ):
            value, low, high = bootstrap_mean(value_N, seed=0)
            found[name] = {"value": value, "low": low, "high": high, "n": n, "protocol": protocol}
        for name, value in (("codes_used", usage.used), ("perplexity", usage.perplexity)):
            protocol = f"of {c.codes} codes, over {ids.numel():,} places of {split}; exact for these"
            found[name] = {"value": value, "low": value, "high": value, "n": n, "protocol": protocol}
        return found

    @torch.no_grad()
    def _measured(
        self, limit: int | None, tell: Callable[[Event], None] | None = None
    ) -> tuple[Tensor, Tensor, list[float]]:
        """Of the first test pictures: nats given the codes `[N]`, the codes `[N, h, w]`, PSNR in dB."""
        source = SmallPictures(self.data.set, "test")
        count = min(limit or len(source), len(source))
        places = np.linspace(0, len(source) - 1, count).astype(int)  # the copy's split lies in order of class
        nats, ids, ratios = [], [], []
        for start in range(0, count, PART):
            pixels = source.pixels_NHWC[places[start : start + PART]]
            x_BCHW = from_pixels(torch.from_numpy(pixels))
            ids.append(self.network.encode(x_BCHW))
            nats.append(self.network.nats(x_BCHW, ids[-1]).flatten(1).sum(1))
            made = to_pixels(self.network.decode(ids[-1])).numpy()
            ratios += psnrs(made, pixels)
            if tell:
                tell(Progress(start + len(pixels), count, "picture", "likelihood"))
        return torch.cat(nats), torch.cat(ids), ratios
