"""image -> image: through the autoencoder and back. Trains the codec that the picture models work in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.codecs.image_autoencoder import (
    DOWNSCALE,
    ImageAutoencoder,
    ImageAutoencoderConfig,
    channels_last,
    from_pixels,
    reconstruction_loss,
    to_pixels,
)
from conjure.core import seeds
from conjure.core.config import to_dict
from conjure.core.events import Event, Progress, Result
from conjure.data.scene_graph import Split
from conjure.data.scenes import SceneSource
from conjure.media.image import Image, grid
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.psnr import psnr, psnrs
from conjure.models.folder import save_weights, write_config
from conjure.models.image_codec import load_codec

MEASURED = 256  # scenes from which principal components, latents' spread and figures are taken


@plain_dataclass(frozen=True, kw_only=True)
class CodecData:
    """Composed scenes of `size` pixels a side."""

    size: int = 128


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """None: the codec has nothing to choose."""


class Reconstruct:
    """Trains the autoencoder on composed scenes, and sends any picture through it."""

    Options = ReconstructOptions
    ModelConfig = ImageAutoencoderConfig
    DataConfig = CodecData
    sets = ("noto_emoji",)
    causal = False

    def __init__(self, network: ImageAutoencoder, source: SceneSource | None = None, seed: int = 0) -> None:
        self.network, self.source, self.seed = network, source, seed

    @classmethod
    def create(cls, model: ImageAutoencoderConfig, data: CodecData, seed: int = 0) -> Reconstruct:
        with seeds.drawing_weights(seed):
            network = channels_last(ImageAutoencoder(model))
        task = cls(network, SceneSource.load(size=data.size), seed)
        network.start_from(from_pixels(task._scenes(range(MEASURED), "train")))
        return task

    @classmethod
    def load(cls, folder: Path) -> Reconstruct:
        """A codec's own folder, or the folder of a picture model that carries one."""
        return cls(load_codec(folder))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        own = torch.tensor([seeds.derive(self.seed, "noise", i) for i in indices])
        return {"pixels": self._scenes(indices, "train"), "seeds": own}

    def loss(self, batch: dict[str, Tensor], network: torch.nn.Module | None = None) -> tuple[Tensor, Tensor]:
        x_BCHW = from_pixels(batch["pixels"])
        c, side = self.network.config, x_BCHW.shape[-1] // DOWNSCALE
        noise = seeds.normal(batch["seeds"].tolist(), (c.latent_channels, side, side))
        loss_B = reconstruction_loss((self.network if network is None else network)(x_BCHW, noise), x_BCHW)
        return loss_B.sum(), torch.tensor(len(loss_B))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        b, h, w, _ = batch["pixels"].shape
        return b * h * w // DOWNSCALE**2

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(self.tokens(batch))

    def describe(self, batch: dict[str, Tensor]) -> str:
        b, h, w, _ = batch["pixels"].shape
        return f"{b} pictures of {w} x {h} pixels; every pixel carries loss"

    @torch.no_grad()
    def preview(self, seed: int) -> dict[str, Image]:
        pixels = self._scenes(range(seed % 1000, seed % 1000 + 8), "test")
        with_codec = to_pixels(self.network(from_pixels(pixels)))
        return {"reconstructions": grid([Image(p.numpy()) for p in (*pixels, *with_codec)], columns=8)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        pixels = self._scenes(range(limit or MEASURED), "test")
        x_BCHW = from_pixels(pixels)
        out_BCHW = torch.cat([self.network(part) for part in x_BCHW.split(16)])
        loss = reconstruction_loss(out_BCHW, x_BCHW).mean().item()
        return {"loss": loss, "psnr_db": float(np.mean(psnrs(to_pixels(out_BCHW).numpy(), pixels.numpy())))}

    def _scenes(self, indices: Sequence[int], split: Split) -> Tensor:
        """Painted scenes, uint8 [len(indices), H, W, 3]."""
        assert self.source is not None
        return torch.from_numpy(np.stack([self.source.paint(self.source.scene(self.seed, i, split)) for i in indices]))

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        """The latents' mean and deviation are measured with the weights that are saved."""
        if weights is not None:
            self.network.load_state_dict(weights)
        self.network.normalise(from_pixels(self._scenes(range(MEASURED), "test")))
        write_config(folder, kind="image_autoencoder", task="reconstruct", network=self.network,
                     sections={"codec": to_dict(self.network.config)})
        save_weights(folder, "codec", self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    @torch.no_grad()
    def generate(self, inputs: Sequence[Image], options: ReconstructOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Every seed gives the same picture, RGB; its sides are padded to multiples of 8 and cut again."""
        (pixels_HWC,) = (picture.rgb() for picture in inputs)
        height, width = pixels_HWC.shape[:2]
        edges = ((0, -height % DOWNSCALE), (0, -width % DOWNSCALE), (0, 0))
        padded = np.pad(pixels_HWC, edges, mode="edge")
        out = to_pixels(self.network.decode(self.network.encode(from_pixels(torch.from_numpy(padded)[None]))))
        yield Progress(1, 1, "picture")
        made = Image(out[0, :height, :width].numpy())
        yield Result([made] * len(seeds), {"psnr_db": round(psnr(made.pixels, pixels_HWC), 2)})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """PSNR over held-out composed scenes."""
        self.source = self.source or SceneSource.load()
        pixels = self._scenes(range(MEASURED), "test")
        with torch.no_grad():
            out = torch.cat([to_pixels(self.network(from_pixels(part))) for part in pixels.split(16)])
        value, low, high = bootstrap_mean(psnrs(out.numpy(), pixels.numpy()), seed=0)
        return {"psnr_db": {"value": value, "low": low, "high": high, "n": len(pixels),
                            "protocol": "mean over held-out composed scenes, 95 % bootstrap interval"}}
