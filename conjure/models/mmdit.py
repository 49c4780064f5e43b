"""MMDiT: picture and context tokens, each with weights of their own, in one attention (Esser et al. 2024, arXiv
2403.03206): Stable Diffusion 3 and 3.5, and small ones of our own.

Legend: B batch, C channels, H and W sides of the latent, N patches, S context tokens, K width of the context, P width
of the pooled text, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.joint import JointBlock
from conjure.nn.linear import Linear
from conjure.nn.modulation import Embedder, Ending, leave_to_adam
from conjure.nn.pages import steady
from conjure.nn.patches import from_patches, grid, places, to_patches
from conjure.nn.position import timestep_embedding

FEATURES = 256


@dataclass(frozen=True, kw_only=True)
class MMDiTConfig:
    """Stable Diffusion 3 medium unless told otherwise."""

    channels: int = 16
    out_channels: int = 16
    patch: int = 2
    dim: int = 1536
    layers: int = 24
    heads: int = 24
    hidden: int | None = None
    """Width of the feed-forward layers; null is 4 dim."""
    context: int = 4096
    """Width of the context that comes in."""
    pooled: int = 2048
    """Width of a vector for the whole text, which joins the time; 0: there is none."""
    size: int = 128
    """Side of the latents it was trained on first; the table of places spreads theirs over its whole."""
    places: int = 192
    """Side of the table of places, in patches: the largest picture. Smaller ones use its middle."""
    qk_norm: bool = False
    """Queries and keys are normalised per head (SD 3.5)."""
    dual: tuple[int, ...] = ()
    """Blocks in which the picture also attends to itself alone (SD 3.5 medium)."""

    def __post_init__(self) -> None:
        if self.size % self.patch or self.dim % self.heads or self.dim % 4:
            raise ConjureError(f"model: expected patch to divide size, and heads and 4 to divide dim, got {self}")
        if self.layers < 1 or any(not 0 <= layer < self.layers for layer in self.dual):
            raise ConjureError(f"model.dual: expected numbers of the {self.layers} layers, got {self.dual}")

    @property
    def feedforward(self) -> int:
        return 4 * self.dim if self.hidden is None else self.hidden


class MMDiT(nn.Module):
    """forward(x_BCHW, t_B, context_BSK, pooled_BP) -> `[B, out_channels, H, W]`"""

    place_ND: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patches = Linear(c.channels * c.patch**2, c.dim)
        leave_to_adam(self.patches.weight)
        table = places(c.places, c.places, c.dim, c.size // c.patch)
        self.register_buffer("place_ND", table)  # public files hold it, though it could be computed
        self.time = Embedder(FEATURES, c.dim)
        self.pooled = Embedder(c.pooled, c.dim) if c.pooled else None
        self.context = Linear(c.context, c.dim)
        self.blocks = nn.ModuleList(
            JointBlock(c.dim, c.heads, c.feedforward, qk_norm=c.qk_norm, second=i in c.dual, last=i == c.layers - 1)
            for i in range(c.layers)
        )
        self.ending = Ending(c.dim, c.out_channels * c.patch**2)

    @steady
    def forward(
        self, x_BCHW: Tensor, t_B: Tensor, context_BSK: Tensor, pooled_BP: Tensor | None = None,
        mask_BS: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`t` is 0 to 1000, a thousand times the noise's share; `mask` is True where the context has a token (public
        models were trained without it)."""
        c = self.config
        height, width = grid(x_BCHW, c.patch)
        x_BND = self.patches(to_patches(x_BCHW, c.patch)) + self._places(height, width).to(x_BCHW.dtype)
        condition_BD = self.time(timestep_embedding(t_B, FEATURES).to(x_BND.dtype))
        if self.pooled is not None:
            assert pooled_BP is not None, "this network was trained with a pooled text"
            condition_BD = condition_BD + self.pooled(pooled_BP)
        context_BSD = self.context(context_BSK)
        mask_B11T = None
        if mask_BS is not None:
            mask_B11T = torch.cat([mask_BS, mask_BS.new_ones(x_BND.shape[:2])], dim=1)[:, None, None]
        for block in self.blocks:
            context_BSD, x_BND = block(context_BSD, x_BND, condition_BD, mask_B11T)
        return from_patches(self.ending(x_BND, condition_BD), height, width, c.patch)

    def flops(self, batch: int, height: int, width: int, context: int) -> float:
        """Multiply-adds times two of one forward pass over latents of H x W with `context` tokens."""
        c, d, n = self.config, self.config.dim, height * width // self.config.patch**2
        token = 4 * d**2 + 2 * d * c.feedforward
        joint = (n + context) * token + 2 * (n + context) ** 2 * d + 12 * d**2
        alone = n * 4 * d**2 + 2 * n**2 * d + 3 * d**2
        unheard = context * (token - 3 * d**2) + 4 * d**2  # what the last block has not got
        ends = n * d * (c.channels + c.out_channels) * c.patch**2 + context * c.context * d
        told = FEATURES * d + 3 * d**2 + (c.pooled * d + d**2 if c.pooled else 0)
        return 2.0 * batch * (c.layers * joint - unheard + len(set(c.dual)) * alone + ends + told)

    def _places(self, height: int, width: int) -> Tensor:
        """The middle of the table."""
        side = self.config.places
        if max(height, width) > side:
            most = side * self.config.patch
            raise ConjureError(f"expected latents of at most {most} x {most}, got {height * self.config.patch} x "
                               f"{width * self.config.patch}", hint="ask for a smaller picture")
        top, left = (side - height) // 2, (side - width) // 2
        table = self.place_ND.unflatten(0, (side, side))[top : top + height, left : left + width]
        return table.flatten(0, 1)
