"""The offline protocol for comparing sets of pictures: a small fixed network and what it makes of a picture.

FID, KID, precision and recall compare features, and their values mean nothing without the network that made them. This
one is small enough to come with the package, is trained by a recipe (`features-mnist`, `features-cifar`), and is named
by the digest of its weights, so that figures with the same protocol line can be compared and others cannot. It knows
its own data well and other pictures badly: MNIST's network is for digits.

Convolutions of 3x3 with group normalisation, halved by max pooling between; the features are the mean over places of a
last 1x1 layer. No statistics over the batch: a picture has the same features alone and among others.

Legend: N pictures, B batch, C channels, H and W pixels, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image as PillowImage
from torch import Tensor, nn

from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.models.folder import load_weights, read_config, weights_digest

PROTOCOL = "conjure-features-v1"
RESIZE = "bicubic with antialiasing, float, channel by channel (Pillow)"
KIND = "picture_features"
BATCH = 256  # pictures at a time, when features are taken

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """`size` is the side of the pictures it reads; `patch` pixels a side become one place before the first layer."""

    channels: int = 3
    size: int = 32
    patch: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256)
    group: int = 8
    """Channels that are normalised together."""
    features: int = 128
    classes: int = 10

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ConjureError(f"model.channels: expected 1 (grey) or 3 (colour), got {self.channels}")
        if not self.widths or any(width % self.group for width in self.widths):
            raise ConjureError(f"model.widths: expected multiples of group = {self.group}, got {list(self.widths)}")
        before = self.widths[:-1]
        if self.size % self.patch or self.size // self.patch < 2 ** len(before):
            raise ConjureError(
                f"model.size: {self.size} pixels in patches of {self.patch} cannot be halved {len(before)} times"
            )


class Stage(nn.Module):
    """Convolution, norm, SiLU."""

    def __init__(self, channels: int, width: int, group: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(width // group, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return functional.silu(self.norm(self.convolution(x_BCHW)))


class FeatureNetwork(nn.Module):
    """Pictures [B, C, H, W] in [-1, 1] -> logits [B, K]; `features` stops before the last matrix."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        before = (config.channels * config.patch**2, *config.widths[:-1])
        self.stages = nn.ModuleList(Stage(*pair, config.group) for pair in zip(before, config.widths, strict=True))
        self.last = nn.Conv2d(config.widths[-1], config.features, 1)
        self.head = nn.Linear(config.features, config.classes)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """[B, F]"""
        x = functional.pixel_unshuffle(x_BCHW, self.config.patch).contiguous(memory_format=torch.channels_last)
        for depth, stage in enumerate(self.stages):
            x = stage(functional.max_pool2d(x, 2) if depth else x)
        return functional.silu(self.last(x)).mean((2, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.features(x_BCHW))

    def flops(self, pictures: int) -> float:
        """Multiply-adds times two of one pass."""
        c, side, total = self.config, self.config.size // self.config.patch, 0
        before = c.channels * c.patch**2
        for width in c.widths:
            total += 9 * before * width * side**2
            before, side = width, side // 2
        total += before * c.features * (2 * side) ** 2 + c.features * c.classes
        return 2.0 * pictures * total


def new_network(config: FeatureConfig) -> FeatureNetwork:
    """Untrained; its kernels lie as the convolutions of a CPU like them."""
    return FeatureNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Pictures -> features, with all that has to be said beside a figure made of them."""

    features: Callable[[np.ndarray], np.ndarray]
    """uint8 [N, H, W, C] -> float32 [N, F]; any size, C 1 or 3."""
    count: int
    """F"""
    protocol: str

    def __call__(self, images_NHWC: np.ndarray) -> np.ndarray:
        return self.features(images_NHWC)


def load_extractor(folder: str | Path) -> Extractor:
    """The network in a folder that a `features-...` recipe made. `ConjureError` where it holds another model."""
    folder = Path(folder)
    network = load_network(folder)
    c = network.config
    pixels = f"{c.size}x{c.size} {'grey' if c.channels == 1 else 'colour'}"
    digest = weights_digest(folder).removeprefix("sha256:")[:12]
    said = f"{PROTOCOL} {folder.name} ({digest}), {c.features} features of {pixels} pixels, resized {RESIZE}"
    return Extractor(features=lambda images: in_batches(network, images), count=c.features, protocol=said)


def load_network(folder: Path) -> FeatureNetwork:
    """Ready for use: no gradients."""
    saved = read_config(folder)
    if saved.get("kind") != KIND:
        raise ConjureError(
            f"{folder}: expected a network for features, this is a model of kind '{saved.get('kind', '')}'",
            hint="conjure train features-mnist makes one",
        )
    network = new_network(from_dict(FeatureConfig, saved["model"], where="model"))
    load_weights(network, folder / "model.safetensors")
    return network.eval().requires_grad_(False)


@torch.no_grad()
def in_batches(network: FeatureNetwork, images_NHWC: np.ndarray) -> np.ndarray:
    """The features of pictures of any size, float32 [N, F]."""
    checked(images_NHWC)
    parts = [
        network.features(network_input(images_NHWC[start : start + BATCH], network.config))
        for start in range(0, len(images_NHWC), BATCH)
    ]
    return torch.cat(parts).numpy()


def network_input(images_NHWC: np.ndarray, config: FeatureConfig) -> Tensor:
    """uint8 [N, H, W, C] of any size -> float32 [N, channels, size, size] in [-1, 1]."""
    x_NHWC = in_channels(resized(images_NHWC, config.size), config.channels)
    return torch.from_numpy(x_NHWC).permute(0, 3, 1, 2) / 127.5 - 1


def resized(images_NHWC: np.ndarray, size: int) -> np.ndarray:
    """float32 [N, size, size, C] in 0..255, without rounding; pictures that have the size stay as they are.

    Bicubic with antialiasing on floating-point channels, after Parmar et al. 2022 (arXiv 2104.11222), who show that
    other resizing shifts FID by more than models differ. Oblong pictures are squeezed, as FID's protocol does.
    """
    if images_NHWC.shape[1:3] == (size, size):
        return images_NHWC.astype(np.float32)
    out = np.empty((len(images_NHWC), size, size, images_NHWC.shape[3]), np.float32)
    for n, image_HWC in enumerate(images_NHWC):
        for c in range(image_HWC.shape[2]):
            channel = PillowImage.fromarray(np.ascontiguousarray(image_HWC[..., c], np.float32))
            out[n, ..., c] = np.asarray(channel.resize((size, size), PillowImage.Resampling.BICUBIC))
    return out.clip(0, 255)


def in_channels(x_NHWC: np.ndarray, channels: int) -> np.ndarray:
    """Grey repeated for a network that reads colour, colour weighed together for one that reads grey."""
    if x_NHWC.shape[3] == channels:
        return x_NHWC
    if channels == 3:
        return np.repeat(x_NHWC, 3, axis=3)
    return (x_NHWC @ np.asarray(LUMA, np.float32))[..., None]


def checked(images_NHWC: np.ndarray) -> None:
    """`ConjureError` unless these are pictures: uint8 [N, H, W, 1 or 3]."""
    shape: Sequence[int] = images_NHWC.shape
    if images_NHWC.dtype != np.uint8 or len(shape) != 4 or 0 in shape or shape[3] not in (1, 3):
        raise ConjureError(f"expected pictures uint8 [N, H, W, 1 or 3], got {images_NHWC.dtype} {list(shape)}")
