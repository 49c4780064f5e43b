"""PSNR and SSIM against closed forms and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.metrics.psnr import psnr, ssim


def picture(seed: int, *shape: int) -> np.ndarray:
    return rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def test_psnr_of_a_constant_difference() -> None:
    a = np.full((8, 8, 3), 250, dtype=np.uint8)
    assert psnr(a, a - 5) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 0
    assert psnr(a, a) == math.inf
    assert psnr(np.zeros((2, 2)), np.full((2, 2), 0.1), peak=1.0) == pytest.approx(20)


def test_ssim_of_equal_and_of_flat_pictures() -> None:
    a = picture(0, 16, 20, 3)
    assert ssim(a, a) == pytest.approx(1)
    light = ssim(np.full((12, 12), 100.0), np.full((12, 12), 150.0))
    c1 = 2.55**2
    assert light == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_ssim_against_a_plain_loop() -> None:
    a, b = picture(1, 14, 13).astype(float), picture(2, 14, 13).astype(float)
    b = 0.5 * a + 0.5 * b
    offsets = [(i, j) for i in range(11) for j in range(11)]
    weight = {(i, j): math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for i, j in offsets}
    total = sum(weight.values())
    values = []
    for y in range(4):
        for x in range(3):
            pairs = [(weight[i, j] / total, a[y + i, x + j], b[y + i, x + j]) for i, j in offsets]
            mean_a, mean_b = sum(w * p for w, p, _ in pairs), sum(w * q for w, _, q in pairs)
            var_a = sum(w * (p - mean_a) ** 2 for w, p, _ in pairs)
            var_b = sum(w * (q - mean_b) ** 2 for w, _, q in pairs)
            both = sum(w * (p - mean_a) * (q - mean_b) for w, p, q in pairs)
            c1, c2 = 2.55**2, 7.65**2
            light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            values.append(light * (2 * both + c2) / (var_a + var_b + c2))
    assert ssim(a, b) == pytest.approx(sum(values) / len(values), rel=1e-9)


def test_pictures_that_cannot_be_compared() -> None:
    with pytest.raises(ConjureError, match="one shape"):
        psnr(picture(0, 4, 4), picture(0, 4, 5))
    with pytest.raises(ConjureError, match="11 x 11"):
        ssim(picture(0, 10, 40), picture(0, 10, 40))
