"""The painter: reads a caption, gives every named thing its places, and denoises a picture of it.

Legend: B batch, T text tokens, M things of a canvas, K boxes of a name, Z latent channels, N patches, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.dit import DiT, DiTConfig
from conjure.models.picture_book import PictureBook, PictureBookConfig
from conjure.models.picture_text import BOXES, Layout, PictureText, PictureTextConfig

Context = tuple[Tensor, Tensor, Tensor]
Place = tuple[int, float, float, float, int]
"""A page, x, y and scale of the box that shows it in canvas sides, and the number of its colour (0: its own)."""


@dataclass(frozen=True, kw_only=True)
class PainterConfig:
    """`codec` names the model folder whose autoencoder is used, "" for pixels; `drop` is the share of captions that are
    emptied in training, so that guidance has something to start from."""

    text: PictureTextConfig = field(default_factory=PictureTextConfig)
    book: PictureBookConfig = field(default_factory=PictureBookConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    codec: str = ""
    drop: float = 0.1

    def __post_init__(self) -> None:
        if self.text.dim != self.dit.dim:
            raise ConjureError(f"text.dim and dit.dim must agree, got {self.text.dim} and {self.dit.dim}")
        page, canvas = (self.book.channels, self.book.side), (self.dit.channels, self.dit.size)
        if self.book.pages and page != canvas:
            raise ConjureError(f"a page of the book has the canvas's channels and side, {canvas}, got {page}")
        if not 0 <= self.drop < 1:
            raise ConjureError(f"drop: expected a share from 0 to below 1, got {self.drop}")


class Painter(nn.Module):
    """forward(x_BZhw, t_B, words_BT, pages_BT, things_BM5) -> (output [B, Z, h, w], Layout, or None without a book).

    `things` are (token that names it or -1, x, y, scale, colour). To draw, call `read` and `arrange` once, then `dit`
    per step.
    """

    def __init__(self, text: PictureTextConfig, book: PictureBookConfig, dit: DiTConfig) -> None:
        super().__init__()
        self.text = PictureText(text, 16 * book.channels if book.pages else 0)
        self.book = PictureBook(book, dit.dim, text.colours) if book.pages else None
        self.dit = DiT(dit)

    def forward(
        self, x_BZhw: Tensor, t_B: Tensor, words_BT: Tensor, pages_BT: Tensor, things_BM5: Tensor
    ) -> tuple[Tensor, Layout | None]:
        context = self.read(words_BT, pages_BT)
        guide = self.guide(context, pages_BT, things_BM5)
        return self.dit(x_BZhw, t_B, *context, guide), self.text.layout(context[0]) if self.book is not None else None

    def read(self, words_BT: Tensor, pages_BT: Tensor) -> Context:
        """(states [B, T, D], mask [B, T], summary [B, D]) of captions."""
        return self.text(words_BT, self.book.glance(pages_BT) if self.book is not None else None)

    def guide(self, context: Context, pages_BT: Tensor, things_BM5: Tensor) -> Tensor:
        """What each patch reads in the book, [B, N, D]; zero without a book."""
        side = self.dit.config.size // self.dit.config.patch
        if self.book is None:
            return context[0].new_zeros(len(things_BM5), side * side, context[0].shape[-1])
        return self.book(pages_BT, context[0], things_BM5, side)

    def flops(self, batch: int) -> float:
        """Multiply-adds times two of one forward pass over `batch` pictures and captions."""
        length, book = self.text.config.length, 0.0
        if self.book is not None:
            book = self.book.flops(batch, self.dit.patch_count, length)
        return self.text.flops(batch) + book + self.dit.flops(batch, length)

    def arrange(self, context: Context, pages_BT: Tensor, shift_BM2: Tensor, grid: int = 16) -> Tensor:
        """Things [B, M, 5] from the captions' own layout, moved by `shift` (canvas sides) and laid on the grid.

        The boxes used by all names, at most M = `shift_BM2.shape[1]`, in the order of the text.
        """
        M = shift_BM2.shape[1]
        layout_BTK4, colours_BTQ = self.text.layout(context[0])
        used_BTK = (layout_BTK4[..., 0] > 0) & (pages_BT >= 0).unsqueeze(-1)
        used_BTK[..., 0] = pages_BT >= 0  # a name is always drawn at least once
        order_BM = torch.argsort((~used_BTK.flatten(1)).int(), dim=1, stable=True)[:, :M]
        boxes_BM3 = layout_BTK4[..., 1:].flatten(1, 2).gather(1, order_BM.unsqueeze(-1).expand(-1, -1, 3))
        scale_BM = (boxes_BM3[..., 2] * grid).round().clamp(1, grid) / grid
        corner_BM2 = boxes_BM3[..., :2] + shift_BM2 - scale_BM.unsqueeze(-1) / 2
        place_BM2 = (corner_BM2 * grid).round() / grid + scale_BM.unsqueeze(-1) / 2
        token_BM = torch.where(used_BTK.flatten(1).gather(1, order_BM), order_BM // BOXES, -1)
        colour_BM = colours_BTQ.argmax(-1).gather(1, token_BM.clamp_min(0))
        columns = (token_BM.float(), *place_BM2.unbind(-1), scale_BM, colour_BM.float())
        return torch.stack(columns, dim=-1)


def named_places(pages_BT: Tensor, places: Sequence[Sequence[Place]]) -> Tensor:
    """Things [B, K, 5] as `Painter` takes them: the first token that names the page and the rest of the place, -1 where
    there is none.

    Places whose page no token names are left out, and so are all beyond K = 6.
    """
    things_BK5 = torch.full((len(places), BOXES, 5), -1.0)
    for b, (pages, wanted) in enumerate(zip(pages_BT.tolist(), places, strict=True)):
        token = {page: t for t, page in reversed(list(enumerate(pages))) if page >= 0}
        known = [(token[page], *box) for page, *box in wanted if page in token]
        for k, thing in enumerate(known[:BOXES]):
            things_BK5[b, k] = torch.tensor(thing)
    return things_BK5


def layout_loss(layout: Layout, pages_BT: Tensor, things_BM5: Tensor) -> Tensor:
    """Per-sample loss of the layout of named tokens: cross-entropy of which boxes are used and of the colour, L1 of the
    boxes that are used.

    The k-th thing of a token should be in its box k.
    """
    layout_BTK4, colours_BTQ = layout
    token_BM = things_BM5[..., 0].long()
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
    off_B = ((guess_BM3 - things_BM5[..., 1:4]).abs().sum(-1) * here_BM).sum(1) / here_BM.sum(1).clamp_min(1)
    batch_B1 = torch.arange(B, device=token_BM.device).unsqueeze(1)
    logits_BQM = colours_BTQ[batch_B1, token_BM.clamp_min(0)].transpose(1, 2)
    colour_BM = F.cross_entropy(logits_BQM, things_BM5[..., 4].long().clamp_min(0), reduction="none") * here_BM
    return presence_B + 4 * off_B + colour_BM.sum(1) / here_BM.sum(1).clamp_min(1)
