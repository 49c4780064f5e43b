"""What drawing a picture takes, by the files of a model alone: operations, memory, parameters.

Operations are counted by running the networks on the meta device, where nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from conjure.models.controlnet import ControlNet, ControlNetConfig
from conjure.models.prompts import LENGTHS
from conjure.models.public.denoisers import autoencoder_laid_out, laid_out
from conjure.models.public.diffusers import Pipeline
from conjure.models.public.single_file import SIZES

FLOATS = 40
"""Maps of its first width that a U-Net holds at a time, skips and all: 391 MiB were measured for two pictures of
64 x 64 latents at the sizes of Stable Diffusion 1."""
WIDTHS = 10
"""The same for transformers, in widths of a token: keys, values, the feed-forward layer."""
WIDEST = {"sd3": 2432, "flux": 3072}
"""Width of a token where a file does not say it: that of the largest there is."""
TEXT = 77
"""Tokens of a prompt, as a rule."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    step_flops: float
    """One evaluation for one picture, without what guidance adds."""
    decode_flops: float
    encode_flops: float
    memory: int
    """Bytes of activations."""


def of(pipeline: Pipeline, height: int, width: int, tile: int = 0) -> Cost:
    """For pictures of this size."""
    network, _ = laid_out(pipeline)
    decoder, _ = autoencoder_laid_out(pipeline)
    by = decoder.config.shrink
    latents = torch.empty(1, decoder.config.latent, height // by, width // by, device="meta")
    pixels = torch.empty(1, decoder.config.channels, height, width, device="meta")
    return Cost(step_flops=_flops(lambda: _step(network, pipeline, latents)),
                decode_flops=_flops(lambda: decoder.decode(latents)),
                encode_flops=_flops(lambda: decoder.encode(pixels)[0]),
                memory=memory(pipeline, height, width, tile))  # fmt: skip


def distilled(pipeline: Pipeline) -> bool:
    """Whether guidance is told to the network, and costs nothing."""
    return pipeline.kind == "flux" or bool(pipeline.kind == "sd" and pipeline.network.config.get("time_cond_proj_dim"))


def _step(network: Any, pipeline: Pipeline, latents: Tensor) -> Any:
    """One evaluation of the denoiser, or of what steers it, for a prompt of a usual length."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(1, *shape, device="meta")

    kind, config = pipeline.kind, getattr(network.config, "unet", network.config)
    if kind == "dit":
        return network(latents, empty(), empty().long())
    if kind in ("sd3", "flux"):
        told = (empty(TEXT + LENGTHS[kind], config.context), empty(config.pooled))
        return network(latents, empty(), *told) if kind == "sd3" else network(latents, empty(), *told, empty())
    x = torch.empty(1, config.channels, *latents.shape[2:], device="meta")
    context = empty(TEXT, config.context)
    more = {"guidance_B": empty()} if config.guidance else {}
    if isinstance(network, ControlNet):
        by = network.config.shrink
        more["hint_BCHW"] = empty(network.config.hint_channels, x.shape[2] * by, x.shape[3] * by)
    if kind == "sd":
        return network(x, empty(), context, **more)
    pooled = empty(config.added - SIZES * config.size_width)
    return network(x, empty(), context, pooled_BP=pooled, sizes_BN=empty(SIZES), **more)


def steering(config: ControlNetConfig, pipeline: Pipeline, height: int, width: int) -> tuple[float, int]:
    """Operations of one evaluation of a ControlNet for one picture, and its parameters."""
    with torch.device("meta"):
        network = ControlNet(config)
        by = shrink(pipeline)
        latents = torch.empty(1, config.unet.channels, height // by, width // by)
    return _flops(lambda: _step(network, pipeline, latents)), sum(each.numel() for each in network.parameters())


def shrink(pipeline: Pipeline) -> int:
    """Pixels to a latent along each side."""
    config = pipeline.parts["vae"].config
    return 2 ** (len(config.get("block_out_channels") or config.get("encoder_block_out_channels") or (0, 0, 0, 0)) - 1)


def parameters(pipeline: Pipeline) -> int:
    """Numbers in all parts that are read."""
    return sum(torch.Size(part.tensors.shape(name)).numel() for part in pipeline.parts.values()
               for name in part.tensors.names())  # fmt: skip


def memory(pipeline: Pipeline, height: int, width: int, tile: int = 0) -> int:
    """Bytes of activations, of the denoiser or of the decoder, whichever has more."""
    config, by = pipeline.parts["vae"].config, shrink(pipeline)
    first, second = [*(config.get("block_out_channels") or (64, 64)), 64][:2]
    # Where a decoder is widest it holds the state, what a norm made of it, a convolution's input and its output; in
    # bands the state before and behind alone is whole.
    rows = min(height, tile * by) if tile else height
    whole = height * (first + second) if tile else 0
    decoder = 4 * width * (rows * (3 * second + 2 * first) + whole)
    return max(decoder, 4 * 2 * (height // by) * (width // by) * _held(pipeline))


def _held(pipeline: Pipeline) -> int:
    """Floats for each latent of the denoiser's input."""
    config = pipeline.network.config
    if "block_out_channels" in config:
        return FLOATS * config["block_out_channels"][0]
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    dim = heads * width if heads and width else WIDEST[pipeline.kind]
    return WIDTHS * dim // 4  # a token is 2 x 2 latents


def _flops(call: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        call()
    return float(counter.get_total_flops())
