"""A whole picture model in one safetensors file, as most shared checkpoints are: what is in it, and with which sizes.

Such a file has no config. The names of its tensors tell the family, their shapes tell the sizes, and what neither can
tell (activations, widths of heads, the noise schedule) stands in the tables here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from conjure.core.errors import ConjureError
from conjure.models.contrastive import TextTowerConfig
from conjure.models.public.diffusers import Files, Kind, Part, Pipeline
from conjure.models.public.names import Map, Rule, under

DENOISER, AUTOENCODER = "model.diffusion_model.", ("first_stage_model.", "vae.")
HEAD = 64
"""Width of the heads of all these text encoders, and of the denoisers where nothing else is said."""
SCALES: dict[Kind, tuple[float, float]] = {
    "sd": (0.18215, 0.0), "sdxl": (0.13025, 0.0), "sd3": (1.5305, 0.0609), "flux": (0.3611, 0.1159),
}  # fmt: skip
"""What latents are multiplied by, after this much was taken from them."""
DISCRETE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
            "timestep_spacing": "leading"}  # fmt: skip
SIZES = 6
"""Numbers that XL is told of a picture: its sides, where it was cut out, the sides that were wanted."""
STRAYED = 0.09
"""Spread of one bias above which an SD 2 was trained to predict v: files do not say so, and this tells all public ones
apart."""
LAST_BIAS = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
OTHERS = {
    "control_model.": "a ControlNet, which guides another model",
    "lora_unet_": "a LoRA, which changes another model",
    "lora_te": "a LoRA, which changes another model",
    "unet.": "a LoRA or a part of diffusers' layout",
    "conditioner.embedders.0.model.": "an SDXL refiner, which finishes pictures of another model",
    "down_blocks.": "a network alone in diffusers' layout",
    "encoder.down.": "an autoencoder alone",
    "transformer.text_model.": "a text encoder alone",
    "text_model.": "a text encoder alone",
}  # fmt: skip
"""What a file is that is no picture model, by how its names begin."""


def open_file(path: Path) -> Pipeline:
    """The picture model in one file; `ConjureError` says what else the file is, or which parts are not in it."""
    _refuse_pickle(path)
    files = Files([path])
    kind, denoiser = sort(path, files)
    name = "unet" if kind in ("sd", "sdxl") else "transformer"
    parts = _texts(kind, files)
    pooled = int(parts["text_encoder_2"].config.get("projection_dim", 0)) if "text_encoder_2" in parts else 0
    config = unet(denoiser, pooled) if name == "unet" else {}
    parts[name] = Part(config=config, tensors=denoiser, layout="original")
    vae = next((prefix for prefix in AUTOENCODER if files.under(prefix).names()), "")
    wanted = ("text_encoder",) if kind == "sd" else ("text_encoder", "text_encoder_2")
    lacking = [name for name in wanted if name not in parts] + ([] if vae else ["vae"])
    if lacking:
        raise ConjureError(f"{path}: holds a {kind} denoiser, but no {', '.join(lacking)}",
                           hint="take the file with all parts, or the model as a folder in diffusers' layout")
    parts["vae"] = Part(config=autoencoder(files.under(vae), kind), tensors=files.under(vae), layout="original")
    beside = {name: path.parent / name.replace("text_encoder", "tokenizer") for name in parts if "text" in name}
    return Pipeline(kind=kind, path=path, parts=parts, index={"force_zeros_for_empty_prompt": True},
                    tokenizers={name: folder for name, folder in beside.items() if folder.is_dir()},
                    scheduler=schedule(kind, files, denoiser))  # fmt: skip


def sort(path: Path, files: Files) -> tuple[Kind, Files]:
    """The family of a file, and its denoiser's tensors."""
    bare = "double_blocks.0.img_attn.qkv.weight" in files
    denoiser = files if bare else files.under(DENOISER)
    names = set(denoiser.names())
    if any(name.startswith("double_blocks.") for name in names):
        return "flux", denoiser
    if any(name.startswith("joint_blocks.") for name in names):
        return "sd3", denoiser
    there = files.names()
    if "input_blocks.0.0.weight" in names and not any(name.startswith("control_model.") for name in there):
        if any(name.startswith("conditioner.embedders.1.model.") for name in there):
            return "sdxl", denoiser
        if any(name.startswith("cond_stage_model.") for name in there):
            return "sd", denoiser
    what = next((what for start, what in OTHERS.items() if any(name.startswith(start) for name in there)), "")
    raise ConjureError(f"{path}: expected a whole picture model, this is {what or 'none that is known'}",
                       hint="known are Stable Diffusion 1, 2, XL and 3, and Flux, with text encoders and autoencoder")


def channels(path: Path) -> tuple[Kind, int]:
    """The family of a file and how many channels its denoiser reads (9: inpainting; 8: edits by instruction)."""
    _refuse_pickle(path)
    kind, denoiser = sort(path, Files([path]))
    first = {"sd": "input_blocks.0.0.weight", "sdxl": "input_blocks.0.0.weight", "sd3": "x_embedder.proj.weight"}
    return kind, denoiser.shape(first[kind])[1] if kind in first else 16


def _refuse_pickle(path: Path) -> None:
    """A pickle by its first bytes, whatever it is called."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise ConjureError(f"{path}: could not be read: {error.strerror}") from None
    if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        raise ConjureError(f"{path} is a pickle, whatever its name says; it can run code when opened and is never read",
                           hint="look for the same model as safetensors")


# -- what the shapes say -----------------------------------------------------------------------------------------------


def _count(tensors: Files, pattern: str) -> int:
    """How many numbers stand where the group of the pattern is."""
    found = {int(match[1]) for name in tensors.names() if (match := re.match(pattern, name))}
    return 1 + max(found, default=-1)


def unet(t: Files, pooled: int = 0) -> dict[str, Any]:
    """The U-Net of SD 1, 2, XL and of their variants with more channels. XL joins to the time the text's features,
    `pooled` wide, and six numbers."""
    levels: list[tuple[int, int, int]] = []  # channels, layers, depth of the transformers
    layers = 0
    for block in range(1, _count(t, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{block}.0.op.weight" in t:
            layers = 0
            continue
        layers += 1
        wide = t.shape(f"input_blocks.{block}.0.out_layers.3.weight")[0]
        depth = _count(t, rf"input_blocks\.{block}\.1\.transformer_blocks\.(\d+)\.")
        levels = [*(levels[:-1] if layers > 1 else levels), (wide, layers, depth)]
    widths = [level[0] for level in levels]
    proj = next(name for name in t.names() if name.endswith(".1.proj_in.weight"))
    context = next(name for name in t.names() if name.endswith("attn2.to_k.weight"))
    linear = len(t.shape(proj)) == 2
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel", "in_channels": t.shape("input_blocks.0.0.weight")[1],
        "out_channels": t.shape("out.2.weight")[0], "block_out_channels": widths, "layers_per_block": levels[0][1],
        "cross_attention_dim": t.shape(context)[1], "use_linear_projection": linear,
        "attention_head_dim": [wide // HEAD or 1 for wide in widths] if linear else 8,
        "transformer_layers_per_block": [level[2] or 1 for level in levels],
        "down_block_types": ["CrossAttnDownBlock2D" if level[2] else "DownBlock2D" for level in levels],
        "up_block_types": ["CrossAttnUpBlock2D" if level[2] else "UpBlock2D" for level in reversed(levels)],
        "mid_block_type": "UNetMidBlock2DCrossAttn", "act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-5,
        "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1,
        "mid_block_scale_factor": 1, "sample_size": 64 if widths[-1] == 1280 and len(widths) > 3 else 128,
    }  # fmt: skip
    if "label_emb.0.0.weight" in t:
        wide = t.shape("label_emb.0.0.weight")[1]
        config |= {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": wide,
                   "addition_time_embed_dim": (wide - pooled) // SIZES, "sample_size": 128}  # fmt: skip
    return config


def autoencoder(t: Files, kind: Kind) -> dict[str, Any]:
    """The KL autoencoder of all of them."""
    levels = _count(t, r"encoder\.down\.(\d+)\.")
    layers = _count(t, r"encoder\.down\.0\.block\.(\d+)\.")
    scale, shift = SCALES[kind]
    return {
        "_class_name": "AutoencoderKL", "in_channels": t.shape("encoder.conv_in.weight")[1],
        "out_channels": t.shape("decoder.conv_out.weight")[0], "layers_per_block": layers,
        "latent_channels": t.shape("decoder.conv_in.weight")[1], "norm_num_groups": 32, "act_fn": "silu",
        "block_out_channels": [t.shape(f"encoder.down.{n}.block.{layers - 1}.conv2.weight")[0] for n in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": scale, "shift_factor": shift or None, "use_quant_conv": "quant_conv.weight" in t,
        "use_post_quant_conv": "post_quant_conv.weight" in t,
    }  # fmt: skip


def _texts(kind: Kind, files: Files) -> dict[str, Part]:
    places: dict[str, tuple[str, ...]] = {
        "text_encoder": ("text_encoders.clip_l.transformer.", "conditioner.embedders.0.transformer.",
                         "cond_stage_model.transformer.", "cond_stage_model.model."),
        "text_encoder_2": ("text_encoders.clip_g.transformer.", "conditioner.embedders.1.model."),
        "text_encoder_3": ("text_encoders.t5xxl.transformer.",),
    }  # fmt: skip
    found = {}
    for name, prefixes in places.items():
        prefix = next((each for each in prefixes if files.under(each).names()), "")
        if not prefix:
            continue
        t = files.under(prefix)
        if "shared.weight" in t:
            found[name] = Part(config=_t5(t), tensors=t)
        elif "ln_final.weight" in t:
            found[name] = Part(config=_open_clip(t, kind), tensors=t, layout="original")
        else:
            found[name] = Part(config=_clip(t, "gelu" if name == "text_encoder_2" else "quick_gelu"), tensors=t)
    if kind == "flux" and "text_encoder_3" in found:
        found["text_encoder_2"] = found.pop("text_encoder_3")
    return found


def _tower(vocab: int, wide: int, hidden: int, layers: int, length: int, activation: str) -> dict[str, Any]:
    return {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "vocab_size": vocab,
            "hidden_size": wide, "intermediate_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": wide // HEAD or 1, "max_position_embeddings": length, "hidden_act": activation,
            "layer_norm_eps": 1e-5, "eos_token_id": vocab - 1}  # fmt: skip


def _clip(t: Files, activation: str) -> dict[str, Any]:
    """CLIP with the names of transformers."""
    top = "text_model." if "text_model.final_layer_norm.weight" in t else ""
    vocab, wide = t.shape(top + "embeddings.token_embedding.weight")
    hidden = t.shape(top + "encoder.layers.0.mlp.fc1.weight")[0]
    config = _tower(vocab, wide, hidden, _count(t, rf"{re.escape(top)}encoder\.layers\.(\d+)\."),
                    t.shape(top + "embeddings.position_embedding.weight")[0], activation)
    if "text_projection.weight" in t:
        config |= {"architectures": ["CLIPTextModelWithProjection"],
                   "projection_dim": t.shape("text_projection.weight")[0]}
    return config


def _open_clip(t: Files, kind: Kind) -> dict[str, Any]:
    """OpenCLIP with names of its own. SD 2 reads the states before its last layer, which is then left out."""
    vocab, wide = t.shape("token_embedding.weight")
    layers = _count(t, r"transformer\.resblocks\.(\d+)\.") - (kind == "sd")
    hidden = t.shape("transformer.resblocks.0.mlp.c_fc.weight")[0]
    config = _tower(vocab, wide, hidden, layers, t.shape("positional_embedding")[0], "gelu")
    if kind != "sd":
        config |= {"architectures": ["CLIPTextModelWithProjection"], "projection_dim": t.shape("text_projection")[-1]}
    return config


def _t5(t: Files) -> dict[str, Any]:
    vocab, wide = t.shape("shared.weight")
    first = "encoder.block.0.layer."
    buckets, heads = t.shape(first + "0.SelfAttention.relative_attention_bias.weight")
    gated = first + "1.DenseReluDense.wi_0.weight" in t
    hidden = t.shape(first + ("1.DenseReluDense.wi_0.weight" if gated else "1.DenseReluDense.wi.weight"))[0]
    return {"model_type": "t5", "architectures": ["T5EncoderModel"], "vocab_size": vocab, "d_model": wide,
            "d_ff": hidden, "d_kv": t.shape(first + "0.SelfAttention.q.weight")[0] // heads, "num_heads": heads,
            "num_layers": _count(t, r"encoder\.block\.(\d+)\."), "relative_attention_num_buckets": buckets,
            "feed_forward_proj": "gated-gelu" if gated else "relu"}  # fmt: skip


def open_clip_names(config: TextTowerConfig) -> Map:
    """OpenCLIP's text tower: queries, keys and values are one matrix, the projection is stored [in, out]."""
    layer: Map = {
        "norm_attention": "ln_1", "norm_feedforward": "ln_2", "attention.out": "attn.out_proj",
        "attention.qkv": Rule(("attn.in_proj",), suffixes={"weight": "_weight", "bias": "_bias"}, shaped=_same),
        "feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj",
    }  # fmt: skip
    return {
        "stack.embed": "token_embedding", "stack.norm": "ln_final",
        "stack.place": Rule(("positional_embedding",), suffixes={"weight": ""}, shaped=_same),
        "project": Rule(("text_projection",), lambda pieces: pieces[0].mT, lambda tensor: [tensor.mT],
                        suffixes={"weight": ""}, shaped=lambda shapes: shapes[0][::-1]),
        **under("transformer.resblocks.{i}.", layer, "stack.blocks.{i}."),
    }  # fmt: skip


# -- how it was trained ------------------------------------------------------------------------------------------------


def schedule(kind: Kind, files: Files, denoiser: Files) -> dict[str, Any]:
    """scheduler_config.json as diffusers has it for this family."""
    if kind == "sd3":
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    if kind == "flux":
        guided = "guidance_in.in_layer.weight" in denoiser
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000,
                "shift": 3.0 if guided else 1.0, "use_dynamic_shifting": guided, "base_shift": 0.5, "max_shift": 1.15,
                "base_image_seq_len": 256, "max_image_seq_len": 4096}  # fmt: skip
    predicts = "v_prediction" if predicts_v(files, denoiser) else "epsilon"
    name = "EulerDiscreteScheduler" if kind == "sdxl" else "DDIMScheduler"
    return {"_class_name": name, **DISCRETE, "prediction_type": predicts,
            "rescale_betas_zero_snr": "ztsnr" in files}  # fmt: skip


def predicts_v(files: Files, denoiser: Files) -> bool:
    """Whether the network predicts v: as the file says, or by what training to v did to an SD 2."""
    said = files.metadata().get("modelspec.prediction_type", "")
    if said:
        return said.startswith("v")
    if "v_pred" in files:
        return True
    second = "cond_stage_model.model.ln_final.weight" in files
    return second and LAST_BIAS in denoiser and float(denoiser.tensor(LAST_BIAS).float().std(correction=0)) > STRAYED


def _same(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    return shapes[0]
