"""MNIST: handwritten digits with their names, in an order drawn anew for every epoch.

Shapes: N digits, H and W pixels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.archives import file
from conjure.data.fetch import get

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PREFIX = {"train": "train", "test": "t10k"}


class DigitSource:
    """The digits of one split: `pictures_NHW` uint8 `[N, 28, 28]`, white on black; `labels_N` uint8 `[N]`.

    `example(i)` is a pure function of (seed, i): epoch i // N visits every digit once, in its own order.
    The set `mnist` is fetched if it is not on this machine; `ConjureError` where it cannot be, or is broken.
    """

    def __init__(self, split: Literal["train", "test"] = "train", seed: int = 0) -> None:
        folder, prefix = get("mnist"), _PREFIX[split]
        self.pictures_NHW = parse_idx(file(folder, f"{prefix}-images-idx3-ubyte"))
        self.labels_N = parse_idx(file(folder, f"{prefix}-labels-idx1-ubyte"))
        if self.pictures_NHW.ndim != 3 or self.labels_N.shape != self.pictures_NHW.shape[:1]:
            raise ConjureError(
                f"{folder}: expected as many labels as pictures, got shapes {self.labels_N.shape} and "
                f"{self.pictures_NHW.shape}"
            )
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch may straddle two epochs

    def __len__(self) -> int:
        return len(self.labels_N)

    def example(self, index: int) -> tuple[np.ndarray, int]:
        """The picture, uint8 `[28, 28]`, and the digit, 0 to 9, of example `index` >= 0."""
        epoch, step = divmod(index, len(self))
        place = self._order(epoch)[step]
        return self.pictures_NHW[place], int(self.labels_N[place])

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 `[B, 28, 28]` and digits int64 `[B]` of several examples."""
        examples = [self.example(index) for index in indices]
        digits_B = np.array([digit for _, digit in examples], np.int64)
        return np.stack([picture for picture, _ in examples]), digits_B

    def _draw_order(self, epoch: int) -> np.ndarray:
        return rng(derive(self._seed, "digits", epoch)).permutation(len(self))


def parse_idx(data: bytes) -> np.ndarray:
    """An array from LeCun's idx format: 0 0 TYPE NDIM, the big-endian uint32 sizes, the values in C order."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES:
        raise ConjureError("expected an idx file (0 0 TYPE NDIM at its start), this is something else")
    dtype, start = np.dtype(_TYPES[data[2]]), 4 + 4 * data[3]
    if len(data) < start:
        raise ConjureError(f"expected an idx header of {start} bytes, the file ends after {len(data)}")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ConjureError(f"expected an idx file of {expected:,} bytes for shape {shape}, got {len(data):,}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
