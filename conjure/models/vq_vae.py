"""Autoencoder of small pictures whose latents are numbers of codes, four pixels to a code (van den Oord et al. 2017,
arXiv 1711.00937). The decoder gives each value a logistic distribution, so reconstructions have a likelihood.

Legend: B batch, C image channels, H and W pixels, h = H/4, w = W/4, D width of a code, N vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.metrics.bits import logistic_nats
from conjure.models.folder import load_weights, read_config
from conjure.nn.convolution import ResidualBlock
from conjure.nn.vector_quantiser import VectorQuantiser

DOWNSCALE = 4  # pixels per code, by construction
LOG_SCALES = (-7.0, 2.0)  # of the logistic distributions, in units of half the range


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig:
    channels: int = 3
    width: int = 64
    blocks: int = 2
    """Residual blocks on the coarse grid, in the encoder and in the decoder."""
    codes: int = 512
    code_dim: int = 32
    commitment: float = 0.25
    """Weight of the distance of the encoder's vectors to their codes."""
    decay: float = 0.98
    """Of the codes' moving average, for each forward pass."""
    dead: float = 0.05
    """A code below this part of the mean use is placed anew."""

    def __post_init__(self) -> None:
        for name in ("channels", "width", "codes", "code_dim"):
            if getattr(self, name) < 1:
                raise ConjureError(f"model.{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.decay < 1 or not 0 <= self.dead < 1 or self.commitment < 0:
            raise ConjureError("model: expected decay and dead in [0, 1), commitment not below 0")


class VQVAE(nn.Module):
    """forward(x_BCHW) -> nats of each value `[B, C, H, W]`, the commitment `[B]`, the codes' numbers `[B, h, w]`."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(4 * c.channels, c.width // 2, 3, padding=1), nn.SiLU(),
            nn.PixelUnshuffle(2), nn.Conv2d(c.width // 2 * 4, c.width, 3, padding=1),
            *(ResidualBlock(c.width) for _ in range(c.blocks)),
            nn.SiLU(), nn.Conv2d(c.width, c.code_dim, 1),
        )  # fmt: skip
        self.quantiser = VectorQuantiser(c.codes, c.code_dim, decay=c.decay, dead=c.dead)
        self.decoder = nn.Sequential(
            nn.Conv2d(c.code_dim, c.width, 3, padding=1), *(ResidualBlock(c.width) for _ in range(c.blocks)),
            nn.SiLU(), nn.Conv2d(c.width, c.width // 2 * 4, 3, padding=1), nn.PixelShuffle(2),
            nn.SiLU(), nn.Conv2d(c.width // 2, 4 * 2 * c.channels, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None and not module.weight.is_meta:
                nn.init.zeros_(module.bias)
                if module.weight.any():  # all but what starts at zero
                    nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Pixels in [-1, 1] -> the numbers of the codes, int64 `[B, h, w]`. Sides must be multiples of 4."""
        z_BDhw = self._vectors(x_BCHW)
        return self.quantiser.nearest(z_BDhw.movedim(1, -1).flatten(0, 2)).view(-1, *z_BDhw.shape[2:])

    def decode(self, ids_Bhw: Tensor) -> Tensor:
        """The likeliest picture: pixels in about [-1, 1], `[B, C, H, W]`."""
        return self._distribution(self.quantiser.vectors(ids_Bhw).movedim(-1, 1))[0]

    def nats(self, x_BCHW: Tensor, ids_Bhw: Tensor) -> Tensor:
        """-log p of each value given the codes, `[B, C, H, W]`."""
        return logistic_nats(x_BCHW, *self._distribution(self.quantiser.vectors(ids_Bhw).movedim(-1, 1)))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BDhw, ids_Bhw, commitment_B = self.quantiser(self._vectors(x_BCHW))
        return logistic_nats(x_BCHW, *self._distribution(q_BDhw)), commitment_B, ids_Bhw

    @torch.no_grad()
    def start_from(self, x_BCHW: Tensor) -> None:
        """Codes where the encoder puts these pictures."""
        z_BDhw = self._vectors(x_BCHW)
        self.quantiser.start_from(z_BDhw.movedim(1, -1).flatten(0, 2))

    def flops(self, cells: int) -> float:
        """Multiply-adds times two of encoding and decoding `cells` codes (H W / 16 for one picture)."""
        c = self.config
        coarse = 4 * 9 * c.width**2 + 2 * c.blocks * 18 * c.width**2  # at one place of the coarse grid
        coarse += 10 * c.width * c.code_dim + c.codes * c.code_dim
        fine = 4 * 9 * c.width // 2 * (4 + 8) * c.channels
        return 2.0 * cells * (coarse + fine)

    def _vectors(self, x_BCHW: Tensor) -> Tensor:
        height, width = x_BCHW.shape[-2:]
        if height % DOWNSCALE or width % DOWNSCALE:
            raise ConjureError(f"expected sides that are multiples of {DOWNSCALE}, got {width} x {height} pixels",
                               hint="pad or resize the picture")
        return self.encoder(x_BCHW)

    def _distribution(self, q_BDhw: Tensor) -> tuple[Tensor, Tensor]:
        mean_BCHW, log_scale_BCHW = self.decoder(q_BDhw).chunk(2, dim=1)
        # At the start a scale of about 0.3: flat enough that no value costs much.
        return mean_BCHW, (log_scale_BCHW - 1.2).clamp(*LOG_SCALES)


def load_vq_vae(folder: Path) -> VQVAE:
    """Ready for use, from its own folder or that of a model that draws its codes; `ConjureError` where it has none."""
    network = VQVAE(from_dict(VQVAEConfig, read_config(folder).get("codec", {}), where="codec"))
    load_weights(network, folder / "codec.safetensors")
    return network.eval().requires_grad_(False)
