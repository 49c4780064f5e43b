"""Round to nearest: float matrices as small integers with a scale for each group of inputs, and back.

A value is `integer * scale`. int8 integers lie in -127 .. 127, int4 in -8 .. 7; int4 is stored two to a byte as
`integer + 8`, the even element in the low half. Scales have eight significant bits, so that float16 and bfloat16 both
hold them exactly, whatever kernel reads them; the integers are chosen for the scale as it is stored.

Legend: O outputs, I inputs, G groups of inputs, g inputs of a group, B rows, K key-value heads, T tokens, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from conjure.core.errors import ConjureError

Weights = Literal["int8", "int4"]

GROUP = 32
"""Inputs that share a scale, as in GGUF's Q8_0 and Q4_0."""
CLIPS = (8 / 7, 1.05, 1.0, 0.95, 0.9, 0.85, 0.8)
"""int4 scales that are tried, in parts of that which maps the largest value of a group to -8."""
LIMITS = {"int8": (-127, 127), "int4": (-8, 7)}
_PART = 1 << 19
"""Elements that are rounded at a time, so that what lies between stays in the processor's cache."""


def rounded(weight_OI: Tensor, weights: Weights, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """(q, scale): int8 `[O, I]` or uint8 `[O, I/2]`, and float16 `[O, I/group]`; `group` 0 is a scale for a row.

    No int8 value moves by more than half its scale; int4 gives up large values where that makes the squared error of
    the group smaller. `ConjureError` where groups do not divide the inputs, or a value is no finite number.
    """
    group = checked_group(weight_OI.shape[1], weights, group)
    parts = []
    for part_OI in weight_OI.detach().split(max(1, _PART // weight_OI.shape[1])):
        part_OGg = part_OI.float().unflatten(1, (-1, group))
        scale_OG = best_scale(part_OGg, weights)
        integers_OI = nearest(part_OGg, scale_OG[..., None], weights).flatten(1)
        parts.append((stored(integers_OI, weights), scale_OG.half()))
    return torch.cat([q for q, _ in parts]), torch.cat([scale for _, scale in parts])


def checked_group(inputs: int, weights: str, group: int) -> int:
    """The number of inputs that share a scale."""
    if weights not in LIMITS:
        raise ConjureError(f"weights: expected int8 or int4, got '{weights}'")
    if weights == "int4" and group == 0:
        raise ConjureError("int4: expected groups of inputs, got one scale for a row", hint=f"group={GROUP}")
    if group < 0 or (group and inputs % group) or (weights == "int4" and group % 2):
        raise ConjureError(f"{weights}: expected inputs in groups of {group}, got {inputs}")
    return group or inputs


def best_scale(part_OGg: Tensor, weights: Weights) -> Tensor:
    """The scale of each group `[O, G]`, float32: for int4 the one of `CLIPS` with the smallest squared error, its sign
    such that the largest value becomes -8, of which there is one more than there are positive integers."""
    if weights == "int8":
        return _eight_bits(part_OGg.abs().amax(-1) / 127)
    at_OG1 = part_OGg.abs().argmax(-1, keepdim=True)
    largest_OG = part_OGg.gather(-1, at_OG1)[..., 0]
    best_OG, least_OG = torch.zeros_like(largest_OG), torch.full_like(largest_OG, torch.inf)
    for clip in CLIPS:
        scale_OG = _eight_bits(largest_OG * (-clip / 8))
        restored_OGg = nearest(part_OGg, scale_OG[..., None], weights).mul_(scale_OG[..., None])
        error_OG = restored_OGg.sub_(part_OGg).square_().sum(-1)
        better_OG = error_OG < least_OG
        best_OG = torch.where(better_OG, scale_OG, best_OG)
        least_OG = torch.where(better_OG, error_OG, least_OG)
    return best_OG


def nearest(values: Tensor, scale: Tensor, weights: Weights) -> Tensor:
    """The integers, as floats, that stand for `values` at `scale` (which broadcasts); 0 where the scale is 0."""
    low, high = LIMITS[weights]
    return (values / torch.where(scale == 0, torch.inf, scale)).round_().clamp_(low, high)


def _eight_bits(scale: Tensor) -> Tensor:
    """Rounded to what float16 and bfloat16 both hold; never to 0 what is not."""
    if not bool(torch.isfinite(scale).all()):
        raise not_finite()
    least = torch.finfo(torch.float16).smallest_normal * 2.0**-10
    held = scale.bfloat16().half().float()
    held = torch.where((held == 0) & (scale != 0), torch.copysign(torch.full_like(scale, least), scale), held)
    if not bool(torch.isfinite(held).all()):
        raise too_large()
    return held


def not_finite() -> ConjureError:
    """What is said of a matrix that cannot be rounded."""
    return ConjureError("a matrix holds values that are no finite numbers", hint="are these weights trained?")


def too_large() -> ConjureError:
    """What is said of a matrix whose scales float16 does not hold."""
    return ConjureError("a matrix holds values too large for float16 scales", hint="keep it in float32: skip=")


def stored(integers_OI: Tensor, weights: Weights) -> Tensor:
    """Integers of any type as they are kept: int8 `[O, I]`, or uint8 `[O, I/2]`."""
    if weights == "int8":
        return integers_OI.to(torch.int8)
    nibbles_OI = (integers_OI + 8).to(torch.uint8)
    return nibbles_OI[:, ::2] | (nibbles_OI[:, 1::2] << 4)


def integers(q: Tensor) -> Tensor:
    """The int8 integers `[O, I]` of either form."""
    if q.dtype == torch.int8:
        return q
    return torch.stack([q & 15, q >> 4], dim=-1).flatten(-2).to(torch.int8) - 8


def restored(q: Tensor, scale_OG: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix `[O, I]` that a quantised one stands for."""
    groups = integers(q).unflatten(-1, (scale_OG.shape[-1], -1))
    return torch.mul(groups, scale_OG[..., None].to(dtype)).flatten(-2)


def parts_of(rows: int, inputs: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that together hold about `_PART` elements."""
    step = max(1, _PART // inputs)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


# ---- keys and values of a cache


def pack(k_BKTD: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 `[B, K, T, D]`, float32 scales `[B, K, T, 1]`): every token of every head has its own scale, so later ones
    never change earlier ones. What `unpack` gives back differs by at most half a scale, max|k| / 254."""
    scale_BKT1 = k_BKTD.detach().abs().amax(-1, keepdim=True).float().div_(127)
    q_BKTD = (k_BKTD / torch.where(scale_BKT1 == 0, 1, scale_BKT1)).round_().clamp_(-127, 127)
    return q_BKTD.to(torch.int8), scale_BKT1


def unpack(q_BKTD: Tensor, scale_BKT1: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """What `pack` took, in `dtype`."""
    return q_BKTD.to(dtype).mul_(scale_BKT1.to(dtype))
