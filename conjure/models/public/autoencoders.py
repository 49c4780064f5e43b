"""What diffusers' config.json says of picture autoencoders, and where their tensors lie: in diffusers' layout, and in
that of those who trained them (`first_stage_model.` in front, or nothing)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conjure.core.errors import ConjureError
from conjure.models.autoencoder_kl import AutoencoderKLConfig
from conjure.models.public.names import Map, pointwise, under
from conjure.models.public.settings import Settings
from conjure.models.public.unets import Layout, pixel_attention
from conjure.models.taesd import TinyAutoencoderConfig


def autoencoder_config(config: Mapping[str, Any]) -> AutoencoderKLConfig:
    """From the config.json of an `AutoencoderKL`."""
    said = Settings(config)
    widths = tuple(said.get("block_out_channels", default=(64,)))
    wanted = {"down_block_types": ["DownEncoderBlock2D"] * len(widths),
              "up_block_types": ["UpDecoderBlock2D"] * len(widths), "act_fn": "silu", "latents_mean": None,
              "latents_std": None}
    for name, value in wanted.items():
        got = said.get(name, default=value)
        if (list(got) if isinstance(got, tuple) else got) != value:
            raise ConjureError(f"config.json: {name}: expected {value!r}, got {got!r}",
                               hint="this autoencoder is of a family that is not built")
    channels = said.integer("in_channels", default=3)
    if said.integer("out_channels", default=3) != channels:
        raise ConjureError("config.json: expected as many out_channels as in_channels")
    return AutoencoderKLConfig(
        channels=channels, latent=said.integer("latent_channels", default=4), widths=widths,
        residuals=said.integer("layers_per_block", default=1), groups=said.integer("norm_num_groups", default=32),
        attends=said.flag("mid_block_add_attention", default=True),
        mixed_in=said.flag("use_quant_conv", default=True), mixed_out=said.flag("use_post_quant_conv", default=True),
        scale=said.number("scaling_factor", default=0.18215), shift=said.number("shift_factor", default=0.0),
        overflows=said.flag("force_upcast", default=True),
    )  # fmt: skip


def tiny_config(config: Mapping[str, Any]) -> TinyAutoencoderConfig:
    """From the config.json of an `AutoencoderTiny`."""
    said = Settings(config)
    for name, value in {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2}.items():
        if (got := said.get(name, default=value)) != value:
            raise ConjureError(f"config.json: {name}: expected {value!r}, got {got!r}",
                               hint="this autoencoder is of a family that is not built")
    channels = said.integer("in_channels", default=3)
    if said.integer("out_channels", default=3) != channels:
        raise ConjureError("config.json: expected as many out_channels as in_channels")
    return TinyAutoencoderConfig(
        channels=channels, latent=said.integer("latent_channels", default=4),
        widths_in=tuple(said.get("encoder_block_out_channels", default=(64,) * 4)),
        widths_out=tuple(said.get("decoder_block_out_channels", default=(64,) * 4)),
        blocks_in=tuple(said.get("num_encoder_blocks", default=(1, 3, 3, 3))),
        blocks_out=tuple(said.get("num_decoder_blocks", default=(3, 3, 3, 1))),
        scale=said.number("scaling_factor", default=1.0), shift=said.number("shift_factor", default=0.0),
    )  # fmt: skip


def autoencoder_names(config: AutoencoderKLConfig, layout: Layout = "diffusers", *, old: bool = False) -> Map:
    """The map of an `AutoencoderKL`. `old` (`unets.old_names`): attention is called as in the first files of
    diffusers."""
    original, levels = layout == "original", len(config.widths)
    names: Map = {"mix_in": "quant_conv", "mix_out": "post_quant_conv"}
    for half, way in (("encoder.", "down"), ("decoder.", "up")):
        names |= {f"{half}start": f"{half}conv_in", f"{half}out": f"{half}conv_out",
                  f"{half}norm_out": half + ("norm_out" if original else "conv_norm_out")}
        middle = f"{half}mid." if original else f"{half}mid_block."
        for k, ours in enumerate(("first", "second")):
            where = f"{middle}block_{k + 1}." if original else f"{middle}resnets.{k}."
            names |= under(where, _residual(original), f"{half}middle.{ours}.")
        attention = _original_attention(f"{middle}attn_1.") if original else \
            pixel_attention(f"{middle}attentions.0.", old=old)
        names |= under("", attention, f"{half}middle.attention.")
        for level in range(levels):
            there = level if way == "down" else levels - 1 - level  # the first called levels of both halves alike
            block = f"{half}{way}.{there}." if original else f"{half}{way}_blocks.{level}."
            for j in range(config.residuals + (way == "up")):
                where = f"{block}block.{j}." if original else f"{block}resnets.{j}."
                names |= under(where, _residual(original), f"{half}{way}.{level}.residuals.{j}.")
            resample = f"{way}sample.conv" if original else f"{way}samplers.0.conv"
            names[f"{half}{way}.{level}.resample.conv"] = block + resample
    return names


def tiny_names(config: TinyAutoencoderConfig, layout: Layout = "diffusers") -> Map:
    """The map of a `TinyAutoencoder`. In the original layout each half is a file, and `encoder.` or `decoder.` has to
    be put before its names."""
    names: Map = {}
    for half, counts in (("encoder", config.blocks_in), ("decoder", config.blocks_out)):
        first = int(half == "decoder" and layout == "original")  # there the clamp counts as a layer
        where = half if layout == "original" else f"{half}.layers"
        names[f"{half}.start"] = f"{where}.{first}"
        at = first + (2 if half == "decoder" else 1)  # behind the convolution, or behind it and its activation
        for level, blocks in enumerate(counts):
            if half == "encoder" and level:
                names[f"{half}.levels.{level}.resize"] = f"{where}.{at}"
                at += 1
            for k in range(blocks):
                block = f"{half}.levels.{level}.blocks.{k}."
                names |= {f"{block}conv{n + 1}": f"{where}.{at}.conv.{2 * n}" for n in range(3)}
                at += 1
            if half == "decoder" and level < len(counts) - 1:
                names[f"{half}.levels.{level}.resize"] = f"{where}.{at + 1}"
                at += 2
        names[f"{half}.out"] = f"{where}.{at}"
    return names


def _residual(original: bool) -> dict[str, Any]:
    return {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2",
            "skip": "nin_shortcut" if original else "conv_shortcut"}


def _original_attention(where: str) -> Map:
    """Matrices are 1x1 convolutions there."""
    return {"norm": f"{where}norm", "attention.qkv": pointwise(*(f"{where}{part}" for part in "qkv")),
            "attention.out": pointwise(f"{where}proj_out")}
