"""Where a token or a patch stands: rotary and sinusoidal encodings, ALiBi slopes; and diffusion time likewise.

Legend: B batch, H heads, T tokens, D head width, R rotated width, N = height * width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from conjure.core.errors import ConjureError


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding of the first `dim` values of each head (Su et al. 2021, arXiv 2104.09864)."""

    dim: int
    """Rotated values per head; even, at most the head's width."""
    theta: float = 10_000.0
    """The slowest pair turns by about 1 / theta radians per token."""
    interleaved: bool = False
    """Pairs are (0, 1), (2, 3), ... as in GPT-J, not (0, dim/2), (1, dim/2 + 1), ... as in Llama."""

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2:
            raise ConjureError(f"rope.dim: expected an even number above 0, got {self.dim}")


def rope_tables(positions: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    """cos and sin float32 `[..., T, R/2]` for integer positions `[..., T]`."""
    pairs = torch.arange(0, rope.dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions[..., None].float() * (1.0 / rope.theta ** (pairs / rope.dim))
    return angles.cos(), angles.sin()


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Turn the pairs of the first R values of each head by the tables `[T, R/2]` or `[B, T, R/2]`."""
    half = cos.shape[-1]
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    cos, sin = cos.to(x_BHTD.dtype), sin.to(x_BHTD.dtype)
    turned, rest = x_BHTD[..., : 2 * half], x_BHTD[..., 2 * half :]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
    else:
        first, second = turned[..., :half], turned[..., half:]
        out = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([out, rest], dim=-1) if rest.shape[-1] else out


def timestep_embedding(t_B: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
    """[cos(t f_i), sin(t f_i)] float32 `[B, dim]` with f_i = max_period^(-i / (dim/2)), as in DDPM and DiT.

    `dim` must be even; t is in units of steps (about 0 to 1000).
    """
    assert dim % 2 == 0, f"an even width, not {dim}"
    i = torch.arange(dim // 2, dtype=torch.float32, device=t_B.device)
    angles = t_B.float()[:, None] * torch.exp(-math.log(max_period) * i / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_2d(height: int, width: int, dim: int) -> Tensor:
    """Fixed position table of a grid, float32 `[N, dim]`, row after row (MAE, arXiv 2111.06377).

    The first half of the values encodes the column, the second the row, each as [sin, cos]; 4 divides `dim`.
    """
    assert dim % 4 == 0, f"a multiple of 4, not {dim}"
    frequency = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def table(n: int) -> Tensor:
        angles = torch.arange(n, dtype=torch.float64)[:, None] * frequency
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    rows = table(height)[:, None].expand(height, width, dim // 2)
    columns = table(width)[None].expand(height, width, dim // 2)
    return torch.cat([columns, rows], dim=-1).reshape(height * width, dim).float()


def alibi_slopes(heads: int) -> Tensor:
    """Slopes float32 `[heads]` of the linear biases (Press et al. 2021, arXiv 2108.12409).

    2^(-8k/n) for k = 1..n, n the largest power of two up to `heads`; further heads take the odd k of 2n.
    """
    n = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * k / n) for k in range(1, n + 1)]
    slopes += [2.0 ** (-8 * k / (2 * n)) for k in range(1, 2 * n, 2)]
    return torch.tensor(slopes[:heads])
