"""The painter: reads a caption, gives every named thing its places, and denoises a picture of it.

Legend: B batch, T text tokens, M things of a canvas, K boxes of a name, Z latent channels, N patches, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.models.dit import DiT, DiTConfig
from conjure.models.picture_book import PictureBook, PictureBookConfig
from conjure.models.picture_text import BOXES, PictureText, PictureTextConfig

Context = tuple[Tensor, Tensor, Tensor]


class Painter(nn.Module):
    """forward(x_BZhw, t_B, words_BT, pages_BT, things_BM4) -> (output [B, Z, h, w], layout [B, T, K, 4] or None).

    `things` are (token that names it or -1, x, y, scale). To draw, call `read` and `arrange` once and `dit` per step.
    """

    def __init__(self, text: PictureTextConfig, book: PictureBookConfig, dit: DiTConfig) -> None:
        super().__init__()
        self.text = PictureText(text, 16 * book.channels if book.pages else 0)
        self.book = PictureBook(book, dit.dim) if book.pages else None
        self.dit = DiT(dit)

    def forward(
        self, x_BZhw: Tensor, t_B: Tensor, words_BT: Tensor, pages_BT: Tensor, things_BM4: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        context = self.read(words_BT, pages_BT)
        guide = self.guide(context, pages_BT, things_BM4)
        return self.dit(x_BZhw, t_B, *context, guide), self.text.layout(context[0]) if self.book is not None else None

    def read(self, words_BT: Tensor, pages_BT: Tensor) -> Context:
        """(states [B, T, D], mask [B, T], summary [B, D]) of captions."""
        return self.text(words_BT, self.book.glance(pages_BT) if self.book is not None else None)

    def guide(self, context: Context, pages_BT: Tensor, things_BM4: Tensor) -> Tensor:
        """What each patch reads in the book, [B, N, D]; zero without a book."""
        side = self.dit.config.size // self.dit.config.patch
        if self.book is None:
            return context[0].new_zeros(len(things_BM4), side * side, context[0].shape[-1])
        return self.book(pages_BT, context[0], things_BM4, side)

    def arrange(self, context: Context, pages_BT: Tensor, shift_BM2: Tensor, grid: int = 16) -> Tensor:
        """Things [B, M, 4] from the captions' own layout, moved by `shift` (canvas sides) and laid on the grid.

        The boxes used by all names, at most M = `shift_BM2.shape[1]`, in the order of the text.
        """
        M = shift_BM2.shape[1]
        layout_BTK4 = self.text.layout(context[0])
        used_BTK = (layout_BTK4[..., 0] > 0) & (pages_BT >= 0).unsqueeze(-1)
        used_BTK[..., 0] = pages_BT >= 0  # a name is always drawn at least once
        order_BM = torch.argsort((~used_BTK.flatten(1)).int(), dim=1, stable=True)[:, :M]
        boxes_BM3 = layout_BTK4[..., 1:].flatten(1, 2).gather(1, order_BM.unsqueeze(-1).expand(-1, -1, 3))
        scale_BM = (boxes_BM3[..., 2] * grid).round().clamp(1, grid) / grid
        corner_BM2 = boxes_BM3[..., :2] + shift_BM2 - scale_BM.unsqueeze(-1) / 2
        place_BM2 = (corner_BM2 * grid).round() / grid + scale_BM.unsqueeze(-1) / 2
        token_BM = torch.where(used_BTK.flatten(1).gather(1, order_BM), order_BM // BOXES, -1)
        return torch.cat([token_BM.unsqueeze(-1).float(), place_BM2, scale_BM.unsqueeze(-1)], dim=-1)


def layout_loss(layout_BTK4: Tensor, pages_BT: Tensor, things_BM4: Tensor) -> Tensor:
    """Per-sample loss of the layout of named tokens: cross-entropy of which boxes are used, L1 of those that are.

    The k-th thing of a token should be in its box k.
    """
    token_BM = things_BM4[..., 0].long()
    same_BMM = (token_BM.unsqueeze(2) == token_BM.unsqueeze(1)).tril(-1)
    rank_BM = same_BMM.sum(2)
    B, T, K, _ = layout_BTK4.shape
    slot_BM = (token_BM * K + rank_BM).clamp_min(0)
    here_BM = (token_BM >= 0).float()
    used_BS = layout_BTK4.new_zeros(B, T * K).scatter_add(1, slot_BM, here_BM).clamp(max=1)
    named_BS = (pages_BT >= 0).float().repeat_interleave(K, dim=1)
    logit_BS = layout_BTK4[..., 0].flatten(1)
    count_B = named_BS.sum(1).clamp_min(1)
    presence_B = (F.binary_cross_entropy_with_logits(logit_BS, used_BS, reduction="none") * named_BS).sum(1) / count_B
    guess_BM3 = layout_BTK4[..., 1:].flatten(1, 2).gather(1, slot_BM.unsqueeze(-1).expand(-1, -1, 3))
    off_B = ((guess_BM3 - things_BM4[..., 1:]).abs().sum(-1) * here_BM).sum(1) / here_BM.sum(1).clamp_min(1)
    return presence_B + 4 * off_B
