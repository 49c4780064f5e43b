"""DiT: a transformer over the patches of a latent, told a time and a class (Peebles and Xie 2022, arXiv 2212.09748).

With twice as many channels out as in, the first half is the noise and the second says, between the two bounds that the
process allows, how much of it a step puts back (Nichol and Dhariwal 2021, arXiv 2102.09672, equation 15).

Legend: B batch, C channels, H and W sides of the latent, N patches, D model width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.joint import EPS, Stream
from conjure.nn.linear import Linear
from conjure.nn.modulation import Embedder, Ending, leave_to_adam
from conjure.nn.pages import steady
from conjure.nn.patches import from_patches, grid, places, to_patches

FEATURES = 256
"""Of time, before its small network."""


@dataclass(frozen=True, kw_only=True)
class ClassDiTConfig:
    """DiT-XL/2 unless told otherwise."""

    channels: int = 4
    out_channels: int = 8
    size: int = 32
    """Side of the latents it was trained on; others are seen as the same grid, finer or coarser."""
    patch: int = 2
    dim: int = 1152
    layers: int = 28
    heads: int = 16
    hidden: int = 4608
    classes: int = 1000
    """One label more, the last, means no class."""
    eps: float = EPS
    """Of the norm before the feed-forward layer."""
    spread: float = 1.0
    """Places are divided by it."""
    frequencies: int = FEATURES // 2
    """Frequency i of time is 10000^(-i / frequencies): 128 in the paper's code, 127 in diffusers."""

    def __post_init__(self) -> None:
        if self.size % self.patch or self.dim % self.heads or self.dim % 4:
            raise ConjureError(f"model: expected patch to divide size, and heads and 4 to divide dim, got {self}")

    @property
    def learned_variance(self) -> bool:
        return self.out_channels == 2 * self.channels


class ClassDiT(nn.Module):
    """forward(x_BCHW, t_B, labels_B) -> `[B, out_channels, H, W]`"""

    def __init__(self, config: ClassDiTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patches = Linear(c.channels * c.patch**2, c.dim)
        leave_to_adam(self.patches.weight)
        self.time = Embedder(FEATURES, c.dim)
        self.labels = nn.Embedding(c.classes + 1, c.dim)
        self.blocks = nn.ModuleList(Stream(c.dim, c.heads, c.hidden, eps=c.eps) for _ in range(c.layers))
        self.ending = Ending(c.dim, c.out_channels * c.patch**2)

    @steady
    def forward(self, x_BCHW: Tensor, t_B: Tensor, labels_B: Tensor) -> Tensor:
        """`t` counts steps, 0 to 999; a label is 0 to `classes`, which means none."""
        c = self.config
        height, width = grid(x_BCHW, c.patch)
        x_BND = self.patches(to_patches(x_BCHW, c.patch))
        x_BND = x_BND + places(height, width, c.dim, c.size // c.patch, c.spread).to(x_BND)
        condition_BD = self.time(time_features(t_B, c.frequencies).to(x_BND.dtype))
        condition_BD = condition_BD + self.labels(labels_B).to(x_BND.dtype)
        for block in self.blocks:
            x_BND = block(x_BND, condition_BD)
        return from_patches(self.ending(x_BND, condition_BD), height, width, c.patch)

    def flops(self, batch: int, height: int, width: int) -> float:
        """Multiply-adds times two of one forward pass over latents of H x W."""
        c, n = self.config, height * width // self.config.patch**2
        per_layer = n * (4 * c.dim**2 + 2 * c.dim * c.hidden) + 2 * n**2 * c.dim + 6 * c.dim**2
        ends = n * c.dim * (c.channels + c.out_channels) * c.patch**2 + FEATURES * c.dim + 3 * c.dim**2
        return 2.0 * batch * (c.layers * per_layer + ends)


def time_features(t_B: Tensor, frequencies: int) -> Tensor:
    """`nn.position.timestep_embedding` with other frequencies, float32 `[B, FEATURES]`. The order of operations is that
    of the files' own code: at t = 999 the last digit of a frequency is the fourth of a feature."""
    i = torch.arange(FEATURES // 2, dtype=torch.float32, device=t_B.device)
    angles = t_B.float()[:, None] * torch.exp(-math.log(10_000) * i / frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
