"""Flux: joint blocks as in `mmdit.py`, then blocks in which picture and text are one sequence and attention and
feed-forward run side by side; places are rotations over the rows and columns of the picture.

Black Forest Labs 2024, no paper; the parallel block is that of ViT-22B (Dehghani et al. 2023, arXiv 2302.05442).

Legend: B batch, C channels, H and W sides of the latent, N patches, S context tokens, T = S + N, K width of the
context, P width of the pooled text, D model width, F feed-forward width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.joint import EPS, JointBlock, Turns, finite, together
from conjure.nn.linear import Linear
from conjure.nn.modulation import Embedder, Ending, Modulation, leave_to_adam, modulated
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.pages import steady
from conjure.nn.patches import from_patches, grid, to_patches
from conjure.nn.position import timestep_embedding

FEATURES = 256
THETA = 10_000.0


@dataclass(frozen=True, kw_only=True)
class FluxConfig:
    """FLUX.1 schnell unless told otherwise."""

    channels: int = 16
    """Of the latents; more where the network also sees a picture to edit, and a mask."""
    out_channels: int = 16
    patch: int = 2
    dim: int = 3072
    layers: int = 19
    """Joint blocks."""
    single_layers: int = 38
    heads: int = 24
    hidden: int | None = None
    """Width of the feed-forward layers; null is 4 dim."""
    context: int = 4096
    pooled: int = 768
    guidance: bool = False
    """It is told the strength of guidance that its output should have had (FLUX.1 dev)."""
    axes: tuple[int, ...] = (16, 56, 56)
    """Values of a head that turn with the number of the picture (always 0), the row and the column."""

    def __post_init__(self) -> None:
        if self.dim % self.heads or sum(self.axes) != self.dim // self.heads or any(n % 2 for n in self.axes):
            raise ConjureError(f"model.axes: expected even numbers whose sum is dim / heads, got {self}")
        if len(self.axes) != 3:
            raise ConjureError(f"model.axes: expected 3 numbers, got {self.axes}")

    @property
    def feedforward(self) -> int:
        return 4 * self.dim if self.hidden is None else self.hidden


class SingleBlock(nn.Module):
    """x + gate out([attention, gelu(up)]), both of the same modulated x; `into` is query, key, value and up."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.sizes = heads, [dim, dim, dim, hidden]
        self.norm = LayerNorm(dim, EPS, affine=False)
        self.modulation = Modulation(dim, 3, gates=(2,))
        self.into = Linear(dim, 3 * dim + hidden)
        self.norm_q, self.norm_k = RMSNorm(dim // heads, EPS), RMSNorm(dim // heads, EPS)
        self.out = Linear(dim + hidden, dim)

    def forward(self, x_BTD: Tensor, condition_BD: Tensor, turns: Turns) -> Tensor:
        shift, scale, gate = self.modulation(condition_BD)
        *qkv, up_BTF = self.into(modulated(self.norm(x_BTD), shift, scale)).split(self.sizes, dim=-1)
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in qkv)
        (mixed_BTD,) = together([(self.norm_q(q), self.norm_k(k), v)], turns=turns)
        both = torch.cat([mixed_BTD, F.gelu(up_BTF, approximate="tanh")], dim=-1)
        return finite(torch.addcmul(x_BTD, gate, self.out(both)))


class Flux(nn.Module):
    """forward(x_BCHW, t_B, context_BSK, pooled_BP, guidance_B) -> `[B, out_channels, H, W]`"""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patches = Linear(c.channels * c.patch**2, c.dim)
        leave_to_adam(self.patches.weight)
        self.time, self.pooled = Embedder(FEATURES, c.dim), Embedder(c.pooled, c.dim)
        self.guidance = Embedder(FEATURES, c.dim) if c.guidance else None
        self.context = Linear(c.context, c.dim)
        self.blocks = nn.ModuleList(JointBlock(c.dim, c.heads, c.feedforward, qk_norm=True) for _ in range(c.layers))
        self.singles = nn.ModuleList(SingleBlock(c.dim, c.heads, c.feedforward) for _ in range(c.single_layers))
        self.ending = Ending(c.dim, c.out_channels * c.patch**2)

    @steady
    def forward(
        self, x_BCHW: Tensor, t_B: Tensor, context_BSK: Tensor, pooled_BP: Tensor, guidance_B: Tensor | None = None
    ) -> Tensor:
        """`t` is 0 to 1000, a thousand times the noise's share; guidance is a scale as people write it (3.5)."""
        c = self.config
        height, width = grid(x_BCHW, c.patch)
        x_BND = self.patches(to_patches(x_BCHW, c.patch))
        condition_BD = self.time(timestep_embedding(t_B, FEATURES).to(x_BND.dtype)) + self.pooled(pooled_BP)
        if self.guidance is not None:
            assert guidance_B is not None, "this network was trained with guidance as an input"
            told_BF = timestep_embedding(guidance_B * 1000, FEATURES)
            condition_BD = condition_BD + self.guidance(told_BF.to(x_BND.dtype))
        context_BSD = self.context(context_BSK)
        tokens = context_BSD.shape[1]
        turns = turns_of(tokens, height, width, c.axes, x_BND.device)
        for block in self.blocks:
            context_BSD, x_BND = block(context_BSD, x_BND, condition_BD, None, turns)
        x_BTD = torch.cat([context_BSD, x_BND], dim=1)
        for block in self.singles:
            x_BTD = block(x_BTD, condition_BD, turns)
        return from_patches(self.ending(x_BTD[:, tokens:], condition_BD), height, width, c.patch)

    def flops(self, batch: int, height: int, width: int, context: int) -> float:
        """Multiply-adds times two of one forward pass over latents of H x W with `context` tokens."""
        c, d, n = self.config, self.config.dim, height * width // self.config.patch**2
        t = n + context
        each = t * (4 * d**2 + 2 * d * c.feedforward) + 2 * t**2 * d
        blocks = (c.layers + c.single_layers) * each + (12 * c.layers + 3 * c.single_layers) * d**2
        ends = n * d * (c.channels + c.out_channels) * c.patch**2 + context * c.context * d
        told = (2 if c.guidance else 1) * (FEATURES * d + d**2) + c.pooled * d + 3 * d**2
        return 2.0 * batch * (blocks + ends + told)


def turns_of(
    tokens: int, height: int, width: int, axes: tuple[int, ...], device: torch.device | None = None
) -> Turns:
    """cos and sin float32 `[T, sum(axes) / 2]`: the context stands at 0, a patch at (0, row, column)."""

    def angles(places: Tensor, dim: int) -> Tensor:
        i = torch.arange(0, dim, 2, dtype=torch.float64)
        return places[:, None] * THETA ** (-i / dim)

    still, row, column = axes
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    unturned_NC = torch.zeros(height * width, still // 2, dtype=torch.float64)
    patches_NC = torch.cat([unturned_NC, angles(rows, row), angles(columns, column)], dim=-1)
    all_TC = torch.cat([patches_NC.new_zeros(tokens, patches_NC.shape[1]), patches_NC])
    return all_TC.cos().float().to(device), all_TC.sin().float().to(device)
