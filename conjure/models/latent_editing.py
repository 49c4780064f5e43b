"""Edits of pictures by a public picture model: what it is started from, and what it is shown beside the noise.

In what order random numbers are drawn is that of diffusers, so a seed gives the same picture here and there.

Legend: B pictures, H and W in pixels, C channels, h and w in latents.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from conjure.diffusion.samplers import Draw, Step
from conjure.models.latent_diffusion import LatentDiffusion, Wish
from conjure.models.prompts import Condition


def redrawn(
    model: LatentDiffusion, told: Condition, without: Condition | None, wish: Wish, noise: Draw, pixels_BHWC: Tensor,
    tile: int = 0,
) -> Iterator[Step]:  # fmt: skip
    """A picture (uint8) with noise up to `wish.strength`, and what comes of it (SDEdit, arXiv 2108.01073)."""
    start = model.encode(pixels_BHWC, noise, tile)
    return _sampled(model, told, without, wish, noise, pixels_BHWC, start=start, drawn=noise(start.shape[1:]))


def inpainted(
    model: LatentDiffusion, told: Condition, without: Condition | None, wish: Wish, noise: Draw, pixels_BHWC: Tensor,
    open_HW: Tensor, tile: int = 0,
) -> Iterator[Step]:  # fmt: skip
    """Something new where `open` (bool) says so.

    A network that was taught to fill gaps is shown the mask and the picture with the gap in grey. Any other has what
    stays put back into every estimate (Song et al., arXiv 2011.13456, appendix I.2), latents that a gap touches being
    free as a whole. Pixels outside are near those that were there, not equal to them: paste the gap alone.
    """
    shape = model.latents(*open_HW.shape)
    open_B1HW = open_HW.float()[None, None].expand(len(pixels_BHWC), -1, -1, -1)
    if model.reads == "mask":
        start = model.encode(pixels_BHWC, noise, tile) if wish.strength < 1 else None
        drawn = noise(shape)
        grey = (pixels_BHWC.float() / 127.5 - 1) * ~open_HW[:, :, None]
        kept = model.autoencoder.to_latent(model.moments(grey, noise, tile))
        beside = torch.cat([nn.functional.interpolate(open_B1HW, shape[1:]).to(kept), kept], 1)
        return _sampled(model, told, without, wish, noise, pixels_BHWC, start=start, drawn=drawn, beside=beside)
    start = model.encode(pixels_BHWC, noise, tile)
    free = nn.functional.adaptive_max_pool2d(open_B1HW, shape[1:])
    return _sampled(model, told, without, wish, noise, pixels_BHWC, start=start, drawn=noise(shape), mask=free)


def instructed(
    model: LatentDiffusion, told: Condition, without: Condition | None, wish: Wish, noise: Draw, pixels_BHWC: Tensor,
    tile: int = 0,
) -> Iterator[Step]:  # fmt: skip
    """A picture changed as it is told, by a network that reads it beside the noise (InstructPix2Pix, Brooks et al.
    2023, arXiv 2211.09800)."""
    beside = model.moments(pixels_BHWC.float() / 127.5 - 1, tile=tile)
    return _sampled(model, told, without, wish, noise, pixels_BHWC, beside=beside)


def _sampled(
    model: LatentDiffusion, told: Condition, without: Condition | None, wish: Wish, noise: Draw, pixels_BHWC: Tensor,
    *, start: Tensor | None = None, drawn: Tensor | None = None, mask: Tensor | None = None,
    beside: Tensor | None = None,
) -> Iterator[Step]:  # fmt: skip
    height, width = pixels_BHWC.shape[1:3]
    return model.sample(told, without, wish, noise=noise, height=height, width=width, start=start, drawn=drawn,
                        mask=mask, beside=beside)  # fmt: skip
