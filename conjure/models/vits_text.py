"""The part of VITS that reads: a transformer that knows how far apart two characters are, up to a few places.

Kim et al. 2021, arXiv 2106.06103, 2.1; relative positions after Shaw et al. 2018, arXiv 1803.02155.

Legend: B rows, T characters, D width, H heads, C width of a head, W = 2 window + 1 distances, L width of the latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.feedforward import ACTIVATIONS, Activation
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm


@dataclass(frozen=True, kw_only=True)
class VitsTextConfig:
    vocab: int
    dim: int = 192
    layers: int = 6
    heads: int = 2
    window: int = 4
    """How far away a character's distance is still told apart."""
    hidden: int = 768
    kernel: int = 3
    """Of the convolutions between attentions."""
    activation: Activation = "relu"
    bias: bool = True
    norm_eps: float = 1e-5
    latents: int = 192
    """Width of what is made for each character: that many means, and as many log-deviations."""

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ConjureError(f"VITS: {self.heads} heads do not divide the width {self.dim}")


class RelativeAttention(nn.Module):
    """Attention in which keys and values know their distance from the query."""

    def __init__(self, config: VitsTextConfig) -> None:
        super().__init__()
        self.heads, self.window = config.heads, config.window
        width = config.dim // config.heads
        self.qkv = Linear(config.dim, 3 * config.dim, bias=config.bias)
        self.out = Linear(config.dim, config.dim, bias=config.bias)
        self.near_k = nn.Parameter(torch.zeros(1, 2 * config.window + 1, width))
        self.near_v = nn.Parameter(torch.zeros(1, 2 * config.window + 1, width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`[B, T, D] -> [B, T, D]`"""
        q, k, v = rearrange(self.qkv(x_BTD), "B T (three H C) -> three B H T C", three=3, H=self.heads)
        q = q * q.shape[-1] ** -0.5
        s_BHTT = q @ k.mT
        T, w = x_BTD.shape[1], self.window
        at_T = torch.arange(T, device=x_BTD.device)
        apart_TT = at_T[None] - at_T[:, None] + w  # of key j from query i, counted from -w
        near_TT = (apart_TT >= 0) & (apart_TT <= 2 * w)
        places = apart_TT.clamp(0, 2 * w).expand_as(s_BHTT)
        s_BHTT = s_BHTT + (q @ self.near_k[0].mT).gather(-1, places) * near_TT
        p_BHTT = s_BHTT.softmax(-1)
        by_distance = torch.zeros_like(p_BHTT[..., :1]).expand(*p_BHTT.shape[:-1], 2 * w + 1)
        p_BHTW = by_distance.scatter_add(-1, places, p_BHTT * near_TT)
        out = p_BHTT @ v + p_BHTW @ self.near_v[0]
        return self.out(rearrange(out, "B H T C -> B T (H C)"))


class TextBlock(nn.Module):
    """Attention, then two convolutions; a norm behind each."""

    def __init__(self, config: VitsTextConfig) -> None:
        super().__init__()
        c = config
        self.attention = RelativeAttention(c)
        self.norm_attention = LayerNorm(c.dim, c.norm_eps)
        self.up, self.down = nn.Conv1d(c.dim, c.hidden, c.kernel), nn.Conv1d(c.hidden, c.dim, c.kernel)
        self.activation, self.around = ACTIVATIONS[c.activation], ((c.kernel - 1) // 2, c.kernel // 2)
        self.norm_feedforward = LayerNorm(c.dim, c.norm_eps)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`[B, T, D] -> [B, T, D]`"""
        x_BTD = self.norm_attention(x_BTD + self.attention(x_BTD))
        h_BDT = self.activation(self.up(F.pad(x_BTD.mT, self.around)))
        return self.norm_feedforward(x_BTD + self.down(F.pad(h_BDT, self.around)).mT)


class VitsText(nn.Module):
    """Ids `[B, T]` -> (states `[B, D, T]`, means and log-deviations of the latents, `[B, L, T]` each)."""

    def __init__(self, config: VitsTextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))
        self.project = nn.Conv1d(config.dim, 2 * config.latents, 1)

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows are of one length."""
        x_BTD = self.embed(ids_BT) * math.sqrt(self.config.dim)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        mean_BLT, deviation_BLT = self.project(x_BTD.mT).chunk(2, dim=1)
        return x_BTD.mT, mean_BLT, deviation_BLT
