"""A picture made of pieces of another one, that shows what it showed: style transfer by texture synthesis.

Elad and Milanfar (arXiv 1609.03057). From coarse to fine, and from large patches to small ones, every patch of the
picture looks for the most similar patch of the style; all that overlap are averaged, those that fit best counting most;
then the content is mixed in again, most where it has outlines. Strokes and grain are the style's own, so no network
is needed that knows them.

Legend: H and W pixels, C channels, N patches of the picture, M of the style, P values of a patch, K of it after
projection. Batches are 1; values are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core import seeds as randomness

PATCHES = (21, 13, 9)  # sides, in the order of use
ROBUST = 0.0  # the power of the error that is minimised: below 1, what fits badly hardly counts
NOISE = 0.5  # on the coarsest picture
SAMPLES = 8_192  # of the style's patches that are looked through
LEARNT = 512  # patches from which principal components are taken
KEPT = 24  # principal components that patches are compared by
CHUNK = 1_024
OUTLINE = 0.1  # of the steepest outline: below it the content counts less


def patched(
    contents: Sequence[Tensor], styles: Sequence[Tensor], strength: float, steps: int, seed: int
) -> Iterator[Tensor]:
    """After each step the picture so far, `[1, 3, H, W]`; both come from coarse to fine. The content has the style's
    colours already where it should have them."""
    rounds = [(level, min(side, *contents[level].shape[2:], *styles[level].shape[2:]))
              for level in range(len(contents)) for side in PATCHES]  # fmt: skip
    x = contents[0] + NOISE * strength * randomness.normal([seed], contents[0].shape[1:])
    for step in range(steps):  # not all rounds where there are fewer steps, some several times where there are more
        level, side = rounds[((step + 1) * len(rounds) - 1) // steps]
        content, style = contents[level], styles[level]
        x = x if x.shape == content.shape else F.interpolate(x, content.shape[2:], mode="bicubic", antialias=True)
        made = matched(x, style, side, randomness.derive(seed, "patches", step))
        held = (1 - strength) / max(strength, 1e-3) * outlines(content)
        x = recoloured((made + held * content) / (1 + held), style).clamp(-1, 1)
        yield x


def matched(x_1CHW: Tensor, style_1CHW: Tensor, side: int, seed: int) -> Tensor:
    """Each patch of a picture replaced by the most similar of the style, overlaps averaged by how well they fit."""
    stride, (H, W) = max(1, side // 3), x_1CHW.shape[2:]
    down, across = (-(size - side) % stride for size in (H, W))
    wide = F.pad(x_1CHW, (0, across, 0, down), mode="replicate")
    x_NP = F.unfold(wide, side, stride=stride)[0].T
    found_NP = nearest(x_NP, sampled(style_1CHW, side, seed))
    error_N = (x_NP - found_NP).square().mean(1).clamp_min(1e-4)
    hill = torch.hann_window(side + 2, periodic=False)[1:-1]  # so that the grid of patches does not show
    weight_NP = error_N[:, None] ** (ROBUST / 2 - 1) * (hill[:, None] * hill).flatten().repeat(x_1CHW.shape[1])
    height, width = wide.shape[2:]
    total, count = (F.fold(each.T[None], (height, width), side, stride=stride)
                    for each in (found_NP * weight_NP, weight_NP))  # fmt: skip
    return (total / count)[:, :, :H, :W]


def sampled(style_1CHW: Tensor, side: int, seed: int) -> Tensor:
    """Patches of the style, and of its mirror image: `[M, P]`, at most `SAMPLES`, at random places."""
    both = torch.cat([style_1CHW, style_1CHW.flip(3)])
    patches_MP = both.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)
    shape = patches_MP.shape[:3]
    places = torch.from_numpy(randomness.rng(seed).permutation(shape.numel())[:SAMPLES].copy())
    a, y, x = torch.unravel_index(places, shape)
    return patches_MP[a, y, x].flatten(1)


def nearest(x_NP: Tensor, style_MP: Tensor) -> Tensor:
    """For each patch the most similar one of the style, by its first principal components: `[N, P]`."""
    mean_P = style_MP.mean(0)
    some = style_MP[:LEARNT] - mean_P
    values, vectors = torch.linalg.eigh(some @ some.T)
    basis_PK = some.T @ (vectors[:, -KEPT:] / values[-KEPT:].clamp_min(1e-4).sqrt())
    style_MK, x_NK = (style_MP - mean_P) @ basis_PK, (x_NP - mean_P) @ basis_PK
    half_M = 0.5 * style_MK.square().sum(1)
    best_N = torch.cat([(part @ style_MK.T - half_M).argmax(1) for part in x_NK.split(CHUNK)])
    return style_MP[best_N]


def outlines(x_1CHW: Tensor) -> Tensor:
    """Where a picture has outlines: `[1, 1, H, W]`, from `OUTLINE` to 1."""
    grey = F.pad(x_1CHW.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2], grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    steep = F.max_pool2d((across.square() + down.square()).sqrt(), 3, 1, 1)
    return (steep / steep.quantile(0.95).clamp_min(1e-3)).clamp(OUTLINE, 1)


def recoloured(x_1CHW: Tensor, style_1CHW: Tensor) -> Tensor:
    """With the mean and covariance of the style's colours, each colour moved as little as that takes (the linear
    optimal transport between two Gaussians; Pitie and Kokaram, 2007)."""
    x_CN, style_CM = x_1CHW[0].flatten(1).double(), style_1CHW[0].flatten(1).double()
    mean, wanted = x_CN.mean(1, keepdim=True), style_CM.mean(1, keepdim=True)
    eye = 1e-5 * torch.eye(len(x_CN), dtype=torch.float64)
    root = _root(torch.cov(x_CN) + eye)
    inverse = torch.linalg.inv(root)
    move = inverse @ _root(root @ (torch.cov(style_CM) + eye) @ root) @ inverse
    return (move @ (x_CN - mean) + wanted).reshape(x_1CHW.shape).to(x_1CHW)


def _root(matrix: Tensor) -> Tensor:
    """The square root of a positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
