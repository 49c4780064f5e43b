"""A text encoder with an illustrated vocabulary: words it learns, and names it can look up.

A caption is a row of tokens. A token is either a word of the grammar ("left", "two", "green"), whose embedding is
learned, or a name ("fire engine"), which stands for a page of the *book*: the latents of one picture, a fixed table
beside the weights. All names share one learned embedding, so that nothing about placing, counting or colouring is
learned per thing, and a thing added to the book can be drawn at once. This is retrieval-augmented generation with the
retrieval done by the tokenizer (Blattmann et al. 2022, arXiv 2204.11824, retrieve by nearest neighbour instead).

A small bidirectional transformer reads the tokens in order. Then each named picture is read as a grid of cells, and
each cell is told what the sentence says of its thing, so that it can work out its own place and colour.

Legend: B batch, T text tokens, P pages per caption, K cells per page, C values per cell, D model width, S = T + P*K.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from conjure.nn.attention import attend
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear
from conjure.nn.norm import RMSNorm
from conjure.nn.position import sincos_2d

PAD = 0  # token id
STEPS = 24  # the book is kept in int8, this many steps to a standard deviation


@dataclass(frozen=True, kw_only=True)
class PictureTextConfig:
    vocab: int = 64  # rows of the word table, with PAD, START, UNKNOWN, NAME and NAMES
    length: int = 24  # tokens; longer captions are cut
    dim: int = 192
    layers: int = 2
    heads: int = 3
    pages: int = 0  # pictures in the book; 0: words only
    pages_per_caption: int = 3
    cells: int = 4  # side of a page's grid
    cell_values: int = 256


class TextBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feedforward = RMSNorm(dim), RMSNorm(dim)
        self.qkv, self.out = Linear(dim, 3 * dim, bias=False), Linear(dim, dim, bias=False)
        self.feedforward = FeedForward(dim, 4 * dim, activation="gelu", gated=False, bias=True)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm_attention(x_BTD)), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        x_BTD = x_BTD + self.out(rearrange(attend(q, k, v, mask=mask_B11T), "b h t d -> b t (h d)"))
        return x_BTD + self.feedforward(self.norm_feedforward(x_BTD))


class PictureText(nn.Module):
    """forward(words_BT, pages_BT) -> (context [B, S, D], mask [B, S], summary [B, D])."""

    def __init__(self, config: PictureTextConfig) -> None:
        super().__init__()
        self.config = config
        dim, cells = config.dim, config.cells**2
        self.words = nn.Embedding(config.vocab, dim)
        self.order = nn.Parameter(torch.randn(config.length, dim) * 0.1)
        nn.init.normal_(self.words.weight, std=0.3)
        self.order.adam = True
        self.blocks = nn.ModuleList(TextBlock(dim, config.heads) for _ in range(config.layers))
        self.norm = RMSNorm(dim)
        self.summary = Linear(dim, dim)
        if config.pages:
            self.register_buffer("book", torch.zeros(config.pages, cells, config.cell_values, dtype=torch.int8))
            self.glance = Linear(config.cell_values, dim, bias=False)  # what a thing looks like on the whole
            self.read = Linear(config.cell_values, dim)
            self.said = Linear(dim, dim)
            self.register_buffer("cell_place_KD", sincos_2d(config.cells, config.cells, dim), persistent=False)
            self.placed = nn.ModuleList(FeedForward(dim, 4 * dim, activation="gelu", gated=False, bias=True) for _ in range(2))
            self.placed_norms = nn.ModuleList(RMSNorm(dim) for _ in range(2))
            self.norm_cells = RMSNorm(dim)

    def forward(self, words_BT: Tensor, pages_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """words: rows of the word table; pages: page of the book, or -1 where the token names nothing."""
        mask_BT = words_BT != PAD
        x_BTD = self.words(words_BT) + self.order[: words_BT.shape[1]]
        if self.config.pages:
            seen_BTC = self.open(pages_BT).mean(2) * (pages_BT >= 0).unsqueeze(-1)
            x_BTD = x_BTD + self.glance(seen_BTC.to(x_BTD.dtype))
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BT[:, None, None])
        x_BTD = self.norm(x_BTD)
        weight_BT1 = mask_BT.unsqueeze(-1).to(x_BTD.dtype)
        summary_BD = self.summary((x_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp_min(1))
        if not self.config.pages:
            return x_BTD, mask_BT, summary_BD
        cells_BSD, cells_BS = self._cells(x_BTD, pages_BT)
        return torch.cat([x_BTD, cells_BSD], 1), torch.cat([mask_BT, cells_BS], 1), summary_BD

    def _cells(self, x_BTD: Tensor, pages_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The cells of the first P named pictures of each caption, [B, P*K, D], and where there are any."""
        named_BT = pages_BT >= 0
        first_BP = torch.argsort((~named_BT).int(), dim=1, stable=True)[:, : self.config.pages_per_caption]
        page_BP = pages_BT.gather(1, first_BP)
        said_BPD = self.said(x_BTD.gather(1, first_BP.unsqueeze(-1).expand(-1, -1, x_BTD.shape[-1])))
        cell_BPKD = self.read(self.open(page_BP).to(x_BTD.dtype)) + said_BPD.unsqueeze(2) + self.cell_place_KD
        for norm, feedforward in zip(self.placed_norms, self.placed, strict=True):
            cell_BPKD = cell_BPKD + feedforward(norm(cell_BPKD))
        here_BPK = (page_BP >= 0).unsqueeze(-1).expand(-1, -1, cell_BPKD.shape[2])
        return rearrange(self.norm_cells(cell_BPKD), "b p k d -> b (p k) d"), rearrange(here_BPK, "b p k -> b (p k)")

    def cut(self, latent_Zhw: Tensor) -> Tensor:
        """A latent grid as the cells of a page, [K, C]."""
        side = latent_Zhw.shape[-1] // self.config.cells
        return rearrange(latent_Zhw, "z (i p) (j q) -> (i j) (z p q)", p=side, q=side)

    def write(self, page: int, latent_KC: Tensor) -> None:
        """Put a picture's latents into the book, rounded to steps of 1/24 (they have unit variance)."""
        self.book[page] = (latent_KC * STEPS).round().clamp(-127, 127).to(torch.int8)

    def open(self, pages: Tensor) -> Tensor:
        """Pages [...] -> latents float32 [..., K, C]; page -1 reads page 0, for the caller to mask."""
        return self.book[pages.clamp_min(0)].float() / STEPS

    @property
    def context_length(self) -> int:
        c = self.config
        return c.length + (c.pages_per_caption * c.cells**2 if c.pages else 0)
