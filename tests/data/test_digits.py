from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.data.digits import NAMES, DigitSource, parse_idx


def idx(values: np.ndarray, code: int = 0x08) -> bytes:
    return (
        bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    )


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven training digits and three test digits; picture k is filled with 10 k, its label is k."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for prefix, count in (("train", 7), ("t10k", 3)):
        labels_N = np.arange(count, dtype=np.uint8)
        pictures_NHW = np.broadcast_to(10 * labels_N[:, None, None], (count, 28, 28))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures_NHW)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels_N))
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    return folder


def test_an_epoch_visits_every_digit_once_in_its_own_order(mnist: Path) -> None:
    source = DigitSource("train", seed=3)
    assert len(source) == 7 and len(DigitSource("test")) == 3
    epochs = [[source.example(7 * epoch + i)[1] for i in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [source.example(i)[1] for i in range(7)] == epochs[0]  # again, after later epochs
    assert [DigitSource("train", seed=4).example(i)[1] for i in range(28)] != [
        label for epoch in epochs for label in epoch
    ]


def test_picture_and_label_belong_together(mnist: Path) -> None:
    source = DigitSource("train", seed=1)
    pictures_BHW, digits_B = source.batch([5, 6, 7, 8, 1_000_000])
    assert pictures_BHW.shape == (5, 28, 28) and pictures_BHW.dtype == np.uint8 and digits_B.dtype == np.int64
    assert (pictures_BHW == 10 * digits_B[:, None, None]).all()
    assert digits_B[3] == source.example(8)[1] and NAMES[3] == "three"


@pytest.mark.parametrize(
    "dtype, code", [(">u1", 8), (">i1", 9), (">i2", 11), (">i4", 12), (">f4", 13), (">f8", 14)]
)
def test_idx_of_every_type(dtype: str, code: int) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    read = parse_idx(idx(values, code))
    assert read.dtype == np.dtype(dtype).newbyteorder("=") and (read == values).all()


def test_broken_idx_files(mnist: Path) -> None:
    whole = idx(np.zeros((2, 3), np.uint8))
    for data in (b"", b"\x89PNG....", whole[:3], b"\0\0\x07\1" + whole[4:]):
        with pytest.raises(ConjureError, match="this is something else"):
            parse_idx(data)
    with pytest.raises(ConjureError, match="the file ends after 9"):
        parse_idx(whole[:9])
    for data in (whole[:-1], whole + b"\0"):
        with pytest.raises(ConjureError, match="expected an idx file of 18 bytes"):
            parse_idx(data)
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(6, np.uint8)))
    with pytest.raises(ConjureError, match="as many labels as pictures"):
        DigitSource("train")
