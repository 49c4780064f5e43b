"""image -> image: through a variational autoencoder and back. Trains the one that latent diffusion draws in.

The loss is a distance of pixels and edges, a distance of features of a fixed network, and a small weight times the
divergence of the latents from a normal distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.image_autoencoder import from_pixels, reconstruction_loss, to_pixels
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.events import Event, Progress, Result
from conjure.data.scene_graph import Split
from conjure.data.scenes import SceneSource
from conjure.media.image import Image, grid
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.psnr import psnr, psnrs
from conjure.models.features import FeatureNetwork
from conjure.models.folder import read_config, save_weights, write_config
from conjure.models.kl_codec import KLCodec, KLCodecConfig, divergence, load_kl_codec
from conjure.models.perceptual import distance, judge

MEASURED = 256  # scenes from which the spread of the latents and the figures are taken
PART = 16  # pictures at a time, in measuring
NATS = 0.6931471805599453  # of a bit


@plain_dataclass(frozen=True, kw_only=True)
class KLCodecData:
    """Composed scenes of `size` pixels a side."""

    size: int = 64


@dataclass(frozen=True, kw_only=True)
class KLReconstructOptions:
    """None: there is nothing to choose."""


class KLReconstruct:
    """Trains the autoencoder on composed scenes, and sends any picture through the means of its latents."""

    Options = KLReconstructOptions
    ModelConfig = KLCodecConfig
    DataConfig = KLCodecData
    sets = ("noto_emoji",)
    causal = False

    def __init__(
        self, network: KLCodec, data: KLCodecData, *, source: SceneSource | None = None, seed: int = 0
    ) -> None:
        self.network, self.data, self.seed = network, data, seed
        if source is not None:
            self.source = source

    @cached_property
    def source(self) -> SceneSource:
        return SceneSource.load(self.data.size)

    @cached_property
    def judge(self) -> FeatureNetwork:
        """Whose features the loss compares; it is fixed, and not saved."""
        return judge(self.network.config.features)

    @classmethod
    def create(cls, model: KLCodecConfig, data: KLCodecData, seed: int = 0) -> KLReconstruct:
        with randomness.drawing_weights(seed):
            network = KLCodec(model)
        return cls(network, data, source=SceneSource.load(data.size), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> KLReconstruct:
        """An autoencoder's own folder, or the folder of a model that draws in its latents."""
        saved = read_config(folder)
        data = saved["data"] if saved.get("kind") == "kl_autoencoder" else {}
        return cls(load_kl_codec(folder), from_dict(KLCodecData, data, where="data"))

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`pixels` uint8 `[B, H, W, 3]`, and `seeds` `[B]` of the latents' noise."""
        own = torch.tensor([randomness.derive(self.seed, "noise", i) for i in indices])
        return {"pixels": self._scenes(indices, "train"), "seeds": own}

    def _scenes(self, indices: Sequence[int], split: Split) -> Tensor:
        """Painted scenes, uint8 `[len(indices), H, W, 3]`."""
        return torch.from_numpy(np.stack([self.source.paint(self.source.scene(self.seed, i, split)) for i in indices]))

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        parts = self._parts(batch, self.network if network is None else network)
        loss_B = parts["pixels"] + parts["perceptual"] + parts["kl"]
        return loss_B.sum(), torch.tensor(len(loss_B))

    def _parts(self, batch: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """What the loss is the sum of, weighed, of each picture `[B]`; and the divergence itself in nats."""
        x_BCHW, config = from_pixels(batch["pixels"]), self.network.config
        side = x_BCHW.shape[-1] // config.shrink
        noise = randomness.normal(batch["seeds"].tolist(), (config.autoencoder.latent, side, side)).to(x_BCHW)
        out_BCHW, mean, logvar = network(x_BCHW, noise)
        nats_B = divergence(mean, logvar)
        seen_B = torch.zeros_like(nats_B)
        if config.perceptual:
            seen_B = distance(self.judge.to(x_BCHW.device), out_BCHW, x_BCHW)
        return {"pixels": reconstruction_loss(out_BCHW, x_BCHW), "perceptual": config.perceptual * seen_B,
                "kl": config.kl * nats_B / x_BCHW[0].numel(), "nats": nats_B}

    def tokens(self, batch: dict[str, Tensor]) -> int:
        b, h, w, _ = batch["pixels"].shape
        return b * h * w // self.network.config.shrink**2

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward, three times the forward pass; features are small beside it."""
        b, h, w, _ = batch["pixels"].shape
        return 3 * b * self.network.flops(h, w)

    def describe(self, batch: dict[str, Tensor]) -> str:
        b, h, w, _ = batch["pixels"].shape
        return f"{b} pictures of {w} x {h} pixels; every pixel carries loss"

    @torch.no_grad()
    def preview(self, seed: int) -> dict[str, Image]:
        """Scenes above what comes back of them."""
        pixels = self._scenes(range(seed % 1000, seed % 1000 + 8), "test")
        return {"reconstructions": grid([Image(p.numpy()) for p in (*pixels, *self._through(pixels))], columns=8)}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """The loss over held-out scenes, its perceptual share, peak signal-to-noise ratio, and bits of a picture's
        latents."""
        found = self._measured(limit or MEASURED)
        total = float(np.mean(found["pixels"] + found["perceptual"] + found["kl"]))
        return {"loss": total, "psnr_db": float(found["psnr"].mean()), "kl_bits": float(found["nats"].mean() / NATS),
                "perceptual_share": float(found["perceptual"].mean()) / total}

    @torch.no_grad()
    def _measured(self, count: int, tell: Callable[[Event], None] | None = None) -> dict[str, np.ndarray]:
        """Of each of the first held-out scenes, what `_parts` has, and `psnr` of the latents' means."""
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, count, PART):
            part = range(start, min(start + PART, count))
            pixels = self._scenes(part, "test")
            own = torch.tensor([randomness.derive(0, "validation", i) for i in part])
            parts = self._parts({"pixels": pixels, "seeds": own}, self.network)
            new = {name: each.numpy() for name, each in parts.items()}
            ratios = np.array(psnrs(self._through(pixels).numpy(), pixels.numpy()))
            for name, each in {**new, "psnr": ratios}.items():
                found.setdefault(name, []).append(each)
            if tell:
                tell(Progress(part.stop, count, "picture", "reconstruction"))
        return {name: np.concatenate(each) for name, each in found.items()}

    def _through(self, pixels_BHWC: Tensor) -> Tensor:
        return to_pixels(self.network.decode(self.network.encode(from_pixels(pixels_BHWC))))

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        """The scale of the latents is measured with the weights that are saved."""
        if weights is not None:
            self.network.load_state_dict(weights)
        self.network.normalise(from_pixels(self._scenes(range(MEASURED), "test")))
        write_config(folder, kind="kl_autoencoder", task="kl_autoencoder", network=self.network,
                     sections={"codec": to_dict(self.network.config), "data": to_dict(self.data)})
        save_weights(folder, "codec", self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    @torch.no_grad()
    def generate(
        self, inputs: Sequence[Image], options: KLReconstructOptions, seeds: Sequence[int]
    ) -> Iterator[Event]:
        """Every seed gives the same picture, RGB; its sides are padded to what cells divide and cut again."""
        (pixels_HWC,) = (picture.rgb() for picture in inputs)
        (height, width), by = pixels_HWC.shape[:2], self.network.config.shrink
        padded = np.pad(pixels_HWC, ((0, -height % by), (0, -width % by), (0, 0)), mode="edge")
        made = Image(self._through(torch.from_numpy(padded)[None])[0, :height, :width].numpy())
        yield Progress(1, 1, "picture")
        yield Result([made] * len(seeds), {"psnr_db": round(psnr(made.pixels, pixels_HWC), 2)})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Over held-out composed scenes: PSNR through the latents' means, their divergence, and what features see."""
        found, config = self._measured(MEASURED, on_progress), self.network.config
        pictures = f"mean over held-out composed scenes of {self.data.size} x {self.data.size}"
        judged = config.features or "an untrained network"
        said = {
            "psnr_db": (found["psnr"], f"through the means of the latents, {pictures}"),
            "kl_bits": (found["nats"] / NATS, f"divergence of a picture's latents from N(0, 1), {pictures}"),
        }
        if config.perceptual:
            seen = found["perceptual"] / config.perceptual
            said["perceptual"] = (seen, f"squared distance of features of {judged}, {pictures}")
        figures = {}
        for name, (values, protocol) in said.items():
            value, low, high = bootstrap_mean(values.astype(np.float64), seed=0)
            figures[name] = {"value": value, "low": low, "high": high, "n": len(values),
                             "protocol": f"{protocol}, 95 % bootstrap interval"}
        return figures
