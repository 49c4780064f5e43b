"""Finding known pictures in a picture: whether what was asked for was drawn, and where.

Two measures, both pure functions of pixels. `nearest` asks which of many known pictures one looks most like, after both
are centred. `locate` slides small templates over a canvas and says where each fits best.

Legend: N pictures, H and W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as PillowImage


def centred(pixels_HWC: np.ndarray, side: int = 32, background: Sequence[int] = (255, 255, 255)) -> np.ndarray:
    """What differs from the background, cut out as a square, centred, and shrunk to `side`: float32 [side, side, C].

    A pixel belongs to the thing where a channel is more than 24 of 255 away from the background. An empty picture stays
    empty.
    """
    away = np.abs(pixels_HWC.astype(np.int16) - np.asarray(background, np.int16)).max(-1) > 24
    rows, columns = np.flatnonzero(away.any(1)), np.flatnonzero(away.any(0))
    if len(rows) == 0:
        return np.full((side, side, pixels_HWC.shape[2]), np.asarray(background), np.float32)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    edge = max(bottom - top, right - left)
    square = np.empty((edge, edge, pixels_HWC.shape[2]), np.uint8)
    square[:] = np.asarray(background, np.uint8)
    y, x = (edge - (bottom - top)) // 2, (edge - (right - left)) // 2
    square[y:y + bottom - top, x:x + right - left] = pixels_HWC[top:bottom, left:right]
    shrunk = PillowImage.fromarray(square).resize((side, side), PillowImage.Resampling.BOX)
    return np.asarray(shrunk, np.float32)


def nearest(pictures_NHWC: np.ndarray, known_MHWC: np.ndarray) -> np.ndarray:
    """For each picture the index of the known one at the smallest L2 distance, int64 [N]; shapes must agree."""
    a = pictures_NHWC.reshape(len(pictures_NHWC), -1).astype(np.float64)
    b = known_MHWC.reshape(len(known_MHWC), -1).astype(np.float64)
    distance_NM = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return distance_NM.argmin(1)


def locate(canvas_HWC: np.ndarray, template_hwC: np.ndarray, weight_hw: np.ndarray) -> tuple[float, float, float]:
    """The best place of a template: (x and y of its centre in pixels, root mean squared error there).

    `weight` says which pixels of the template count (its opacity). All places are tried where the template lies wholly
    inside, by convolution in the frequency domain.
    """
    H, W, C = canvas_HWC.shape
    h, w = weight_hw.shape
    canvas, template = canvas_HWC.astype(np.float64), template_hwC.astype(np.float64)
    weight = weight_hw.astype(np.float64)
    shape = (H, W)
    weight_F = np.conj(np.fft.rfft2(weight, shape))
    error = np.zeros((H, W))
    for c in range(C):
        canvas_F, square_F = np.fft.rfft2(canvas[..., c]), np.fft.rfft2(canvas[..., c] ** 2)
        template_F = np.conj(np.fft.rfft2(weight * template[..., c], shape))
        error += np.fft.irfft2(square_F * weight_F - 2 * canvas_F * template_F, shape)
        error += (weight * template[..., c] ** 2).sum()
    inside = error[:H - h + 1, :W - w + 1]
    top, left = np.unravel_index(inside.argmin(), inside.shape)
    mean = max(0.0, inside[top, left]) / (C * weight.sum())
    return float(left + w / 2), float(top + h / 2), float(np.sqrt(mean))
