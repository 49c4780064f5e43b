"""DiT, Stable Diffusion 3 and Flux: the configs that diffusers writes, and the names of their tensors in its folders
and in the single files of those who trained them.

A single file has no config; what it is, is read from the shapes in it (`*_shapes`). Its names are given without the
prefix `model.diffusion_model.` that files of whole pipelines put before them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.class_dit import ClassDiTConfig
from conjure.models.flux import FluxConfig
from conjure.models.mmdit import MMDiTConfig
from conjure.models.public.names import Map, Pieces, Rule, Shape, regrouped, rows, under
from conjure.models.public.settings import Settings

PREFIX = "model.diffusion_model."
DIT_COMPUTED = ("pos_embed",)
"""A tensor of DiT's single files that is computed here, and is not written."""
MOST = 1 << 16


# -- rules -------------------------------------------------------------------------------------------------------------


def patches(disk: str, patch: int) -> Rule:
    """A convolution whose stride is its kernel, as a matrix over patches."""

    def read(pieces: Pieces) -> Tensor:
        return pieces[0].flatten(1) if pieces[0].dim() == 4 else pieces[0]

    def write(tensor: Tensor) -> Pieces:
        return [tensor.reshape(tensor.shape[0], -1, patch, patch) if tensor.dim() == 2 else tensor]

    def shaped(shapes: list[Shape]) -> Shape | None:
        return (shapes[0][0], math.prod(shapes[0][1:])) if len(shapes[0]) == 4 else shapes[0]

    return Rule((disk,), read, write, shaped=shaped)


def to_pixels(disk: str, patch: int) -> Rule:
    """Rows for (row, column, channel) of a patch there, for (channel, row, column) here."""
    return regrouped(disk, (patch**2, -1), (1, 0))


def exchanged(disk: str) -> Rule:
    """Scale and shift there, shift and scale here."""

    def turn(pieces: Pieces) -> Tensor:
        return torch.cat(pieces[0].chunk(2)[::-1])

    return Rule((disk,), turn, lambda tensor: [turn([tensor])], shaped=lambda shapes: shapes[0])


def copies(disk: str, count: int) -> Rule:
    """One module that every block has a copy of, `{n}` of them on disk."""

    def read(pieces: Pieces) -> Tensor:
        if any(not torch.equal(piece, pieces[0]) for piece in pieces[1:]):
            raise ConjureError(f"{disk.format(n='*')}: expected the same values in every block, got several",
                               hint="the network of such a file has no name; fetch the model again")
        return pieces[0]

    def shaped(shapes: list[Shape]) -> Shape | None:
        return shapes[0] if len(set(shapes)) == 1 else None

    return Rule(tuple(disk.format(n=n) for n in range(count)), read, lambda tensor: [tensor] * count, shaped=shaped)


def table(disk: str) -> Rule:
    """Places [1, N, D] on disk."""
    return Rule((disk,), lambda pieces: pieces[0][0], lambda tensor: [tensor[None]], {"place_ND": ""},
                shaped=lambda shapes: shapes[0][1:])  # fmt: skip


def scale(disk: str) -> Rule:
    """A norm whose weight is called scale."""
    return Rule((disk,), suffixes={"weight": ".scale"}, shaped=lambda shapes: shapes[0])


def _query_key_value(prefix: str) -> Rule:
    return rows(*(f"{prefix}to_{which}" for which in "qkv"))


_FEEDFORWARD = {"feedforward.up": "net.0.proj", "feedforward.down": "net.2"}


# -- DiT ---------------------------------------------------------------------------------------------------------------


def class_dit_config(config: Mapping[str, Any]) -> ClassDiTConfig:
    """transformer/config.json of `DiTTransformer2DModel`, or of the older `Transformer2DModel` of DiT."""
    said = Settings(config)
    _expect(said, {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True,
                   "norm_elementwise_affine": False})  # fmt: skip
    heads, channels = said.integer("num_attention_heads", default=16), said.integer("in_channels", default=4)
    size, dim = said.integer("sample_size", default=32), heads * said.integer("attention_head_dim", default=72)
    old = said.get("_class_name") == "Transformer2DModel"
    return ClassDiTConfig(
        channels=channels, out_channels=said.integer("out_channels", default=channels), size=size,
        patch=said.integer("patch_size", default=2), dim=dim, hidden=4 * dim, heads=heads,
        layers=said.integer("num_layers", default=28, most=MOST),
        classes=said.integer("num_embeds_ada_norm", default=1000), eps=said.number("norm_eps", default=1e-5),
        spread=said.number("interpolation_scale", default=max(size // 64, 1) if old else 1), frequencies=127,
    )  # fmt: skip


def class_dit_names(config: ClassDiTConfig) -> Map:
    """As diffusers stores DiT. Each block has its own copy of the embeddings there."""
    told = "transformer_blocks.{n}.norm1.emb."
    block: dict[str, Rule | str] = {
        "modulation.linear": "norm1.linear", "heads.qkv": _query_key_value("attn1."), "heads.out": "attn1.to_out.0",
        **{name: "ff." + disk for name, disk in _FEEDFORWARD.items()},
    }  # fmt: skip
    return {
        "patches": patches("pos_embed.proj", config.patch),
        "time.up": copies(told + "timestep_embedder.linear_1", config.layers),
        "time.down": copies(told + "timestep_embedder.linear_2", config.layers),
        "labels": copies(told + "class_embedder.embedding_table", config.layers),
        **under("transformer_blocks.{i}.", block),
        "ending.modulation.linear": "proj_out_1",
        "ending.linear": to_pixels("proj_out_2", config.patch),
    }


def class_dit_original(config: ClassDiTConfig) -> Map:
    """As the paper's authors store DiT; `DIT_COMPUTED` stands beside it."""
    block: dict[str, Rule | str] = {
        "modulation.linear": "adaLN_modulation.1", "heads.qkv": "attn.qkv", "heads.out": "attn.proj",
        "feedforward.up": "mlp.fc1", "feedforward.down": "mlp.fc2",
    }  # fmt: skip
    return {
        "patches": patches("x_embedder.proj", config.patch), "time.up": "t_embedder.mlp.0",
        "time.down": "t_embedder.mlp.2", "labels": "y_embedder.embedding_table", **under("blocks.{i}.", block),
        "ending.modulation.linear": "final_layer.adaLN_modulation.1",
        "ending.linear": to_pixels("final_layer.linear", config.patch),
    }  # fmt: skip


def class_dit_shapes(shapes: Mapping[str, Shape]) -> ClassDiTConfig:
    """Of a single file. Heads are 64 wide, in DiT-XL 72."""
    dim, channels, patch = _first(shapes, "x_embedder.proj.weight", 4)[:3]
    grid = math.isqrt(_first(shapes, "pos_embed", 3)[1])
    return ClassDiTConfig(
        channels=channels, out_channels=_first(shapes, "final_layer.linear.weight", 2)[0] // patch**2,
        size=grid * patch, patch=patch, dim=dim, layers=_layers(shapes, "blocks."),
        heads=16 if dim == 1152 else dim // 64,
        hidden=_first(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        classes=_first(shapes, "y_embedder.embedding_table.weight", 2)[0] - 1,
    )  # fmt: skip


# -- Stable Diffusion 3 ------------------------------------------------------------------------------------------------


def mmdit_config(config: Mapping[str, Any]) -> MMDiTConfig:
    """transformer/config.json of `SD3Transformer2DModel`."""
    said = Settings(config)
    heads, channels = said.integer("num_attention_heads", default=18), said.integer("in_channels", default=16)
    dim = heads * said.integer("attention_head_dim", default=64)
    _expect(said, {"caption_projection_dim": dim}, {"caption_projection_dim": 1152})
    if said.has("qk_norm"):
        _expect(said, {"qk_norm": "rms_norm"})
    return MMDiTConfig(
        channels=channels, out_channels=said.integer("out_channels", default=channels),
        patch=said.integer("patch_size", default=2), dim=dim, heads=heads,
        layers=said.integer("num_layers", default=18, most=MOST),
        context=said.integer("joint_attention_dim", default=4096),
        pooled=said.integer("pooled_projection_dim", default=2048), size=said.integer("sample_size", default=128),
        places=said.integer("pos_embed_max_size", default=96), qk_norm=said.has("qk_norm"),
        dual=tuple(said.get("dual_attention_layers", default=())),
    )  # fmt: skip


def mmdit_names(config: MMDiTConfig) -> Map:
    """As diffusers stores Stable Diffusion 3."""
    context = {"heads.qkv": rows("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
               "heads.norm_q": "attn.norm_added_q", "heads.norm_k": "attn.norm_added_k"}  # fmt: skip
    block: dict[str, Rule | str] = {
        **_named("picture.", {
            "modulation.linear": "norm1.linear", "heads.qkv": _query_key_value("attn."), "heads.norm_q": "attn.norm_q",
            "heads.norm_k": "attn.norm_k", "heads.out": "attn.to_out.0", "second.qkv": _query_key_value("attn2."),
            "second.norm_q": "attn2.norm_q", "second.norm_k": "attn2.norm_k", "second.out": "attn2.to_out.0",
            **{name: "ff." + disk for name, disk in _FEEDFORWARD.items()},
        }),
        **_named("context.", {
            **context, "modulation.linear": "norm1_context.linear", "heads.out": "attn.to_add_out",
            **{name: "ff_context." + disk for name, disk in _FEEDFORWARD.items()},
        }),
        **_named("listened.", {**context, "modulation.linear": exchanged("norm1_context.linear")}),
    }  # fmt: skip
    return {
        "patches": patches("pos_embed.proj", config.patch), "place_ND": table("pos_embed.pos_embed"),
        **_two("time.", "time_text_embed.timestep_embedder.linear_1", "time_text_embed.timestep_embedder.linear_2"),
        **_two("pooled.", "time_text_embed.text_embedder.linear_1", "time_text_embed.text_embedder.linear_2"),
        "context": "context_embedder", **under("transformer_blocks.{i}.", block),
        "ending.modulation.linear": exchanged("norm_out.linear"),
        "ending.linear": to_pixels("proj_out", config.patch),
    }  # fmt: skip


def mmdit_original(config: MMDiTConfig) -> Map:
    """As Stability AI stores Stable Diffusion 3."""
    block: dict[str, Rule | str] = {}
    for ours, disk in (("picture.", "x_block."), ("context.", "context_block."), ("listened.", "context_block.")):
        for part, attention in (("heads", "attn"), ("second", "attn2")):
            names = {"qkv": "qkv", "norm_q": "ln_q", "norm_k": "ln_k", "out": "proj"}
            block |= {f"{ours}{part}.{name}": f"{disk}{attention}.{there}" for name, there in names.items()}
        block[ours + "modulation.linear"] = disk + "adaLN_modulation.1"
        block |= _named(ours, {"feedforward.up": disk + "mlp.fc1", "feedforward.down": disk + "mlp.fc2"})
    return {
        "patches": patches("x_embedder.proj", config.patch), "place_ND": table("pos_embed"),
        **_two("time.", "t_embedder.mlp.0", "t_embedder.mlp.2"),
        **_two("pooled.", "y_embedder.mlp.0", "y_embedder.mlp.2"),
        "context": "context_embedder", **under("joint_blocks.{i}.", block),
        "ending.modulation.linear": "final_layer.adaLN_modulation.1",
        "ending.linear": to_pixels("final_layer.linear", config.patch),
    }  # fmt: skip


def mmdit_shapes(shapes: Mapping[str, Shape]) -> MMDiTConfig:
    """Of a single file. Heads are 64 wide."""
    dim, channels, patch = _first(shapes, "x_embedder.proj.weight", 4)[:3]
    layers, heads = _layers(shapes, "joint_blocks."), dim // 64
    side = math.isqrt(_first(shapes, "pos_embed", 3)[1])
    return MMDiTConfig(
        channels=channels, out_channels=_first(shapes, "final_layer.linear.weight", 2)[0] // patch**2, patch=patch,
        dim=dim, layers=layers, heads=heads, hidden=_first(shapes, "joint_blocks.0.x_block.mlp.fc1.weight", 2)[0],
        context=_first(shapes, "context_embedder.weight", 2)[1],
        pooled=_first(shapes, "y_embedder.mlp.0.weight", 2)[1], size=patch * side, places=side,
        qk_norm="joint_blocks.0.x_block.attn.ln_q.weight" in shapes,
        dual=tuple(i for i in range(layers) if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes),
    )  # fmt: skip


# -- Flux --------------------------------------------------------------------------------------------------------------


def flux_config(config: Mapping[str, Any]) -> FluxConfig:
    """transformer/config.json of `FluxTransformer2DModel`. Patches of 2 x 2 latents count as channels there."""
    said = Settings(config)
    _expect(said, {"patch_size": 1})
    heads, packed = said.integer("num_attention_heads", default=24), said.integer("in_channels", default=64)
    out = said.integer("out_channels", default=packed)
    if packed % 4 or out % 4:
        raise ConjureError(f"config.json: in_channels, out_channels: expected multiples of 4, got {packed} and {out}")
    axes = said.get("axes_dims_rope", default=(16, 56, 56))
    return FluxConfig(
        channels=packed // 4, out_channels=out // 4, heads=heads,
        dim=heads * said.integer("attention_head_dim", default=128),
        layers=said.integer("num_layers", default=19, most=MOST),
        single_layers=said.integer("num_single_layers", default=38, most=MOST),
        context=said.integer("joint_attention_dim", default=4096),
        pooled=said.integer("pooled_projection_dim", default=768),
        guidance=said.flag("guidance_embeds", default=False), axes=tuple(axes),
    )  # fmt: skip


def flux_names(config: FluxConfig) -> Map:
    """As diffusers stores Flux."""
    picture = {
        "modulation.linear": "norm1.linear", "heads.qkv": _query_key_value("attn."), "heads.norm_q": "attn.norm_q",
        "heads.norm_k": "attn.norm_k", "heads.out": "attn.to_out.0",
        **{name: "ff." + disk for name, disk in _FEEDFORWARD.items()},
    }  # fmt: skip
    context = {
        "modulation.linear": "norm1_context.linear",
        "heads.qkv": rows("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "heads.norm_q": "attn.norm_added_q", "heads.norm_k": "attn.norm_added_k", "heads.out": "attn.to_add_out",
        **{name: "ff_context." + disk for name, disk in _FEEDFORWARD.items()},
    }  # fmt: skip
    sizes = (config.dim, config.dim, config.dim, config.feedforward)
    single = {
        "modulation.linear": "norm.linear", "norm_q": "attn.norm_q", "norm_k": "attn.norm_k", "out": "proj_out",
        "into": rows("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", sizes=sizes),
    }  # fmt: skip
    told: Map = {}
    for ours, disk in (("time.", "timestep"), ("guidance.", "guidance"), ("pooled.", "text")):
        told |= _two(ours, *(f"time_text_embed.{disk}_embedder.linear_{n}" for n in (1, 2)))
    return {
        "patches": "x_embedder", "context": "context_embedder", **told,
        **under("transformer_blocks.{i}.", {**_named("picture.", picture), **_named("context.", context)}),
        **under("single_transformer_blocks.{i}.", single, "singles.{i}."),
        "ending.modulation.linear": exchanged("norm_out.linear"), "ending.linear": "proj_out",
    }  # fmt: skip


def flux_original(config: FluxConfig) -> Map:
    """As Black Forest Labs store Flux."""
    del config
    block: dict[str, Rule | str] = {}
    for ours, disk in (("picture.", "img_"), ("context.", "txt_")):
        block |= _named(ours, {
            "modulation.linear": disk + "mod.lin", "heads.qkv": disk + "attn.qkv", "heads.out": disk + "attn.proj",
            "heads.norm_q": scale(disk + "attn.norm.query_norm"), "heads.norm_k": scale(disk + "attn.norm.key_norm"),
            "feedforward.up": disk + "mlp.0", "feedforward.down": disk + "mlp.2",
        })  # fmt: skip
    single = {"modulation.linear": "modulation.lin", "into": "linear1", "out": "linear2",
              "norm_q": scale("norm.query_norm"), "norm_k": scale("norm.key_norm")}  # fmt: skip
    told: Map = {}
    for ours, disk in (("time.", "time_in"), ("guidance.", "guidance_in"), ("pooled.", "vector_in")):
        told |= _two(ours, disk + ".in_layer", disk + ".out_layer")
    return {
        "patches": "img_in", "context": "txt_in", **told, **under("double_blocks.{i}.", block),
        **under("single_blocks.{i}.", single, "singles.{i}."),
        "ending.modulation.linear": "final_layer.adaLN_modulation.1", "ending.linear": "final_layer.linear",
    }  # fmt: skip


def flux_shapes(shapes: Mapping[str, Shape]) -> FluxConfig:
    """Of a single file. An eighth of a head turns with the picture's number, the rest in halves with row and column."""
    dim, packed = _first(shapes, "img_in.weight", 2)
    (width,) = _first(shapes, "double_blocks.0.img_attn.norm.query_norm.scale", 1)
    return FluxConfig(
        channels=packed // 4, out_channels=_first(shapes, "final_layer.linear.weight", 2)[0] // 4, dim=dim,
        layers=_layers(shapes, "double_blocks."), single_layers=_layers(shapes, "single_blocks."), heads=dim // width,
        hidden=_first(shapes, "double_blocks.0.img_mlp.0.weight", 2)[0], context=_first(shapes, "txt_in.weight", 2)[1],
        pooled=_first(shapes, "vector_in.in_layer.weight", 2)[1], guidance="guidance_in.in_layer.weight" in shapes,
        axes=(width // 8, width // 16 * 7, width // 16 * 7),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------


def _named(ours: str, names: Mapping[str, Rule | str]) -> Map:
    return {ours + name: rule for name, rule in names.items()}


def _two(ours: str, up: str, down: str) -> Map:
    return {ours + "up": up, ours + "down": down}


def _expect(said: Settings, wanted: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
    """Settings that other networks of the same class have, and these do not; absent ones are as wanted."""
    for name, value in wanted.items():
        found = said.get(name, default=(defaults or wanted)[name])
        if found != value:
            raise ConjureError(f"config.json: {name}: expected {value!r}, got {found!r}",
                               hint="networks of this kind cannot be run yet")


def _first(shapes: Mapping[str, Shape], name: str, axes: int) -> Shape:
    found = shapes.get(name, ())
    if len(found) != axes:
        raise ConjureError(f"expected a tensor {name} with {axes} axes, got {list(found) or 'none'}",
                           hint="the file holds another kind of network, or is not whole")
    return found


def _layers(shapes: Mapping[str, Shape], prefix: str) -> int:
    found = re.compile(re.escape(prefix) + r"(\d{1,5})\.")
    return 1 + max((int(hit[1]) for hit in map(found.match, shapes) if hit), default=-1)
