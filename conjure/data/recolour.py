"""Change the colour of a pictogram that has one main colour.

The main hue is turned to the wanted one; greys, and hues far from the main one, stay as they are, so that a leaf on an
apple remains a leaf.
"""

from __future__ import annotations

import numpy as np

# name -> (hue in turns, saturation factor, value factor)
COLOURS = {
    "red": (0.995, 1.1, 0.95), "orange": (0.075, 1.1, 1.0), "yellow": (0.14, 1.0, 1.1), "green": (0.34, 0.95, 0.85),
    "blue": (0.59, 1.05, 0.95), "purple": (0.77, 0.9, 0.85), "pink": (0.92, 0.55, 1.15), "brown": (0.06, 0.85, 0.6),
}
_NEAR = 0.09  # turns: hues this near to the main one belong to it


def hsv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in turns, saturation and value in [0, 1], of float RGB [..., 3] in [0, 1]."""
    top, low = rgb.max(-1), rgb.min(-1)
    span = top - low
    safe = np.where(span > 0, span, 1)
    r, g, b = np.moveaxis(rgb, -1, 0)
    hue = np.where(top == r, ((g - b) / safe) % 6, np.where(top == g, (b - r) / safe + 2, (r - g) / safe + 4)) / 6
    return np.where(span > 0, hue, 0), np.where(top > 0, span / np.where(top > 0, top, 1), 0), top


def rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The inverse of `hsv` (Smith 1978), float [..., 3]."""
    k = (np.stack([np.full_like(hue, 5), np.full_like(hue, 3), np.full_like(hue, 1)], -1) + hue[..., None] * 6) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)


def _distance(a: np.ndarray, b: float) -> np.ndarray:
    return np.abs((a - b + 0.5) % 1 - 0.5)


def dominant_hue(picture: np.ndarray) -> float | None:
    """The main hue in turns, or None if under three quarters of the coloured part, or under half of the whole, has it.

    picture: uint8 [S, S, 4], straight alpha.
    """
    hue, saturation, value = hsv(picture[..., :3].astype(np.float32) / 255)
    opaque = picture[..., 3] > 127
    coloured = opaque & (saturation > 0.3) & (value > 0.25)
    if not opaque.any() or coloured.sum() < 0.5 * opaque.sum():
        return None
    angles = hue[coloured] * 2 * np.pi
    main = float(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean()) / (2 * np.pi) % 1)
    return main if (_distance(hue[coloured], main) < _NEAR).mean() >= 0.75 else None


def recolour(picture: np.ndarray, main: float | None, colour: str) -> np.ndarray:
    """The picture with its main hue turned to `colour`: uint8 [S, S, 4]."""
    if main is None:
        raise ValueError("this picture has no main hue to change")
    hue, saturation, value = hsv(picture[..., :3].astype(np.float32) / 255)
    target, more_colour, lighter = COLOURS[colour]
    belongs = (_distance(hue, main) < _NEAR) & (saturation > 0.15)
    new_hue = np.where(belongs, (hue - main + target) % 1, hue)
    new_saturation = np.where(belongs, np.clip(saturation * more_colour, 0, 1), saturation)
    new_value = np.where(belongs, np.clip(value * lighter, 0, 1), value)
    changed = np.rint(rgb(new_hue, new_saturation, new_value) * 255).astype(np.uint8)
    return np.concatenate([changed, picture[..., 3:]], -1)
