"""A network that draws latents from a text which it reads word by word: conditioned by cross-attention (a U-Net,
Rombach et al. 2022, arXiv 2112.10752, section 3.3) or by joint attention (MMDiT, Esser et al. 2024, arXiv 2403.03206).

Legend: B batch, T text tokens, D width of the text, Z latent channels, h and w cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.mmdit import MMDiT, MMDiTConfig
from conjure.models.picture_text import PictureText, PictureTextConfig
from conjure.models.unet import UNet, UNetConfig

CLOCK = 1000.0
"""Both networks tell times apart by waves made for 1000 steps; a flow's times are from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class LatentPainterConfig:
    """One of `unet` and `mmdit` is given."""

    text: PictureTextConfig = field(default_factory=PictureTextConfig)
    unet: UNetConfig | None = None
    """`channels` and `channels_out` are those of the latents times `patch` squared, `context` is the text's width."""
    mmdit: MMDiTConfig | None = None
    """`context` and `pooled` are the text's width."""
    patch: int = 1
    """Cells a side that the U-Net reads as one place; an MMDiT has its own."""
    channels: int = 4
    """Z"""
    side: int = 16
    """Cells of a canvas along a side."""
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    codec: str = ""
    """Folder whose autoencoder is used."""
    drop: float = 0.1
    """Share of captions that are emptied in training, so that guidance has something to start from."""

    def __post_init__(self) -> None:
        if (self.unet is None) == (self.mmdit is None):
            raise ConjureError("expected one of unet and mmdit", hint="a recipe trains one network")
        if self.unet:
            got = (self.unet.channels, self.unet.channels_out, self.unet.context)
            wanted = (self.channels * self.patch**2, self.channels * self.patch**2, self.text.dim)
            if got != wanted or self.side % self.patch:
                raise ConjureError(f"unet: expected channels in and out and a context of {wanted} and a patch that "
                                   f"divides {self.side} cells, got {got} and {self.patch}")
        if self.mmdit:
            m = self.mmdit
            got = (m.channels, m.out_channels, m.context, m.pooled)
            wanted = (self.channels, self.channels, self.text.dim, self.text.dim)
            if got != wanted or m.size != self.side or m.places * m.patch < self.side or self.patch != 1:
                raise ConjureError(f"mmdit: expected channels in and out, context and pooled {wanted}, places for "
                                   f"{self.side} cells and patch 1 outside, got {got}, {m.places} of {m.patch} cells "
                                   f"and {self.patch}")
        if not 0 <= self.drop < 1:
            raise ConjureError(f"drop: expected a share from 0 to below 1, got {self.drop}")


class LatentPainter(nn.Module):
    """forward(x_BZhw, t_B, words_BT) -> `[B, Z, h, w]`. To draw, call `read` once and then `paint` at every step."""

    def __init__(self, config: LatentPainterConfig) -> None:
        super().__init__()
        self.config = config
        self.text = PictureText(config.text)
        self.unet = UNet(config.unet) if config.unet else None
        self.mmdit = MMDiT(config.mmdit) if config.mmdit else None

    def forward(self, x_BZhw: Tensor, t_B: Tensor, words_BT: Tensor) -> Tensor:
        return self.paint(x_BZhw, t_B, *self.read(words_BT))

    def read(self, words_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(states `[B, T, D]`, mask `[B, T]`, summary `[B, D]`) of captions as rows of the table of words."""
        return self.text(words_BT)

    def paint(self, x_BZhw: Tensor, t_B: Tensor, states_BTD: Tensor, mask_BT: Tensor, summary_BD: Tensor) -> Tensor:
        """Times are from 0 to 1. The U-Net has no mask: tokens that are not there are zero, and the summary stands
        before them as one more."""
        if self.mmdit is not None:
            return self.mmdit(x_BZhw, t_B * CLOCK, states_BTD, summary_BD, mask_BT)
        assert self.unet is not None
        context = torch.cat([summary_BD[:, None], states_BTD * mask_BT[..., None].to(states_BTD.dtype)], dim=1)
        out = self.unet(functional.pixel_unshuffle(x_BZhw, self.config.patch), t_B * CLOCK, context)
        return functional.pixel_shuffle(out, self.config.patch)

    def flops(self, batch: int) -> float:
        """Multiply-adds times two of one forward pass, counted where nothing is computed."""
        c = self.config
        with torch.device("meta"), torch.no_grad():
            empty, x_BZhw = LatentPainter(c), torch.empty(1, c.channels, c.side, c.side)
            with FlopCounterMode(display=False) as counter:
                empty(x_BZhw, torch.empty(1), torch.empty(1, c.text.length, dtype=torch.long))
        return batch * float(counter.get_total_flops())
