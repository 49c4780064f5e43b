"""A cascade: one diffusion model draws a small picture of a text, a second one draws it again at full size.

Imagen (Saharia et al. 2022, arXiv 2205.11487) with transformers over patches in place of U-Nets, and a text encoder
that learns beside them in place of a frozen one. The second network reads the small picture, enlarged, in the same
patches as the noisy one (which is what stacking channels comes to where patches are read by a matrix). While it learns,
noise of a random level is added to the small picture and the level is told, so that it need not trust what the first
network makes: conditioning augmentation (Ho et al. 2021, arXiv 2106.15282, section 4.2).

Legend: B batch, T text tokens, D width of the text, W width of the second network, H and W sides in pixels, h and w
those of the small picture, N patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.diffusion.denoiser import column
from conjure.diffusion.flow import RectifiedFlow
from conjure.models.dit import DiT, DiTConfig
from conjure.models.picture_text import PictureText, PictureTextConfig
from conjure.nn.linear import Linear
from conjure.nn.modulation import Embedder, leave_to_adam
from conjure.nn.patches import to_patches
from conjure.nn.position import timestep_embedding

Context = tuple[Tensor, Tensor, Tensor]
FEATURES = 256
"""Of a level, before its small network."""


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """Without `second`, the first network draws at full size and there is no cascade."""

    text: PictureTextConfig = field(default_factory=PictureTextConfig)
    first: DiTConfig = field(default_factory=DiTConfig)
    second: DiTConfig | None = None
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    noise: float = 0.5
    """Small pictures are learnt from with noise of levels from 0 up to this one; 1 is noise alone."""
    drop: float = 0.1
    """Share of captions that are emptied in training, so that guidance has something to start from."""

    def __post_init__(self) -> None:
        if self.text.dim != self.first.dim:
            raise ConjureError(f"text.dim and first.dim must agree, got {self.text.dim} and {self.first.dim}")
        both = [self.first, *([self.second] if self.second else [])]
        if any(each.channels != 3 for each in both) or self.size % self.first.size:
            got = [(each.channels, each.size) for each in both]
            raise ConjureError("pictures have 3 channels, and the full side is a multiple of the small one; got "
                               f"channels and sides {got}")
        if not 0 <= self.drop < 1 or not 0 <= self.noise < 1:
            raise ConjureError(f"drop and noise: expected from 0 to below 1, got {self.drop} and {self.noise}")

    @property
    def size(self) -> int:
        """Side of the finished picture."""
        return self.second.size if self.second else self.first.size


class Enlarger(nn.Module):
    """forward(x_B3HW, t_B, small_B3hw, level_B, states, mask, summary) -> [B, 3, H, W]"""

    def __init__(self, config: DiTConfig, text: int) -> None:
        super().__init__()
        self.dit = DiT(config)
        self.small = Linear(config.channels * config.patch**2, config.dim, bias=False)
        self.level = Embedder(FEATURES, config.dim)
        self.states, self.summary = Linear(text, config.dim), Linear(text, config.dim)
        leave_to_adam(self.small.weight)

    def forward(
        self, x_B3HW: Tensor, t_B: Tensor, small_B3hw: Tensor, level_B: Tensor, states_BTD: Tensor, mask_BT: Tensor,
        summary_BD: Tensor,
    ) -> Tensor:  # fmt: skip
        """`small` has noise of `level` in it already."""
        config = self.dit.config
        large_B3HW = F.interpolate(small_B3hw, size=(config.size, config.size), mode="bilinear")
        guide_BNW = self.small(to_patches(large_B3HW, config.patch))
        told_BW = self.level(timestep_embedding(level_B * 1000, FEATURES).to(guide_BNW.dtype))
        return self.dit(x_B3HW, t_B, self.states(states_BTD), mask_BT, told_BW + self.summary(summary_BD), guide_BNW)


class CascadeNetwork(nn.Module):
    """Both networks and the text they share; to draw, call `read` once, then `first` and `second` per step."""

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        self.text = PictureText(config.text)
        self.first = DiT(config.first)
        self.second = Enlarger(config.second, config.text.dim) if config.second else None

    def read(self, words_BT: Tensor) -> Context:
        """(states [B, T, D], mask [B, T], summary [B, D]) of captions."""
        return self.text(words_BT)

    def forward(
        self, words_BT: Tensor, first_B3hw: Tensor, time_B: Tensor,
        second: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """What the first network makes of `first` at `time`, and the second one of its (x, t, small, level)."""
        context = self.read(words_BT)
        small = self.first(first_B3hw, time_B, *context)
        if self.second is None or second is None:
            return small, None
        return small, self.second(*second, *context)

    def flops(self, batch: int) -> float:
        """Multiply-adds times two of one forward pass over `batch` pictures and captions."""
        length = self.config.text.length
        second = 0.0 if self.second is None else self.second.dit.flops(batch, length)
        return self.text.flops(batch) + self.first.flops(batch, length) + second


def shrunk(x_B3HW: Tensor, side: int) -> Tensor:
    """The picture at a smaller side, each pixel the mean of those that it stands for."""
    return F.interpolate(x_B3HW, size=(side, side), mode="area")


def augmented(small_B3hw: Tensor, noise_B3hw: Tensor, level_B: Tensor) -> Tensor:
    """(1 - level) small + level noise: what the second network is shown of a small picture."""
    level = column(level_B, small_B3hw)
    return (1 - level) * small_B3hw + level * noise_B3hw
