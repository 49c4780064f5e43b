"""Pictures as sequences of patches, and the fixed places of those patches.

Legend: B batch, C channels, H and W sides in pixels (or latents), p side of a patch, h = H / p, w = W / p, N = h w
tokens, P = C p p values of a patch (channel first, then row, then column), D model width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from conjure.core.errors import ConjureError


def grid(x_BCHW: Tensor, patch: int) -> tuple[int, int]:
    """(h, w) of a picture in patches; sides that the patch does not divide are a `ConjureError`."""
    height, width = x_BCHW.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise ConjureError(f"expected height and width above 0 and divisible by {patch}, got {height} x {width}",
                           hint="these are sides of the latents: the picture is larger by the autoencoder's factor")
    return height // patch, width // patch


def to_patches(x_BCHW: Tensor, patch: int) -> Tensor:
    """`[B, C, H, W] -> [B, N, P]`, row after row."""
    return rearrange(x_BCHW, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def from_patches(x_BNP: Tensor, height: int, width: int, patch: int) -> Tensor:
    """`[B, h w, P] -> [B, C, H, W]`; `height` and `width` are h and w."""
    return rearrange(x_BNP, "b (h w) (c p q) -> b c (h p) (w q)", h=height, w=width, p=patch, q=patch)


def places(height: int, width: int, dim: int, base: int, scale: float = 1.0) -> Tensor:
    """Fixed table float32 `[h w, dim]` as `nn.position.sincos_2d`, stretched so that a grid of any size covers the
    places 0 to base / scale of the square grid, of side `base`, that a network was trained on."""
    assert dim % 4 == 0, f"a multiple of 4, not {dim}"
    frequency = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def table(n: int) -> Tensor:
        at_n = torch.arange(n, dtype=torch.float64) * base / n / scale
        angles = at_n[:, None] * frequency
        return torch.cat([angles.sin(), angles.cos()], dim=-1).float()

    rows = table(height)[:, None].expand(height, width, dim // 2)
    columns = table(width)[None].expand(height, width, dim // 2)
    return torch.cat([columns, rows], dim=-1).reshape(height * width, dim)
