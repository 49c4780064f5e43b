"""What of a picture is background, where the background is plain: the colours of the border, as far as they reach.

The border's commonest colours are the ground. Whatever lies near one of them and is joined to the border is background;
a hole of the same colour inside a thing stays. On the seam opacity is read off the colours: a pixel that is a mixture
of ground and thing is as opaque as its share of the thing (the matting equation of Porter and Duff 1984), and gives up
its share of the ground.

Legend: H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GROUNDS = 3  # colours of the border that may be ground
COMMON = 0.08  # share of the border that a colour needs to be ground
STEP = 16  # of 255: width of the bins in which the border's colours are counted
SEAM = 2  # pixels inside the edge whose opacity is worked out


class Cutout(NamedTuple):
    """`rgba` uint8 `[H, W, 4]`, the share of the border that the ground's colours explain, and that of the picture that
    is gone."""

    rgba_HW4: np.ndarray
    explained: float
    removed: float


def cut_out(rgb_HW3: np.ndarray, tolerance: float = 24.0) -> Cutout:
    """Background made transparent; `tolerance` in levels of 255 is how far it may be from its colour, in its largest
    channel."""
    values = rgb_HW3.astype(np.float32)
    grounds_G3, explained = _grounds(values, tolerance)
    apart_HWG = np.abs(values[:, :, None] - grounds_G3).max(-1)
    background_HW = _joined_to_border(apart_HWG.min(-1) <= tolerance)
    ground_HW3 = grounds_G3[apart_HWG.argmin(-1)]
    opacity_HW = np.where(background_HW, 0.0, 1.0).astype(np.float32)
    seam_HW = _grown(background_HW, SEAM) & ~background_HW
    colour_HW3 = values.copy()
    if seam_HW.any() and (sure_HW := ~background_HW & ~seam_HW).any():
        thing_HW3 = _spread(values, sure_HW, 2 * SEAM)
        # of I = a F + (1 - a) B the a that fits best, and F from it
        across, own = thing_HW3 - ground_HW3, values - ground_HW3
        share = (own * across).sum(-1) / np.maximum((across**2).sum(-1), 1.0)
        share = np.where((across**2).sum(-1) < tolerance**2, 1.0, share.clip(0, 1))  # a thing in the ground's colour
        opacity_HW = np.where(seam_HW, share, opacity_HW)
        undone = ground_HW3 + own / np.maximum(share, 1 / 255)[..., None]
        colour_HW3 = np.where((seam_HW & (share < 1))[..., None], undone.clip(0, 255), colour_HW3)
    alpha = np.rint(opacity_HW * 255).astype(np.uint8)
    colour = np.where(alpha[..., None] > 0, np.rint(colour_HW3), 0).astype(np.uint8)
    return Cutout(np.concatenate([colour, alpha[..., None]], -1), explained, float(background_HW.mean()))


def _grounds(values_HW3: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """The commonest colours of the border, float32 `[G, 3]`, and which share of it lies near one of them."""
    border_N3 = np.concatenate([values_HW3[0], values_HW3[-1], values_HW3[1:-1, 0], values_HW3[1:-1, -1]])
    left_N3, found = border_N3, []
    while len(found) < GROUNDS and len(left_N3) >= COMMON * len(border_N3):
        bins_N3 = left_N3 // STEP
        _, index_N, counts = np.unique(bins_N3, axis=0, return_inverse=True, return_counts=True)
        if counts.max() < COMMON * len(border_N3):
            break
        colour = np.median(left_N3[index_N.reshape(-1) == counts.argmax()], 0)
        found.append(colour)
        left_N3 = left_N3[np.abs(left_N3 - colour).max(-1) > tolerance]
    if not found:
        found = [np.median(border_N3, 0)]
        left_N3 = border_N3[np.abs(border_N3 - found[0]).max(-1) > tolerance]
    return np.stack(found).astype(np.float32), 1 - len(left_N3) / len(border_N3)


def _joined_to_border(like_HW: np.ndarray) -> np.ndarray:
    """The cells of `like` that a path of such cells, by sides, joins to the border."""
    reached = np.zeros_like(like_HW)
    reached[[0, -1]], reached[:, [0, -1]] = like_HW[[0, -1]], like_HW[:, [0, -1]]
    while True:
        before = int(reached.sum())
        for flip in (np.s_[:, :], np.s_[::-1, :]):  # sweeps fill whole runs, so a few rounds are enough
            _swept(reached[flip], like_HW[flip])
            _swept(reached[flip].T, like_HW[flip].T)
            _swept(reached[:, ::-1][flip].T, like_HW[:, ::-1][flip].T)
        if int(reached.sum()) == before:
            return reached


def _swept(reached: np.ndarray, like: np.ndarray) -> None:
    """From row to row downwards, in place: what lies below something reached is reached."""
    for above, below, may in zip(reached[:-1], reached[1:], like[1:], strict=True):
        below |= above & may


def _grown(mask_HW: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        padded = np.pad(mask_HW, 1)
        mask_HW = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask_HW


def _spread(values_HW3: np.ndarray, known_HW: np.ndarray, steps: int) -> np.ndarray:
    """Known colours carried outwards, each step the mean of the known neighbours."""
    colour, weight = values_HW3 * known_HW[..., None], known_HW.astype(np.float32)
    for _ in range(steps):
        total, count = _neighbours(colour), _neighbours(weight[..., None])
        new = (weight == 0) & (count[..., 0] > 0)
        colour = np.where(new[..., None], total / np.maximum(count, 1), colour)
        weight = np.where(new, 1.0, weight).astype(np.float32)
    return np.where((weight > 0)[..., None], colour, values_HW3)


def _neighbours(values_HWC: np.ndarray) -> np.ndarray:
    """The sum over the eight neighbours and the cell itself."""
    padded = np.pad(values_HWC, ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
