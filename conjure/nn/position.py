"""Where a token or a patch stands: rotary and sinusoidal encodings, ALiBi slopes; and diffusion time likewise.

Legend: B batch, H heads, T tokens, D head width, R rotated width, N = height * width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from conjure.core.errors import ConjureError
from conjure.nn.rope_scaling import RopeScaling, frequencies

# MKL chooses its code for a function at the first call. Where two threads of PyTorch make that call together, one may
# get code of half the digits: in 5 of 100 processes the first cosine was off by 1.5e-4. One value needs one thread.
for _function in (torch.cos, torch.sin):
    _function(torch.ones(1))


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary embedding of the first `dim` values of each head (Su et al. 2021, arXiv 2104.09864)."""

    dim: int
    """Rotated values per head; even, at most the head's width."""
    theta: float = 10_000.0
    """The slowest pair turns by about 1 / theta radians per token."""
    interleaved: bool = False
    """Pairs are (0, 1), (2, 3), ... as in GPT-J, not (0, dim/2), (1, dim/2 + 1), ... as in Llama."""
    scaling: RopeScaling | None = None
    """How a network trained on short texts reads longer ones."""

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2:
            raise ConjureError(f"rope.dim: expected an even number above 0, got {self.dim}")


def rope_tables(positions: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
    """cos and sin float32 `[..., T, R/2]` for integer positions `[..., T]`."""
    found, gain = frequencies(rope.dim, rope.theta, rope.scaling, positions)
    angles = positions[..., None].float() * found
    return (angles.cos(), angles.sin()) if gain == 1 else (angles.cos() * gain, angles.sin() * gain)


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Turn the pairs of the first R values of each head by the tables `[T, R/2]` or `[B, T, R/2]`."""
    half = cos.shape[-1]
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    cos, sin = cos.to(x_BHTD.dtype), sin.to(x_BHTD.dtype)
    if x_BHTD.requires_grad and x_BHTD.is_cpu and not torch.compiler.is_compiling():
        out: Tensor = _Rotation.apply(x_BHTD, cos, sin, interleaved)
        return out
    turned, rest = x_BHTD[..., : 2 * half], x_BHTD[..., 2 * half :]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
    else:
        first, second = turned[..., :half], turned[..., half:]
        out = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([out, rest], dim=-1) if rest.shape[-1] else out


class _Rotation(torch.autograd.Function):
    """The same by hand for training on a CPU, where bytes moved are what it costs: both halves are written where they
    belong instead of being joined by a copy, and the gradient of a rotation is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x_BHTD: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved = interleaved
        return _turned(x_BHTD, cos, sin, interleaved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _turned(grads[0], cos, -sin, ctx.interleaved), None, None, None


def _turned(x_BHTD: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    R = 2 * cos.shape[-1]
    at_first, at_second = (slice(0, R, 2), slice(1, R, 2)) if interleaved else (slice(R // 2), slice(R // 2, R))
    first, second = x_BHTD[..., at_first], x_BHTD[..., at_second]
    out_BHTD = torch.empty_like(x_BHTD)
    torch.mul(first, cos, out=out_BHTD[..., at_first]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_BHTD[..., at_second]).addcmul_(first, sin)
    out_BHTD[..., R:] = x_BHTD[..., R:]
    return out_BHTD


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


def sinusoid_table(rows: int, dim: int, spacing: int = 0) -> Tensor:
    """Fixed table float32 `[rows, dim]` of [sin(p f_i), cos(p f_i)], f_i = 10000^(-i / (dim/2 - spacing)).

    `spacing` 0 is Vaswani et al. 2017 (arXiv 1706.03762) as Marian writes it, 1 that of tensor2tensor and fairseq.
    """
    assert dim % 2 == 0, f"an even width, not {dim}"
    i = torch.arange(dim // 2, dtype=torch.float64)
    angles = torch.arange(rows, dtype=torch.float64)[:, None] * 10_000.0 ** (-i / (dim // 2 - spacing))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def alibi_slopes(heads: int) -> Tensor:
    """Slopes float32 `[heads]` of the linear biases (Press et al. 2021, arXiv 2108.12409).

    2^(-8k/n) for k = 1..n, n the largest power of two up to `heads`; further heads take the odd k of 2n.
    """
    n = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * k / n) for k in range(1, n + 1)]
    slopes += [2.0 ** (-8 * k / (2 * n)) for k in range(1, 2 * n, 2)]
    return torch.tensor(slopes[:heads])
