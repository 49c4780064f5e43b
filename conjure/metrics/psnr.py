"""Likeness of two pictures, pixel by pixel (PSNR) and by local structure (SSIM).

Legend: H height, W width, C channels; `peak` is the largest value a pixel can have.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from conjure.core.errors import ConjureError


def psnr(a: np.ndarray, b: np.ndarray, *, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error); infinite for equal
    pictures."""
    _same_shape(a, b)
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return math.inf if error == 0 else float(10 * np.log10(peak**2 / error))


def psnrs(made_NHWC: np.ndarray, true_NHWC: np.ndarray) -> list[float]:
    """That of each picture with its own, uint8."""
    return [psnr(a, b) for a, b in zip(made_NHWC, true_NHWC, strict=True)]


def apart(made_NHWC: np.ndarray, true_NHWC: np.ndarray) -> np.ndarray:
    """Mean distance of uint8 values, as a share of 255, picture by picture: float64 `[N]`."""
    return np.abs(made_NHWC.astype(np.float64) - true_NHWC).mean((1, 2, 3)) / 255


def ssim(a: np.ndarray, b: np.ndarray, *, peak: float = 255.0) -> float:
    """Structural similarity of two pictures [H, W] or [H, W, C], at most 1; mean over places and channels.

    Wang et al., IEEE Trans. Image Process. 13 (2004): Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01,
    K2 = 0.03, only where the window fits. Both sides must be 11 pixels or more.
    """
    _same_shape(a, b)
    if min(a.shape[:2]) < 11:
        raise ConjureError(
            f"SSIM compares windows of 11 x 11 pixels, got pictures of {a.shape[1]} x {a.shape[0]}",
            hint="enlarge both pictures, or use psnr",
        )
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.mean(light * structure))


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian mean of each full 11 x 11 window, [H, W, ...] -> [H - 10, W - 10, ...]."""
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()
    rows = sliding_window_view(x, 11, axis=0) @ window
    return sliding_window_view(rows, 11, axis=1) @ window


def _same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ConjureError(
            f"two pictures of one shape were expected, got {list(a.shape)} and {list(b.shape)}",
            hint="resize one of them first",
        )
