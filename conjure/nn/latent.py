"""Multi-head latent attention: keys and values of all heads come from one short vector a token, which is all that a
cache needs to keep (DeepSeek-V2, arXiv 2405.04434).

Legend: B rows, T tokens, S keys, D model width, H heads, N width of a head without position, P with position (rotated),
V width of a value, R rank of the latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.nn.attention import attend
from conjure.nn.cache import Cache
from conjure.nn.linear import Linear
from conjure.nn.norm import RMSNorm
from conjure.nn.position import rotate

EPS = 1e-6
"""Of the inner norms, in all released models."""
FEW = 8
"""Queries up to which attention runs on the latents themselves."""


@dataclass(frozen=True, kw_only=True)
class Latent:
    query_rank: int | None
    """Null: queries come straight from the input."""
    rank: int
    plain: int
    """Width of the part of a head without position."""
    rotated: int
    """Width of the part with position, whose key all heads share."""
    value: int


class LatentAttention(nn.Module):
    """Causal self-attention; a cache holds [latent ; rotated key] as one key head of width R + P."""

    def __init__(
        self, config: Latent, dim: int, heads: int, *, layer: int, bias: bool, interleaved: bool, scale: float | None
    ) -> None:
        super().__init__()
        self.config, self.heads, self.layer, self.interleaved = config, heads, layer, interleaved
        width = config.plain + config.rotated
        self.scale = width**-0.5 if scale is None else scale
        if config.query_rank is None:
            self.query = Linear(dim, heads * width, bias=False)
        else:
            self.query_down = Linear(dim, config.query_rank, bias=bias)
            self.query_norm = RMSNorm(config.query_rank, EPS)
            self.query_up = Linear(config.query_rank, heads * width, bias=False)
        self.down = Linear(dim, config.rank + config.rotated, bias=bias)
        self.norm = RMSNorm(config.rank, EPS)
        self.up = Linear(config.rank, heads * (config.plain + config.value), bias=False)
        self.out = Linear(heads * config.value, dim, bias=bias)

    def forward(
        self, x_BTD: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None = None
    ) -> Tensor:
        c, (B, T, _) = self.config, x_BTD.shape
        q = self.query(x_BTD) if c.query_rank is None else self.query_up(self.query_norm(self.query_down(x_BTD)))
        q_BHTN, q_BHTP = q.view(B, T, self.heads, -1).transpose(1, 2).split([c.plain, c.rotated], dim=-1)
        latent_BTR, k_BTP = self.down(x_BTD).split([c.rank, c.rotated], dim=-1)
        q_BHTP = rotate(q_BHTP, *turn, self.interleaved)
        k_B1TP = rotate(k_BTP[:, None], *turn, self.interleaved)
        key_B1SX = torch.cat([self.norm(latent_BTR)[:, None], k_B1TP], dim=-1)
        if cache is not None:
            key_B1SX, _ = cache.append(self.layer, key_B1SX, key_B1SX[..., :0])
        run = self.absorbed if cache is not None and T <= FEW else self.expanded
        out_BHTV = run(q_BHTN, q_BHTP, key_B1SX, mask)
        return self.out(out_BHTV.transpose(1, 2).reshape(B, T, -1))

    def expanded(self, q_BHTN: Tensor, q_BHTP: Tensor, key_B1SX: Tensor, mask: Tensor | None) -> Tensor:
        """Keys and values of every head are written out: the right way round for many queries."""
        c, (B, _, S, _) = self.config, key_B1SX.shape
        both = self.up(key_B1SX[:, 0, :, : c.rank]).view(B, S, self.heads, -1).transpose(1, 2)
        k_BHSN, v_BHSV = both.split([c.plain, c.value], dim=-1)
        k = torch.cat([k_BHSN, key_B1SX[..., c.rank :].expand(-1, self.heads, -1, -1)], dim=-1)
        q = torch.cat([q_BHTN, q_BHTP], dim=-1)
        return attend(q, k, v_BHSV, mask=mask, causal=mask is None, scale=self.scale)

    def absorbed(self, q_BHTN: Tensor, q_BHTP: Tensor, key_B1SX: Tensor, mask: Tensor | None) -> Tensor:
        """The matrix that makes keys is applied to the queries, the one that makes values to the sum: all heads then
        attend to the latents as if they were one key head, and nothing is written out."""
        c = self.config
        up_HXR = self.up.weight.to(q_BHTN.dtype).view(self.heads, c.plain + c.value, c.rank)
        q = torch.cat([q_BHTN @ up_HXR[:, : c.plain], q_BHTP], dim=-1)
        found_BHTR = attend(q, key_B1SX, key_B1SX[..., : c.rank], mask=mask, causal=mask is None, scale=self.scale)
        return found_BHTR @ up_HXR[:, c.plain :].mT
