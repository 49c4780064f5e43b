"""Diffusion transformer over patches of a latent grid, which reads a context by joint attention.

Blocks follow DiT (Peebles and Xie 2022, arXiv 2212.09748) with the shared time modulation of PixArt-alpha
(arXiv 2310.00426): one small network turns time into six vectors, each block adds its own offsets to them. In every
block picture tokens attend to picture tokens and context tokens in one softmax; the context itself is not updated.

Legend: B batch, Z latent channels, h and w grid sides, N picture tokens = (h/p)(w/p), S context tokens, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from conjure.nn.attention import attend
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear
from conjure.nn.modulation import GATE, leave_to_adam, modulated
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.patches import from_patches, to_patches
from conjure.nn.position import sincos_2d, timestep_embedding


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    channels: int = 16  # of the latents; of the picture where there is no codec
    size: int = 16  # side of the latent grid
    patch: int = 2
    dim: int = 192
    layers: int = 6
    heads: int = 3
    hidden: int = 768  # width of the feed-forward layers

    def __post_init__(self) -> None:
        if self.size % self.patch or self.dim % self.heads or self.dim % 4:
            raise ValueError(f"expected patch to divide size, and heads and 4 to divide dim, got {self}")


class Block(nn.Module):
    """Attention to pictures and context, then feed-forward, both shifted, scaled and gated by time."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.norm_attention = LayerNorm(dim, affine=False)
        self.norm_feedforward = LayerNorm(dim, affine=False)
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.context_kv = Linear(dim, 2 * dim, bias=False)
        self.norm_q, self.norm_k = RMSNorm(dim // config.heads), RMSNorm(dim // config.heads)
        self.out = Linear(dim, dim)
        self.feedforward = FeedForward(dim, config.hidden, activation="gelu", gated=False, bias=True)
        self.offsets = nn.Parameter(torch.zeros(6, dim))

    def forward(self, x_BND: Tensor, time_B6D: Tensor, context_BSD: Tensor, mask_B11S: Tensor) -> Tensor:
        """`mask` is True where there is something to attend to (pictures first, then context)."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (time_B6D + self.offsets).unsqueeze(2).unbind(1)
        h_BND = modulated(self.norm_attention(x_BND), shift_a, scale_a)
        q, k, v = rearrange(self.qkv(h_BND), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        context_kv = rearrange(self.context_kv(context_BSD), "b s (two h d) -> two b h s d", two=2, h=self.heads)
        context_k, context_v = context_kv
        k, v = torch.cat([k, context_k], dim=2), torch.cat([v, context_v], dim=2)
        mixed_BHND = attend(self.norm_q(q), self.norm_k(k), v, mask=mask_B11S)
        x_BND = x_BND + gate_a * self.out(rearrange(mixed_BHND, "b h n d -> b n (h d)"))
        return x_BND + gate_f * self.feedforward(modulated(self.norm_feedforward(x_BND), shift_f, scale_f))


class DiT(nn.Module):
    """forward(x_BZhw, t_B, *context) -> [B, Z, h, w]; `t` is in [0, 1], the process's own clock."""

    place_ND: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        side, pixels = config.size // config.patch, config.channels * config.patch**2
        self.patches = Linear(pixels, config.dim)
        self.register_buffer("place_ND", sincos_2d(side, side, config.dim), persistent=False)
        self.time = nn.Sequential(Linear(256, config.dim), nn.SiLU(), Linear(config.dim, config.dim))
        self.modulation = nn.Sequential(nn.SiLU(), Linear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_out = LayerNorm(config.dim, affine=False)
        self.modulation_out = nn.Sequential(nn.SiLU(), Linear(config.dim, 2 * config.dim))
        self.to_pixels = Linear(config.dim, pixels)
        self._initialise()

    def _initialise(self) -> None:
        """Nothing is said yet, but gates are open a little (`GATE`)."""
        for module in (self.modulation[1], self.modulation_out[1], self.to_pixels):
            assert isinstance(module, Linear)
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
            leave_to_adam(module.weight)
        for block in self.blocks:
            assert isinstance(block, Block)
            leave_to_adam(block.offsets)
            with torch.no_grad():
                block.offsets[2].fill_(GATE)
                block.offsets[5].fill_(GATE)
        leave_to_adam(self.patches.weight)

    def forward(
        self, x_BZhw: Tensor, t_B: Tensor, context_BSD: Tensor, mask_BS: Tensor, summary_BD: Tensor,
        guide_BND: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`mask_BS` is True where the context has a token; `summary_BD` joins the time in steering every block;
        `guide_BND`, if given, is added to the patches."""
        p = self.config.patch
        x_BND = self.patches(to_patches(x_BZhw, p))
        x_BND = x_BND + self.place_ND.to(x_BND.dtype)
        if guide_BND is not None:
            x_BND = x_BND + guide_BND
        condition_BD = self.time(timestep_embedding(t_B * 1000, 256).to(x_BND.dtype)) + summary_BD
        time_B6D = rearrange(self.modulation(condition_BD), "b (six d) -> b six d", six=6)
        here_BN = mask_BS.new_ones(x_BND.shape[:2])
        mask_B11S = torch.cat([here_BN, mask_BS], dim=1)[:, None, None]
        for block in self.blocks:
            x_BND = block(x_BND, time_B6D, context_BSD, mask_B11S)
        shift, scale = self.modulation_out(condition_BD).unsqueeze(1).chunk(2, dim=-1)
        out_BNP = self.to_pixels(modulated(self.norm_out(x_BND), shift, scale))
        side = self.config.size // p
        return from_patches(out_BNP, side, side, p)

    @property
    def patch_count(self) -> int:
        """N, the tokens of one picture."""
        return (self.config.size // self.config.patch) ** 2

    def flops(self, batch: int, context: int) -> float:
        """Multiply-adds times two of one forward pass over `batch` pictures with `context` tokens each."""
        c, n = self.config, self.patch_count
        per_layer = n * (4 * c.dim**2 + 2 * c.dim * c.hidden) + context * 2 * c.dim**2 + 2 * n * (n + context) * c.dim
        ends = 2 * n * c.dim * c.channels * c.patch**2 + 256 * c.dim + 9 * c.dim**2
        return 2.0 * batch * (c.layers * per_layer + ends)
