"""Outlines of a picture: Canny's edges (A computational approach to edge detection, 1986).

Steps and ties are those of OpenCV's `Canny` with an aperture of 3, whose outlines public ControlNets were trained on:
Sobel's gradients without blurring before, the channel with the steepest, |x| + |y| as its size, maxima across the edge
to a sector of 45 degrees, and lines that are steep somewhere followed to where they become flat.

Legend: H height, W width.
"""

from __future__ import annotations

import math

import numpy as np

LOW, HIGH = 100.0, 200.0
"""Usual bounds on the gradient: a step from 0 to 255 has 1,020."""


def edges(pixels_HWC: np.ndarray, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """Lines of a pixel's width: bool `[H, W]` of uint8 pixels.

    What is steeper than `low` belongs to a line if it is the steepest across it, and if the line (over 8 neighbours) is
    steeper than `high` somewhere.
    """
    x_HW, y_HW = gradient(pixels_HWC)
    steep_HW = np.abs(x_HW) + np.abs(y_HW)
    thin_HW = thinned(x_HW, y_HW, steep_HW) & (steep_HW > low)
    return followed(thin_HW & (steep_HW > high), thin_HW)


def gradient(pixels_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel's differences to the right and down, int32 `[H, W]` each, of the channel where they are largest; the border
    is carried on."""
    p = np.pad(pixels_HWC.astype(np.int32), ((1, 1), (1, 1), (0, 0)), mode="edge")
    across, down = p[:, 2:] - p[:, :-2], p[2:] - p[:-2]
    x_HWC = across[:-2] + 2 * across[1:-1] + across[2:]
    y_HWC = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    best_HW1 = (np.abs(x_HWC) + np.abs(y_HWC)).argmax(2)[..., None]
    return np.take_along_axis(x_HWC, best_HW1, 2)[..., 0], np.take_along_axis(y_HWC, best_HW1, 2)[..., 0]


def thinned(x_HW: np.ndarray, y_HW: np.ndarray, steep_HW: np.ndarray) -> np.ndarray:
    """Where the gradient is larger than at the two neighbours in its direction; of two that are alike, the first along
    a row or a column counts."""
    m = np.pad(steep_HW, 1)

    def beside(down: int, right: int) -> np.ndarray:
        H, W = steep_HW.shape
        return m[1 + down : 1 + down + H, 1 + right : 1 + right + W]

    flat = np.abs(y_HW) < np.abs(x_HW) * math.tan(math.pi / 8)
    upright = np.abs(y_HW) > np.abs(x_HW) * math.tan(3 * math.pi / 8)
    falling = (x_HW < 0) == (y_HW < 0)
    found = np.where(
        falling,
        (steep_HW > beside(-1, -1)) & (steep_HW > beside(1, 1)),
        (steep_HW > beside(-1, 1)) & (steep_HW > beside(1, -1)),
    )
    found = np.where(upright, (steep_HW > beside(-1, 0)) & (steep_HW >= beside(1, 0)), found)
    return np.where(flat, (steep_HW > beside(0, -1)) & (steep_HW >= beside(0, 1)), found)


def followed(seeds_HW: np.ndarray, allowed_HW: np.ndarray) -> np.ndarray:
    """Everything allowed that hangs together with a seed over 8 neighbours."""
    H, W = allowed_HW.shape
    left = np.pad(allowed_HW, 1).ravel()
    found = np.zeros_like(left)
    offsets = np.array([down * (W + 2) + right for down in (-1, 0, 1) for right in (-1, 0, 1)])
    front = np.flatnonzero(np.pad(seeds_HW & allowed_HW, 1))
    while len(front):
        found[front], left[front] = True, False
        near = (front[:, None] + offsets).ravel()
        front = np.unique(near[left[near]])
    return found.reshape(H + 2, W + 2)[1:-1, 1:-1]
