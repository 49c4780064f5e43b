"""Classifier-free guidance: from what the network thinks without the prompt, towards and past what it thinks
with it.

Legend: B batch; x, x0 [B, ...]; condition: tensors [B, ...] that `denoise` takes after x and sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from conjure.diffusion.denoiser import Denoiser, column


def guided(
    denoise: Denoiser,
    scale: float,
    *,
    condition: Sequence[Tensor],
    unconditional: Sequence[Tensor],
    rescale: float = 0.0,
) -> Denoiser:
    """u + scale (c - u), where c, u = denoise(x, sigma, *condition), denoise(x, sigma, *unconditional).

    Ho and Salimans, arXiv 2207.12598, equation 6. Both run as one batch of 2 B, so the tensors of the two
    conditions must agree in shape. A negative prompt is its encoding given as `unconditional`. Scale 1 is the
    condition alone and costs one evaluation of B. `rescale` in [0, 1] moves the spread of each sample back
    towards that of c against overexposed pictures, Lin et al., arXiv 2305.08891, equations 15 and 16 (0.7 is
    typical there); it acts on x0, so it means the same for every flow.
    """
    if scale == 1:
        return replace(denoise, estimate=lambda x, sigma_B: denoise(x, sigma_B, *condition))
    both = [torch.cat(pair) for pair in zip(condition, unconditional, strict=True)]

    def estimate(x: Tensor, sigma_B: Tensor) -> Tensor:
        with_it, without = denoise(torch.cat([x, x]), torch.cat([sigma_B, sigma_B]), *both).chunk(2)
        x0 = without + scale * (with_it - without)
        return rescaled(x0, with_it, rescale) if rescale > 0 else x0

    return replace(denoise, estimate=estimate)


def rescaled(mixed: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Guided answers [B, ...] with the spread of each sample moved by `share` back to that of the condition alone.

    Lin et al., arXiv 2305.08891, equations 15 and 16. On the raw answers of a network it is what diffusers calls
    guidance_rescale; on estimates of the data it means the same for every flow.
    """
    ratio_B = conditional.flatten(1).std(1) / mixed.flatten(1).std(1)
    return mixed * column(1 + share * (ratio_B - 1), mixed)
