"""The book: one picture per page as latents, a fixed table beside the weights, and how a painter looks into it.

A page added to the book can be drawn at once: this is retrieval-augmented generation with the retrieval done by the
vocabulary (Blattmann et al. 2022, arXiv 2204.11824, retrieve by nearest neighbour instead). Given the boxes of a
picture's things, each patch of the canvas glimpses the part of the page that belongs there: a grid of points across
the patch, carried into the page's own frame and read between its cells (the sampling of Spatial Transformers, Jaderberg
et al. 2015, arXiv 1506.02025). A small network turns glimpse, phase and scale into what the painter reads, together
with what the sentence says of the thing.

Legend: B batch, T text tokens, K boxes, N patches of the canvas, P points of a glimpse, Z latent channels, S side of a
page, D model width. Places are in canvas sides, x to the right and y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear
from conjure.nn.norm import RMSNorm

STEPS = 24  # pages are kept in int8, this many steps to a standard deviation


@dataclass(frozen=True, kw_only=True)
class PictureBookConfig:
    pages: int = 0  # 0: no book
    channels: int = 16
    side: int = 16  # of a page, in latent cells; a multiple of 4
    points: int = 6  # side of a glimpse's grid of points
    reach: float = 1.25  # side of a glimpse, in patches

    def __post_init__(self) -> None:
        if self.side % 4:
            raise ValueError(f"expected a side that 4 divides, got {self.side}")


class PictureBook(nn.Module):
    """forward(pages_BT, said_BTD, things_BM5, side) -> what every patch reads, [B, side * side, D].

    `things` [B, M, 5] are those of a canvas: (token that names it or -1, x, y, scale, colour). Where two overlap the
    later one is seen; where there is none, nothing is added.
    """

    table: Tensor

    def __init__(self, config: PictureBookConfig, dim: int, colours: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("table", torch.zeros(config.pages, config.side**2, config.channels, dtype=torch.int8))
        self.read = Linear(config.points**2 * config.channels + 9, 2 * dim)
        self.said = Linear(dim, 2 * dim, bias=False)
        self.colours = nn.Embedding(colours, 2 * dim)
        nn.init.zeros_(self.colours.weight)
        self.mix = FeedForward(2 * dim, 4 * dim, activation="gelu", gated=False, bias=True)
        self.norm = RMSNorm(2 * dim)
        self.paint = FeedForward(2 * dim, 6 * dim, activation="gelu", gated=False, bias=True)
        self.out = Linear(2 * dim, dim)

    def write(self, page: int, latent_ZSS: Tensor) -> None:
        """Put a picture's latents (unit variance) on a page, rounded to the table's steps."""
        cells = rearrange(latent_ZSS, "z y x -> (y x) z")
        self.table[page] = (cells * STEPS).round().clamp(-127, 127).to(torch.int8)

    def open(self, pages: Tensor) -> Tensor:
        """Pages [...] -> latents float32 [..., S * S, Z]; -1 opens page 0, for the caller to mask."""
        return self.table[pages.clamp_min(0)].float() / STEPS

    def glance(self, pages_BT: Tensor) -> Tensor:
        """A page's mean in each of 4x4 regions, [B, T, 16 Z]; zero where a token names nothing."""
        s = self.config.side
        cells = rearrange(self.open(pages_BT), "b t (y j x i) z -> b t y j x i z", y=4, x=4, j=s // 4, i=s // 4)
        return cells.mean((3, 5)).flatten(2) * (pages_BT >= 0).unsqueeze(-1)

    def forward(self, pages_BT: Tensor, said_BTD: Tensor, things_BM5: Tensor, side: int) -> Tensor:
        token_BM, box_BM3, colour_BM = things_BM5[..., 0].long(), things_BM5[..., 1:4], things_BM5[..., 4].long()
        steps = (torch.arange(side, device=things_BM5.device) + 0.5) / side
        centre_N2 = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).flatten(0, 1)
        away_BMN = (centre_N2 - box_BM3[:, :, None, :2]).abs().amax(-1)
        inside_BMN = (away_BMN < box_BM3[..., 2:] / 2 + 0.4 / side) & (token_BM >= 0).unsqueeze(-1)
        later_M1 = torch.arange(1, token_BM.shape[1] + 1, device=token_BM.device).unsqueeze(-1)
        thing_BN = (inside_BMN * later_M1).amax(1) - 1  # the last box over each patch, -1 for none
        covered_BN = thing_BN >= 0
        batch_B1 = torch.arange(len(thing_BN), device=thing_BN.device).unsqueeze(1)
        own_BN3 = box_BM3[batch_B1, thing_BN.clamp_min(0)]
        token_BN = token_BM[batch_B1, thing_BN.clamp_min(0)].clamp_min(0)
        colour_BN = colour_BM[batch_B1, thing_BN.clamp_min(0)].clamp_min(0)
        page_BN = pages_BT[batch_B1, token_BN].clamp_min(0)
        glimpse = self._glimpse(page_BN, own_BN3, centre_N2, side)
        mixed = self.read(glimpse.to(said_BTD.dtype)) + self.said(said_BTD)[batch_B1, token_BN]
        mixed = mixed + self.colours(colour_BN).to(mixed.dtype)
        mixed = self.norm(mixed + self.mix(mixed))
        mixed = mixed + self.paint(mixed)
        return self.out(mixed) * covered_BN.unsqueeze(-1)

    def flops(self, batch: int, patches: int, length: int) -> float:
        """Multiply-adds times two of `batch` pictures of `patches` patches, with captions of `length` tokens."""
        matrices = (self.read, self.mix.up, self.mix.down, self.paint.up, self.paint.down, self.out)
        per_patch = sum(matrix.weight.numel() for matrix in matrices)
        return 2.0 * batch * (patches * per_patch + length * self.said.weight.numel())

    def _glimpse(self, page_BN: Tensor, box_BN3: Tensor, centre_N2: Tensor, side: int) -> Tensor:
        """Latents at the points of each patch's glimpse [B, N, P * P * Z], then where in the page the patch lies."""
        c = self.config
        across = ((torch.arange(c.points, device=page_BN.device) + 0.5) / c.points - 0.5) * c.reach / side
        offset_P2 = torch.stack(torch.meshgrid(across, across, indexing="xy"), -1).flatten(0, 1)
        place_BN2, scale_BN1 = box_BN3[..., :2], box_BN3[..., 2:].clamp_min(1e-3)
        point_BNP2 = centre_N2[:, None] + offset_P2 - place_BN2.unsqueeze(2)
        at_BNP2 = (point_BNP2 / scale_BN1.unsqueeze(2) + 0.5) * c.side - 0.5  # in cells of the page, centres whole
        seen_BNPZ = bilinear(self.table, page_BN, at_BNP2, c.side)
        middle_BN2 = ((centre_N2 - place_BN2) / scale_BN1 + 0.5) * c.side
        turns = torch.cat([middle_BN2, middle_BN2 / c.side], -1) * 2 * math.pi
        where = torch.cat([turns.sin(), turns.cos(), scale_BN1], -1)
        return torch.cat([seen_BNPZ.flatten(2), where], -1)


def bilinear(table_QSZ: Tensor, page_BN: Tensor, at_BNP2: Tensor, side: int) -> Tensor:
    """Latents [B, N, P, Z] at fractional cells (x, y) of pages of an int8 table; outside a page there is nothing."""
    flat = table_QSZ.flatten(0, 1)
    low = at_BNP2.floor()
    part = at_BNP2 - low
    total = 0
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = low[..., 0].long() + dx, low[..., 1].long() + dy
        weight = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
        weight = weight * ((x >= 0) & (x < side) & (y >= 0) & (y < side))
        row = page_BN.unsqueeze(-1) * side * side + y.clamp(0, side - 1) * side + x.clamp(0, side - 1)
        total = total + flat[row].float() * (weight / STEPS).unsqueeze(-1)
    return total
