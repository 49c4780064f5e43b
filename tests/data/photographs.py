"""A stand-in for CIFAR-10, in the format of its binary version and as JPEG."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from conjure.core.seeds import rng
from conjure.data.pictures_small import CIFAR_NAMES


def photograph(label: int, number: int) -> np.ndarray:
    """uint8 [32, 32, 3]: a colour of the class, brighter from left to right, with a square at a place of its own."""
    colour_3 = rng(label).integers(40, 160, 3)
    pixels = colour_3 + np.linspace(0, 80, 32)[None, :, None] + np.zeros((32, 1, 1))
    y, x = rng(1000 + number).integers(0, 24, 2)
    pixels[y : y + 8, x : x + 8] = 255 - colour_3
    return pixels.astype(np.uint8)


def write_binary(folder: Path, count: int) -> None:
    """`count` pictures in each of the five training parts and in the test part; labels 0 to 9 in turn."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "cifar-10-binary.tgz", "w:gz") as packed:
        for part in [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]:
            records = [bytes([k % 10]) + photograph(k % 10, k).transpose(2, 0, 1).tobytes() for k in range(count)]
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{part}")
            entry.size = len(b"".join(records))
            packed.addfile(entry, io.BytesIO(b"".join(records)))


def write_jpeg(folder: Path, count: int) -> None:
    """`count` pictures of each class in train.zip."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "train.zip", "w") as packed:
        for label, name in enumerate(CIFAR_NAMES):
            for number in range(count):
                data = io.BytesIO()
                Pillow.fromarray(photograph(label, number)).save(data, "JPEG", quality=95)
                packed.writestr(f"train/{name}/{number:04}.jpg", data.getvalue())
