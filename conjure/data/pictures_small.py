"""MNIST and CIFAR-10 as uint8 pictures with labels, and draws by index: all pure functions of (seed, index).

Shapes: N pictures of a split, B pictures of a batch, H, W and C of a picture, D draws of an example.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from conjure.core import seeds as randomness
from conjure.core.errors import ConjureError, suggest
from conjure.core.seeds import derive, rng
from conjure.data import digits
from conjure.data.archives import content, files
from conjure.data.fetch import get
from conjure.media.image import decode

SmallSet = Literal["mnist", "cifar10", "cifar10_jpeg"]
Split = Literal["train", "test"]

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES: dict[str, tuple[str, ...]] = {"mnist": digits.NAMES, "cifar10": CIFAR_NAMES, "cifar10_jpeg": CIFAR_NAMES}
"""What the labels of each set are called."""
SHAPES: dict[str, tuple[int, int, int]] = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar10_jpeg": (32, 32, 3)}
"""Height, width and channels."""
ANY = ("", "any", "anything")
_HELD_OUT = 500  # of each class of the JPEG copy, which comes without a test part
_BINARY = "cifar-10-batches-bin/"
_PARTS = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
_BLOCK = 256  # examples whose draws come from one stream: a stream of its own for each would cost more than the draws


class SmallPictures:
    """One split of a set: `pixels_NHWC` uint8, `labels_N` uint8, and the labels' `names`.

    Example i of epoch i // N; every epoch visits each picture once, in an order of its own. `cifar10_jpeg` is a lossy
    copy of CIFAR-10's training part, of which the last 500 of each class are the test split here. The set is fetched if
    it is not on this machine; `ConjureError` where it cannot be, or is broken.
    """

    def __init__(self, name: SmallSet, split: Split = "train", seed: int = 0) -> None:
        self.name, self.names = name, NAMES[name]
        self.pixels_NHWC, self.labels_N = _read(name, get(name), split)
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch may straddle two epochs

    def __len__(self) -> int:
        return len(self.labels_N)

    def places(self, indices: Sequence[int]) -> np.ndarray:
        """Where in the split the examples with these indices, all >= 0, lie: int64 `[B]`."""
        return np.array([self._order(index // len(self))[index % len(self)] for index in indices])

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 `[B, H, W, C]` and labels int64 `[B]` of these examples."""
        places_B = self.places(indices)
        return self.pixels_NHWC[places_B], self.labels_N[places_B].astype(np.int64)

    def _draw_order(self, epoch: int) -> np.ndarray:
        return rng(derive(self._seed, "pictures", self.name, epoch)).permutation(len(self))


def uniform(seed: int, name: str, indices: Sequence[int], size: int) -> np.ndarray:
    """Uniform float32 in [0, 1), `[B, size]`; row by row a function of seed, name, size and index alone."""
    return np.stack([_uniform(seed, name, size, index // _BLOCK)[index % _BLOCK] for index in indices])


def normal(seed: int, name: str, indices: Sequence[int], size: int) -> np.ndarray:
    """Standard normal float32 `[B, size]`, likewise."""
    return np.stack([_normal(seed, name, size, index // _BLOCK)[index % _BLOCK] for index in indices])


def binarised(pixels_BHWC: np.ndarray, seed: int, indices: Sequence[int]) -> np.ndarray:
    """0 or 1 as float32, 1 with the probability pixel / 255, drawn for (seed, index): as example i of the next epoch
    has another index, the same picture is binarised anew (Salakhutdinov and Murray 2008; Burda et al. 2015, arXiv
    1509.00519, section 5)."""
    draws_BD = uniform(seed, "binarise", indices, int(np.prod(pixels_BHWC.shape[1:])))
    return (draws_BD.reshape(pixels_BHWC.shape) * np.float32(255) < pixels_BHWC).astype(np.float32)


def any_labels(name: str, seeds: Sequence[int]) -> list[int]:
    """A class of the set for each seed, where none is asked for."""
    draws_B = randomness.uniform([derive(seed, "class") for seed in seeds])
    return (draws_B * len(NAMES[name])).long().tolist()


def label(prompt: str, names: Sequence[str]) -> int | None:
    """The class that a prompt names: "a seven", "Seven", "7", "a picture of a frog"; None where it leaves the choice.

    Two classes, or a word that is none, raise `ConjureError` with the nearest name.
    """
    words = [word.strip(".,!?\"'").lower() for word in prompt.split()]
    words = [word for word in words if word not in ("a", "an", "the", "of", "picture", "image", "digit", "number")]
    if " ".join(words) in ANY:
        return None
    known = {name: place for place, name in enumerate(names)} | {str(k): k for k in range(len(names))}
    known |= {f"{name}s": place for place, name in enumerate(names)}
    found = {known[word] for word in words if word in known}
    strange = [word for word in words if word not in known]
    if len(found) == 1 and not strange:
        return found.pop()
    said = f"expected one of {', '.join(names)}, or \"any\", got {prompt!r}"
    raise ConjureError(said, hint=suggest((strange or words)[0], names))


@lru_cache(maxsize=8)
def _uniform(seed: int, name: str, size: int, block: int) -> np.ndarray:
    return rng(derive(seed, "uniform", name, size, block)).random((_BLOCK, size), dtype=np.float32)


@lru_cache(maxsize=8)
def _normal(seed: int, name: str, size: int, block: int) -> np.ndarray:
    return rng(derive(seed, "normal", name, size, block)).standard_normal((_BLOCK, size), dtype=np.float32)


@lru_cache(maxsize=2)  # the training part and the test part
def _read(name: SmallSet, folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    if name == "mnist":
        source = digits.DigitSource(split)
        return source.pictures_NHW[..., None], source.labels_N
    return _read_binary(folder, split) if name == "cifar10" else _read_jpeg(folder, split)


def _read_binary(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's binary version: records of a label and 3 planes of 32 x 32 values."""
    path = folder / "cifar-10-binary.tgz"
    parts = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content(path))) as packed:
            for part in _PARTS[split]:
                handle = packed.extractfile(_BINARY + part)
                parts.append(b"" if handle is None else handle.read())
    except (KeyError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ConjureError(f"{path}: could not be read: {error}", hint="remove it and fetch it again") from None
    data = b"".join(parts)
    if not data or len(data) % 3073:
        raise ConjureError(f"{path}: expected records of 3,073 bytes, got {len(data):,} bytes")
    records_ND = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    pixels_NHWC = records_ND[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels_NHWC), records_ND[:, 0].copy()


def _read_jpeg(folder: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """train/CLASS/NUMBER.jpg, in files or in a .zip."""
    pixels, labels = [], []
    for place, name in enumerate(CIFAR_NAMES):
        found = list(files(folder, f"train/{name}/*.jpg"))
        chosen = found[:-_HELD_OUT] if split == "train" else found[-_HELD_OUT:]
        pixels += [decode(data, file).pixels for file, data in chosen]
        labels += [place] * len(chosen)
    if not pixels or {each.shape for each in pixels} != {SHAPES["cifar10_jpeg"]}:
        raise ConjureError(f"{folder}: expected pictures of 32 x 32 pixels as train/CLASS/NUMBER.jpg")
    return np.stack(pixels), np.array(labels, np.uint8)
