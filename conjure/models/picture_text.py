"""A text encoder with an illustrated vocabulary: words that it learns, and names that stand for pictures of a book.

A caption is a row of tokens. A token is either a word of the grammar ("left", "two", "green"), whose embedding is
learned, or a name ("fire engine"), which points to a page of the book (`picture_book.py`). All names share one learned
embedding beside a glance at their page, so that nothing about placing, counting or colouring is learned per thing.

From what the sentence says of it, every name is also given its places: up to six boxes, in which its thing is to be
drawn (layout before picture, as GLIGEN takes it from the user, arXiv 2301.07093; here it is read from the text).

Legend: B batch, T text tokens, K boxes of a name, C values of a page's cell, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from conjure.nn.attention import attend
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear
from conjure.nn.norm import RMSNorm

PAD = 0  # token id
BOXES = 6  # at most so many of one thing


@dataclass(frozen=True, kw_only=True)
class PictureTextConfig:
    vocab: int = 64  # rows of the word table, with PAD, START, UNKNOWN, NAME and NAMES
    length: int = 24  # tokens; longer captions are cut
    dim: int = 192
    layers: int = 2
    heads: int = 3
    colours: int = 9  # that a thing can be asked to have; 0 is its own


class Layout(NamedTuple):
    """What a caption says of its named tokens, Q being the number of colours."""

    boxes_BTK4: Tensor
    """(logit that the box is used, x, y, scale), canvas sides as unit."""
    colours_BTQ: Tensor
    """Logits of the colour."""


class TextBlock(nn.Module):
    """Bidirectional attention and feed-forward, each normalised first."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feedforward = RMSNorm(dim), RMSNorm(dim)
        self.qkv, self.out = Linear(dim, 3 * dim, bias=False), Linear(dim, dim, bias=False)
        self.feedforward = FeedForward(dim, 4 * dim, activation="gelu", gated=False, bias=True)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor) -> Tensor:
        qkv_BTD = self.qkv(self.norm_attention(x_BTD))
        q, k, v = rearrange(qkv_BTD, "b t (three h d) -> three b h t d", three=3, h=self.heads)
        x_BTD = x_BTD + self.out(rearrange(attend(q, k, v, mask=mask_B11T), "b h t d -> b t (h d)"))
        return x_BTD + self.feedforward(self.norm_feedforward(x_BTD))


class PictureText(nn.Module):
    """forward(words_BT, seen_BTC) -> (states [B, T, D], mask [B, T], summary [B, D])."""

    def __init__(self, config: PictureTextConfig, cell_values: int = 0) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.words = nn.Embedding(config.vocab, dim)
        nn.init.normal_(self.words.weight, std=0.3)
        self.order = nn.Parameter(torch.randn(config.length, dim) * 0.1)
        self.blocks = nn.ModuleList(TextBlock(dim, config.heads) for _ in range(config.layers))
        self.norm = RMSNorm(dim)
        self.summary = Linear(dim, dim)
        self.glance = Linear(cell_values, dim, bias=False) if cell_values else None
        self.places = Linear(dim, BOXES * 4) if cell_values else None
        self.colours = Linear(dim, config.colours) if cell_values else None

    def forward(self, words_BT: Tensor, seen_BTC: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """words: rows of the word table; seen: what a token's page looks like on the whole, zero where it has none."""
        mask_BT = words_BT != PAD
        x_BTD = self.words(words_BT) + self.order[: words_BT.shape[1]]
        if self.glance is not None and seen_BTC is not None:
            x_BTD = x_BTD + self.glance(seen_BTC.to(x_BTD.dtype))
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BT[:, None, None])
        x_BTD = self.norm(x_BTD)
        weight_BT1 = mask_BT.unsqueeze(-1).to(x_BTD.dtype)
        summary_BD = self.summary((x_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp_min(1))
        return x_BTD, mask_BT, summary_BD

    def layout(self, x_BTD: Tensor) -> Layout:
        """Where each token's thing goes and in which colour, as the states of the text say."""
        assert self.places is not None and self.colours is not None
        raw_BTK4 = rearrange(self.places(x_BTD), "b t (k four) -> b t k four", four=4).float()
        boxes_BTK4 = torch.cat([raw_BTK4[..., :1], raw_BTK4[..., 1:] * 0.25 + 0.5], dim=-1)
        return Layout(boxes_BTK4, self.colours(x_BTD).float())

    def flops(self, batch: int) -> float:
        """Multiply-adds times two of reading `batch` captions, their layouts included."""
        c, d = self.config, self.config.dim
        beside = [m.weight.numel() for m in (self.glance, self.places, self.colours) if m is not None]
        per_layer = c.length * 12 * d**2 + 2 * c.length**2 * d
        return 2.0 * batch * (c.layers * per_layer + c.length * sum(beside) + d**2)
