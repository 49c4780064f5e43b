"""What diffusers' config.json says of U-Nets and ControlNets, and where their tensors lie in both layouts: that of
diffusers, and that of those who trained Stable Diffusion (`model.diffusion_model.`, `control_model.` in front)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from conjure.core.errors import ConjureError
from conjure.models.controlnet import ControlNetConfig
from conjure.models.public.names import Map, Rule, pointwise, rows, swapped, under
from conjure.models.public.settings import Settings
from conjure.models.unet import UNetConfig

Layout = Literal["diffusers", "original"]

FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"), "center_input_sample": (False,), "time_embedding_type": ("positional",),
    "time_embedding_dim": (), "time_embedding_act_fn": (), "timestep_post_act": (), "conv_in_kernel": (3,),
    "conv_out_kernel": (3,), "mid_block_scale_factor": (1,), "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,), "resnet_time_scale_shift": ("default", "scale_shift"),
    "dual_cross_attention": (False,), "cross_attention_norm": (), "attention_type": ("default",),
    "num_attention_heads": (), "reverse_transformer_layers_per_block": (), "mid_block_only_cross_attention": (False,),
    "encoder_hid_dim": (), "encoder_hid_dim_type": (), "class_embed_type": (), "class_embeddings_concat": (False,),
    "addition_embed_type": ("text_time",), "downsample_padding": (0, 1), "downsample_type": ("conv",),
    "upsample_type": ("conv",), "add_attention": (True,), "attn_norm_num_groups": (), "freq_shift": (0, 1),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
}  # fmt: skip
"""What a U-Net may say here besides null; all else is of families that are not built."""
BLOCKS = {"DownBlock2D": "UpBlock2D", "CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "AttnDownBlock2D": "AttnUpBlock2D"}
DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
PIXEL_DOWN = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")


def unet_config(config: Mapping[str, Any]) -> UNetConfig:
    """From the config.json of a `UNet2DConditionModel` or of a `UNet2DModel` (pixels, no context)."""
    said = Settings(config)
    _refuse(said)
    pixel = said.get("_class_name") == "UNet2DModel"
    down = tuple(said.get("down_block_types", default=PIXEL_DOWN if pixel else DOWN))
    allowed = ("DownBlock2D", "AttnDownBlock2D" if pixel else "CrossAttnDownBlock2D")
    up = tuple(said.get("up_block_types", default=[BLOCKS.get(kind) for kind in reversed(down)]))
    if any(kind not in allowed for kind in down) or up != tuple(BLOCKS[kind] for kind in reversed(down)):
        raise ConjureError(f"config.json: expected down_block_types of {' and '.join(allowed)} and the same on the way "
                           f"up, got {list(down)} and {list(up)}")
    levels = len(down)
    widths = _each(said, "block_out_channels", (224, 448, 672, 896) if pixel else (320, 640, 1280, 1280), levels)
    layers = (1,) * levels if pixel else _each(said, "transformer_layers_per_block", 1, levels)
    only = (False,) * levels if pixel else _each(said, "only_cross_attention", False, levels)
    if not isinstance(said.get("only_cross_attention", default=False), bool):
        last = False
    else:
        last = only[-1]
    if last:
        raise ConjureError("config.json: only_cross_attention everywhere: such networks are not built")
    middle = _middle(config, layers[-1], pixel)
    return UNetConfig(
        channels=said.integer("in_channels", default=3 if pixel else 4),
        channels_out=said.integer("out_channels", default=3 if pixel else 4),
        widths=widths, residuals=_each(said, "layers_per_block", 2, levels)[0],
        depth=tuple(0 if kind == "DownBlock2D" else each for kind, each in zip(down, layers, strict=True)),
        middle=middle, heads=_heads(said, widths, pixel),
        context=0 if pixel else _each(said, "cross_attention_dim", 1280, levels)[0],
        context_only=only if any(only) else (),
        added=said.integer("projection_class_embeddings_input_dim") if said.has("addition_embed_type") else 0,
        size_width=said.integer("addition_time_embed_dim", default=256),
        classes=said.integer("num_class_embeds", default=0, least=0),
        guidance=said.integer("time_cond_proj_dim", default=0, least=0),
        groups=said.integer("norm_num_groups", default=32), eps=said.number("norm_eps", default=1e-5),
        dropout=said.number("dropout", default=0.0),
        scales=said.get("resnet_time_scale_shift") == "scale_shift",
        cosine_first=said.flag("flip_sin_to_cos", default=True),
        spacing=said.integer("freq_shift", default=0, least=0),
        lopsided=said.get("downsample_padding", default=1) == 0,
    )  # fmt: skip


def controlnet_config(config: Mapping[str, Any]) -> ControlNetConfig:
    """From the config.json of a `ControlNetModel`."""
    said = Settings(config)
    return ControlNetConfig(
        unet=unet_config({**config, "up_block_types": None}),
        hint_channels=said.integer("conditioning_channels", default=3),
        hint_widths=tuple(said.get("conditioning_embedding_out_channels", default=(16, 32, 96, 256))),
        reversed_colours=said.get("controlnet_conditioning_channel_order") == "bgr",
        averaged=said.flag("global_pool_conditions", default=False),
    )


def unet_names(config: UNetConfig, layout: Layout = "diffusers", *, linear: bool = False, old: bool = False) -> Map:
    """The map of a `UNet`. `linear` (`use_linear_projection`) decides only what is written; both are read. `old`: see
    `old_names`."""
    names = _encoder(config, layout, linear, old)
    places = _Places(layout)
    names |= {"norm_out": places("conv_norm_out", "out.0"), "out": places("conv_out", "out.2")}
    at = 0
    for level in reversed(range(len(config.widths))):
        block = len(config.widths) - 1 - level
        for j in range(config.residuals + 1):
            attends = config.depth[level] > 0
            names |= _residual(f"up.{at}.", places(f"up_blocks.{block}.resnets.{j}.", f"output_blocks.{at}.0."), layout)
            if attends:
                where = places(f"up_blocks.{block}.attentions.{j}.", f"output_blocks.{at}.1.")
                names |= _attention(f"up.{at}.", where, config, config.depth[level], _only(config, level), linear, old)
            names[f"up.{at}.resample.conv"] = places(f"up_blocks.{block}.upsamplers.0.conv",
                                                     f"output_blocks.{at}.{1 + attends}.conv")
            at += 1
    return names


def controlnet_names(
    config: ControlNetConfig, layout: Layout = "diffusers", *, linear: bool = False, old: bool = False
) -> Map:
    """The map of a `ControlNet`."""
    places = _Places(layout)
    names = _encoder(config.unet, layout, linear, old)
    hint, count = "controlnet_cond_embedding", 2 * (len(config.hint_widths) - 1)
    names |= {"hint.start": places(f"{hint}.conv_in", "input_hint_block.0"),
              "hint.out": places(f"{hint}.conv_out", f"input_hint_block.{2 * count + 2}"),
              "middle_out": places("controlnet_mid_block", "middle_block_out.0"),
              "outs.{i}": places("controlnet_down_blocks.{i}", "zero_convs.{i}.0")}
    names |= {f"hint.layers.{k}": places(f"{hint}.blocks.{k}", f"input_hint_block.{2 * k + 2}") for k in range(count)}
    return names


def old_names(names: Iterable[str]) -> bool:
    """Whether attention over pixels is called as in the first files of diffusers: query, key, value and proj_attn."""
    return any(name.endswith(".proj_attn.weight") for name in names)


def pixel_attention(where: str, *, old: bool = False) -> Map:
    """The map of a `PixelAttention` in diffusers' layout."""
    parts = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")
    q, k, v, out = (where + part for part in parts)
    return {"norm": where + "group_norm", "attention.qkv": pointwise(q, k, v, convolution=False),
            "attention.out": pointwise(out, convolution=False)}


class _Places:
    """Picks one of two names."""

    def __init__(self, layout: Layout) -> None:
        self.original = layout == "original"

    def __call__(self, diffusers: str, original: str) -> str:
        return original if self.original else diffusers


def _encoder(config: UNetConfig, layout: Layout, linear: bool, old: bool) -> Map:
    """What a `ControlNet` has as well: condition, start, way down, middle."""
    if layout == "original" and not config.context and any((*config.depth, config.middle)):
        raise ConjureError("networks over pixels have no layout but that of diffusers")
    places = _Places(layout)
    names: Map = {
        "start": places("conv_in", "input_blocks.0.0"),
        "condition.time1": places("time_embedding.linear_1", "time_embed.0"),
        "condition.time2": places("time_embedding.linear_2", "time_embed.2"),
        "condition.guidance": places("time_embedding.cond_proj", "time_embed.cond_proj"),
        "condition.labels": places("class_embedding", "label_emb"),
        "condition.added1": places("add_embedding.linear_1", "label_emb.0.0"),
        "condition.added2": places("add_embedding.linear_2", "label_emb.0.2"),
    }
    at = 0
    for level, depth in enumerate(config.depth):
        for j in range(config.residuals):
            where = places(f"down_blocks.{level}.resnets.{j}.", f"input_blocks.{at + 1}.0.")
            names |= _residual(f"down.{at}.", where, layout)
            if depth:
                where = places(f"down_blocks.{level}.attentions.{j}.", f"input_blocks.{at + 1}.1.")
                names |= _attention(f"down.{at}.", where, config, depth, _only(config, level), linear, old)
            at += 1
        names[f"down.{at}.resample.conv"] = places(f"down_blocks.{level}.downsamplers.0.conv",
                                                   f"input_blocks.{at + 1}.0.op")
        at += 1
    names |= _residual("middle.", places("mid_block.resnets.0.", "middle_block.0."), layout, "first")
    names |= _residual("middle.", places("mid_block.resnets.1.", "middle_block.2."), layout, "second")
    if config.middle:
        where = places("mid_block.attentions.0.", "middle_block.1.")
        names |= _attention("middle.", where, config, config.middle, False, linear, old)
    return names


def _residual(ours: str, where: str, layout: Layout, name: str = "residual") -> Map:
    places = _Places(layout)
    return under(where, {
        "norm1": places("norm1", "in_layers.0"), "conv1": places("conv1", "in_layers.2"),
        "time": places("time_emb_proj", "emb_layers.1"), "norm2": places("norm2", "out_layers.0"),
        "conv2": places("conv2", "out_layers.3"), "skip": places("conv_shortcut", "skip_connection"),
    }, f"{ours}{name}.")  # fmt: skip


def _attention(
    ours: str, where: str, config: UNetConfig, layers: int, context_only: bool, linear: bool, old: bool
) -> Map:
    """Both layouts call a transformer alike."""
    ours += "attention."
    if not config.context:
        return under("", pixel_attention(where, old=old), ours)
    names: Map = {"norm": "norm", "project_in": pointwise("proj_in", convolution=not linear),
                  "project_out": pointwise("proj_out", convolution=not linear)}
    for k in range(layers):
        names |= under(f"transformer_blocks.{k}.", _block(context_only), f"blocks.{k}.")
    return under(where, names, ours)


def _block(context_only: bool) -> dict[str, Rule | str]:
    first: dict[str, Rule | str] = {"attention1.qkv": rows("attn1.to_q", "attn1.to_k", "attn1.to_v")}
    if context_only:
        first = {"attention1.q": "attn1.to_q", "attention1.kv": rows("attn1.to_k", "attn1.to_v")}
    return {
        **first, "attention1.out": "attn1.to_out.0", "attention2.q": "attn2.to_q",
        "attention2.kv": rows("attn2.to_k", "attn2.to_v"), "attention2.out": "attn2.to_out.0", "norm1": "norm1",
        "norm2": "norm2", "norm3": "norm3", "feedforward.up": swapped("ff.net.0.proj"), "feedforward.down": "ff.net.2",
    }  # fmt: skip


def _only(config: UNetConfig, level: int) -> bool:
    return bool(config.context_only) and config.context_only[level]


# -- config.json -------------------------------------------------------------------------------------------------------


def _refuse(said: Settings) -> None:
    """What is not built is refused by name rather than computed wrongly."""
    for name, allowed in FIXED.items():
        value = said.get(name)
        if value is not None and value not in allowed:
            wanted = " or ".join(repr(each) for each in allowed) or "null"
            raise ConjureError(f"config.json: {name}: expected {wanted}, got {value!r}",
                               hint="this U-Net is of a family that is not built")
    if said.get("_class_name") == "UNet2DModel" and said.get("resnet_time_scale_shift") == "scale_shift":
        raise ConjureError("config.json: a UNet2DModel with resnet_time_scale_shift 'scale_shift' is not built")


def _each(said: Settings, name: str, default: Any, levels: int) -> tuple[Any, ...]:
    """A value for each level: one is for all of them."""
    value = said.get(name, default=default)
    found = tuple(value) if isinstance(value, list | tuple) else (value,) * levels
    kind = bool if name == "only_cross_attention" else int
    if len(found) != levels or any(type(each) is not kind for each in found):
        raise ConjureError(f"config.json: {name}: expected a value or one for each of {levels} levels, got {value!r}")
    if name in ("layers_per_block", "cross_attention_dim") and len(set(found)) > 1:
        raise ConjureError(f"config.json: {name}: expected the same for all levels, got {value!r}")
    return found


def _heads(said: Settings, widths: tuple[int, ...], pixel: bool) -> tuple[int, ...]:
    """`attention_head_dim` is the number of heads of networks that read a context, and the width of one in others."""
    if not pixel:
        return _each(said, "attention_head_dim", 8, len(widths))
    if "attention_head_dim" in said.values and said.values["attention_head_dim"] is None:
        return (1,) * len(widths)
    size = said.integer("attention_head_dim", default=8)
    return tuple(max(width // size, 1) for width in widths)


def _middle(config: Mapping[str, Any], layers: int, pixel: bool) -> int | None:
    kind = config.get("mid_block_type", "UNetMidBlock2D" if pixel else "UNetMidBlock2DCrossAttn")
    if kind is None:
        return None
    if pixel:
        return 1
    return layers if kind == "UNetMidBlock2DCrossAttn" else 0
