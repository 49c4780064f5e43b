"""A stand-in for MNIST: ten patterns of eight by eight squares, in its files' format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from conjure.core.seeds import rng


def glyph(digit: int) -> np.ndarray:
    """uint8 [28, 28], white on black, with a margin of two pixels."""
    cells = (rng(digit).permutation(64).reshape(8, 8) < 24).astype(np.uint8) * 255
    return np.pad(cells.repeat(3, 0).repeat(3, 1), 2)


def write_mnist(folder: Path, count: int) -> None:
    """`count` training and test digits in turn, 0 to 9."""
    folder.mkdir(parents=True)
    labels_N = (np.arange(count) % 10).astype(np.uint8)
    pictures_NHW = np.stack([glyph(int(digit)) for digit in labels_N])
    for prefix in ("train", "t10k"):
        for kind, values in (("images-idx3", pictures_NHW), ("labels-idx1", labels_N)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(head + values.tobytes())
