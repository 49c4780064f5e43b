"""The Inception-v3 that published FIDs are measured with, for whoever has its weights.

Szegedy et al. 2015 (arXiv 1512.00567) as Google's TensorFlow release of 2015-12-05 has it. It differs from the network
of the same name elsewhere: average pooling does not count padding, the last block pools by maximum, and it knows 1,008
classes. Names of tensors are those of the common PyTorch file, pt_inception-2015-12-05, as safetensors; the classifier
(`fc`) is not needed. Features are the 2,048 means before it.

Pictures are resized by `models/features.py:resized`, as Parmar et al. 2022 (arXiv 2104.11222) do, and scaled to
[-1, 1].

Legend: N pictures, B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.core.paths import hub_cache
from conjure.core.provenance import digest_file
from conjure.models.checkpoint import misfits, shortened
from conjure.models.features import RESIZE, Extractor, checked, in_channels, resized

SIDE = 299
FEATURES = 2048
CLASSES = 1008
"""Rows of the classifier by which this network's file is told from others with the same names."""
NAME = "pt_inception-2015-12-05*.safetensors"
BATCH = 32
UNUSED = ("fc.", "AuxLogits.")
_HINT = (
    "put pt_inception-2015-12-05 into a folder as safetensors; a .pth file is a pickle, which is never read here: "
    "open it elsewhere with torch.load(..., weights_only=True) and write it with safetensors.torch.save_file"
)

Size = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation with its stored statistics, ReLU."""

    def __init__(self, channels: int, width: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


def averaged(x: Tensor) -> Tensor:
    """3x3 mean around each place, of the places that are there: padding does not count."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def greatest(x: Tensor) -> Tensor:
    """3x3 maximum around each place."""
    return functional.max_pool2d(x, 3, stride=1, padding=1)


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, pooling; 224 channels and `pooled`."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1 = Convolution(channels, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), twice, self.branch_pool(averaged(x))], 1
        )


class BlockB(nn.Module):
    """35x35 to 17x17; adds 480 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), twice, functional.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """17x17: 7x7 in rows and columns, `width` channels inside; 768 channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(channels, 192, 1)
        self.branch7x7_1 = Convolution(channels, width, 1)
        self.branch7x7_2 = Convolution(width, width, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Convolution(width, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Convolution(channels, width, 1)
        self.branch7x7dbl_2 = Convolution(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Convolution(width, width, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Convolution(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Convolution(width, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(averaged(x))], 1)


class BlockD(nn.Module):
    """17x17 to 8x8; adds 512 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(channels, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(channels, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        large = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), large, functional.max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """8x8: branches that part once more; 2,048 channels. The last of the two pools by maximum."""

    def __init__(self, channels: int, *, last: bool) -> None:
        super().__init__()
        self.pool = greatest if last else averaged
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Convolution(channels, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once, twice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(self.pool(x))]
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """Pictures [B, 3, 299, 299] in [-1, 1] -> features [B, 2048]. 21,785,568 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, last=False), BlockE(2048, last=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x_BCHW)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def find_weights(place: str | Path | None = None) -> Path:
    """The file of the weights: itself, the only .safetensors of a folder, or by its name in the hub's cache.

    `ConjureError` where there is none, or several.
    """
    if place is None:
        found = sorted(hub_cache().glob(f"models--*/snapshots/*/{NAME}"))
        if not found:
            raise ConjureError(f"found no {NAME} in {hub_cache()}", hint=_HINT)
        return found[-1]
    path = Path(place)
    if path.is_file() and path.suffix == ".safetensors":
        return path
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if len(found) != 1:
        what = f"{len(found)} of them" if path.is_dir() else "no folder and no such file"
        raise ConjureError(f"{place}: expected Inception's weights as one .safetensors file, found {what}", hint=_HINT)
    return found[0]


def load_inception(place: str | Path | None = None) -> Extractor:
    """The extractor of published FIDs, from a file, a folder or the hub's cache (`find_weights`)."""
    path = find_weights(place)
    network, classes = load_network(path)
    digest = digest_file(path).removeprefix("sha256:")[:12]
    said = f"Inception-v3 {path.name} ({digest}), {FEATURES} features of {SIDE}x{SIDE} pixels, resized {RESIZE}"
    if classes not in (0, CLASSES):
        said += f"; a file of {classes:,} classes, not the one that published FIDs are measured with"
    return Extractor(features=lambda images: features(network, images), count=FEATURES, protocol=said)


def load_network(path: Path) -> tuple[Inception, int]:
    """(the network, ready for use, and how many classes the file's classifier knows, 0 where it has none)."""
    with torch.device("meta"):
        network = Inception()
    try:
        with safe_open(str(path), framework="pt") as stored:
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
            counted = [name for name in shapes if name.endswith("num_batches_tracked")]
            kept = {n: s for n, s in shapes.items() if not n.startswith(UNUSED) and n not in counted}
            wrong = misfits({name: tuple(tensor.shape) for name, tensor in _own(network).items()}, kept)
            if wrong:
                said = "\n  ".join(shortened(wrong))
                raise ConjureError(f"{path} is not Inception-v3:\n  {said}", hint=_HINT)
            tensors = {name: stored.get_tensor(name).float() for name in kept}
    except SafetensorError as error:
        raise ConjureError(f"{path} is not a whole safetensors file: {error}", hint="fetch it again") from None
    for name in network.state_dict():
        tensors.setdefault(name, torch.zeros((), dtype=torch.int64))  # counters, which only training reads
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False), shapes.get("fc.weight", (0,))[0]


def _own(network: Inception) -> Mapping[str, Tensor]:
    """What a file has to hold: all but the counters of batch normalisation."""
    return {n: tensor for n, tensor in network.state_dict().items() if not n.endswith("num_batches_tracked")}


@torch.no_grad()
def features(network: Inception, images_NHWC: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] of any size -> float32 [N, 2048]."""
    checked(images_NHWC)
    parts = []
    for start in range(0, len(images_NHWC), BATCH):
        pixels_BHWC = in_channels(resized(images_NHWC[start : start + BATCH], SIDE), 3)
        parts.append(network(torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2) / 127.5 - 1))
    return torch.cat(parts).numpy()
