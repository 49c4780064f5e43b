"""Families that see or hear: ViT, CLIP, SigLIP, wav2vec 2.0, HuBERT, MMS, Whisper, LLaVA.

config.json -> the config of the network, and where each tensor lies. The parts of a joint config leave out what equals
the defaults of their class, which stand here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.checkpoint import misfits, safe_open_file
from conjure.models.contrastive import Contrastive, ContrastiveConfig, TextTower, TextTowerConfig
from conjure.models.public import decoders
from conjure.models.public.encoders import labels_of
from conjure.models.public.family import Family
from conjure.models.public.names import Map, Pieces, Rule, inside, rows, rule_for, under
from conjure.models.public.pairs import bart_layer
from conjure.models.public.settings import Settings
from conjure.models.speech_tower import SpeechTower, SpeechTowerConfig
from conjure.models.transformer import TransformerConfig
from conjure.models.vision_language import VisionLanguage, VisionLanguageConfig
from conjure.models.vision_tower import VisionTower, VisionTowerConfig
from conjure.models.whisper import Whisper, WhisperConfig
from conjure.nn.linear import Linear

VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "image_size": 224, "num_channels": 3}  # fmt: skip
VIT = {**VISION, "patch_size": 16, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
CLIP_VISION = {**VISION, "patch_size": 32, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "projection_dim": 512}
CLIP_TEXT = {"vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
             "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
             "layer_norm_eps": 1e-5, "eos_token_id": 49407, "projection_dim": 512}  # fmt: skip
SIGLIP_VISION = {**VISION, "patch_size": 16, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"}
SIGLIP_TEXT = {"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
               "num_attention_heads": 12, "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh",
               "layer_norm_eps": 1e-6}  # fmt: skip
LLAVA_TEXT = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
              "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048}  # fmt: skip
LLAVA_VISION = {**CLIP_VISION, "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}  # fmt: skip


def architecture(s: Settings) -> str:
    """The class that wrote the file; "" where none is named."""
    return str((s.get("architectures") or [""])[0])


def _refuse(name: str, *known: str) -> None:
    """A head of another kind."""
    if name and not name.endswith(known):
        raise ConjureError(f"config.json: cannot run the head of {name}", hint=f"known are *{', *'.join(known)}")


def _part(s: Settings, name: str, defaults: Mapping[str, Any]) -> Settings:
    """A part of a joint config. Old ones of CLIP have it twice, and the second overrides."""
    return Settings({**s.part(name).values, **s.part(f"{name}_dict").values}, defaults)


# -- pictures and texts ------------------------------------------------------------------------------------------------


def _stack(s: Settings, **more: Any) -> TransformerConfig:
    """What all these towers have in common."""
    return TransformerConfig(
        dim=s.integer("hidden_size"), layers=s.integer("num_hidden_layers"), heads=s.integer("num_attention_heads"),
        hidden=s.integer("intermediate_size"), activation=s.activation("hidden_act"), gated=False, norm="layer",
        norm_eps=s.number("layer_norm_eps", default=1e-5), out_bias=True, mlp_bias=True,
        **{"qkv_bias": True, "positions": "learned", **more},
    )  # fmt: skip


def _vision(s: Settings, stack: Mapping[str, Any], **more: Any) -> VisionTowerConfig:
    image, patch, token = s.integer("image_size"), s.integer("patch_size"), more.get("token", True)
    shape = _stack(s, vocab=0, causal=False, max_length=max(1, (image // patch) ** 2 + token), **stack)
    return VisionTowerConfig(stack=shape, image=image, patch=patch, channels=s.integer("num_channels"), **more)


def vit(s: Settings) -> VisionTowerConfig:
    labels = labels_of(s) if architecture(s).endswith("ForImageClassification") else 0
    return _vision(s, {"qkv_bias": s.flag("qkv_bias", default=True)}, labels=labels)


def clip_vision(s: Settings) -> VisionTowerConfig:
    projection = s.integer("projection_dim") if architecture(s).endswith("WithProjection") else 0
    return _vision(s, {"embedding_norm": True}, patch_bias=False, late_norm=True, projection=projection)


def clip_text(s: Settings) -> TextTowerConfig:
    projection = s.integer("projection_dim") if architecture(s).endswith("WithProjection") else 0
    end = s.integer("eos_token_id", least=0)
    stack = _stack(s, vocab=s.integer("vocab_size"), max_length=s.integer("max_position_embeddings"))
    # Configs of CLIP's first days say 2, which is not the end mark of its vocabulary.
    return TextTowerConfig(stack=stack, pool="highest" if end == 2 else "end", end=end, projection=projection)


def clip(s: Settings) -> ContrastiveConfig:
    wide = s.integer("projection_dim", default=512)
    image, text = clip_vision(_part(s, "vision_config", CLIP_VISION)), clip_text(_part(s, "text_config", CLIP_TEXT))
    return ContrastiveConfig(image=replace(image, projection=wide), text=replace(text, projection=wide))


def siglip_vision(s: Settings) -> VisionTowerConfig:
    pool = "attention" if s.flag("vision_use_head", default=True) else "none"
    return _vision(s, {}, token=False, pool=pool)


def siglip_text(s: Settings) -> TextTowerConfig:
    stack = _stack(s, vocab=s.integer("vocab_size"), causal=False, max_length=s.integer("max_position_embeddings"))
    wide = s.integer("projection_size", default=stack.dim)
    return TextTowerConfig(stack=stack, pool="last", projection=wide, projection_bias=True)


def siglip(s: Settings) -> ContrastiveConfig:
    image = siglip_vision(_part(s, "vision_config", SIGLIP_VISION))
    return ContrastiveConfig(image=image, text=siglip_text(_part(s, "text_config", SIGLIP_TEXT)), bias=True)


LANGUAGES = [kind for kind, family in decoders.FAMILIES.items() if family.names is decoders.llama_names]
VISION_TOWERS = {"clip_vision_model": (clip_vision, CLIP_VISION), "siglip_vision_model": (siglip_vision, SIGLIP_VISION)}


def llava(s: Settings) -> VisionLanguageConfig:
    seen, read = _part(s, "vision_config", {}), _part(s, "text_config", LLAVA_TEXT)
    kind, language = seen.get("model_type", default="clip_vision_model"), read.get("model_type")
    if kind not in VISION_TOWERS or language not in LANGUAGES:
        raise ConjureError(
            f"config.json: cannot join a vision tower {kind!r} and a language model {language!r}",
            hint=f"towers: {', '.join(VISION_TOWERS)}; language models: {', '.join(LANGUAGES)}",
        )
    tower, defaults = VISION_TOWERS[kind]
    image = tower(Settings(seen.values, defaults if seen.values else LLAVA_VISION))
    layers, layer = image.stack.layers, s.get("vision_feature_layer", default=-2)
    if not isinstance(layer, int):
        raise ConjureError(f"config.json: vision_feature_layer: expected a whole number, got {layer!r}")
    family = decoders.FAMILIES[language]
    return VisionLanguageConfig(
        image=image, decoder=family.config(Settings(read.values, family.defaults)),
        mark=s.integer("image_token_index", "image_token_id", default=32000, least=0),
        depth=layer if layer >= 0 else layers + 1 + layer,
        token=s.get("vision_feature_select_strategy", default="default") == "full",
        activation=s.activation("projector_hidden_act"), bias=s.flag("multimodal_projector_bias", default=True),
    )  # fmt: skip


def reshaped(disk: str, here: tuple[int, ...], there: tuple[int, ...]) -> Rule:
    """A parameter of shape `there` on disk and `here` in ours. Not any shape of as many values will do."""

    def read(pieces: Pieces) -> Tensor:
        if tuple(pieces[0].shape) not in (there, here):
            raise ValueError(f"{disk} has another shape")
        return pieces[0].reshape(here)

    return Rule((disk,), read, lambda tensor: [tensor.reshape(there)], suffixes=defaultdict(str))


def _patches(c: VisionTowerConfig, disk: str) -> Map:
    """A convolution on disk."""
    dim, area = c.stack.dim, c.channels * c.patch**2
    return {"patch.weight": reshaped(f"{disk}.weight", (dim, area), (dim, c.channels, c.patch, c.patch)),
            "patch.bias": f"{disk}.bias"}  # fmt: skip


def _vit_names(c: VisionTowerConfig) -> Map:
    own, dim = "attention.attention.", c.stack.dim
    layer: Map = {
        "norm_attention": "layernorm_before", "norm_feedforward": "layernorm_after",
        "attention.qkv": rows(own + "query", own + "key", own + "value"), "attention.out": "attention.output.dense",
        "feedforward.up": "intermediate.dense", "feedforward.down": "output.dense",
    }  # fmt: skip
    table, length = "vit.embeddings.position_embeddings", c.stack.max_length
    return {
        **_patches(c, "vit.embeddings.patch_embeddings.projection"),
        "token": reshaped("vit.embeddings.cls_token", (dim,), (1, 1, dim)),
        "stack.place.weight": reshaped(table, (length, dim), (1, length, dim)), "stack.norm": "vit.layernorm",
        **under("vit.encoder.layer.{i}.", layer, "stack.blocks.{i}."), "classify": "classifier",
    }  # fmt: skip


CLIP_LAYER: Map = {
    "norm_attention": "layer_norm1", "norm_feedforward": "layer_norm2", "attention.out": "self_attn.out_proj",
    "attention.qkv": rows("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "feedforward.up": "mlp.fc1", "feedforward.down": "mlp.fc2",
}  # fmt: skip


def _image_names(c: VisionTowerConfig, top: str = "vision_model.") -> Map:
    """The vision towers of CLIP and SigLIP."""
    head, dim = top + "head.", c.stack.dim
    return {
        **_patches(c, top + "embeddings.patch_embedding"), "token": top + "embeddings.class_embedding",
        "stack.place": top + "embeddings.position_embedding", "stack.norm_embedding": top + "pre_layrnorm",
        "stack.norm": top + "post_layernorm", "project": "visual_projection",
        **under(top + "encoder.layers.{i}.", CLIP_LAYER, "stack.blocks.{i}."),
        "pool.probe": reshaped(head + "probe", (dim,), (1, 1, dim)), "pool.norm": head + "layernorm",
        "pool.qkv.weight": head + "attention.in_proj_weight", "pool.qkv.bias": head + "attention.in_proj_bias",
        "pool.out": head + "attention.out_proj", "pool.feedforward.up": head + "mlp.fc1",
        "pool.feedforward.down": head + "mlp.fc2",
    }  # fmt: skip


def _text_names(c: TextTowerConfig) -> Map:
    top = "text_model."
    return {
        "stack.embed": top + "embeddings.token_embedding", "stack.place": top + "embeddings.position_embedding",
        "stack.norm": top + "final_layer_norm", "project": top + "head" if c.projection_bias else "text_projection",
        **under(top + "encoder.layers.{i}.", CLIP_LAYER, "stack.blocks.{i}."),
    }  # fmt: skip


def _joint_names(c: ContrastiveConfig) -> Map:
    names = {**inside("image.", _image_names(c.image)), **inside("text.", _text_names(c.text)), "scale": "logit_scale"}
    if c.bias:  # SigLIP
        names |= {"scale": reshaped("logit_scale", (), (1,)), "bias": reshaped("logit_bias", (), (1,))}
    return names


def _llava_names(c: VisionLanguageConfig) -> Map:
    return {
        **inside("image.", _image_names(c.image, "vision_tower.vision_model.")),
        **under("language_model.", decoders.llama_names(c.decoder), "decoder."),
        "bridge_in": "multi_modal_projector.linear_1", "bridge_out": "multi_modal_projector.linear_2",
    }  # fmt: skip


# -- speech ------------------------------------------------------------------------------------------------------------


def wav2vec2(s: Settings) -> SpeechTowerConfig:
    """wav2vec 2.0, XLSR, MMS, HuBERT."""
    name, stable = architecture(s), s.flag("do_stable_layer_norm", default=False)
    _refuse(name, "Model", "ForCTC", "ForPreTraining")
    if s.flag("conv_pos_batch_norm", default=False):
        raise ConjureError("config.json: conv_pos_batch_norm: positions with a batch norm cannot be run")
    stack = _stack(
        s, vocab=0, causal=False, positions="none", placement="pre" if stable else "post", embedding_norm=not stable,
        bottleneck=s.integer("adapter_attn_dim", default=0, least=0) if stable else 0,
    )  # fmt: skip
    added = s.flag("add_adapter", default=False)
    return SpeechTowerConfig(
        stack=stack, **convolutions(s), convolution_bias=s.flag("conv_bias", default=False),
        activation=s.activation("feat_extract_activation"),
        convolution_norm="first" if s.get("feat_extract_norm", default="group") == "group" else "all",
        feature_norm=s.flag("feat_proj_layer_norm", default=True),
        position_kernel=s.integer("num_conv_pos_embeddings", default=128),
        position_groups=s.integer("num_conv_pos_embedding_groups", default=16),
        shorter=s.integer("num_adapter_layers", default=3) if added else 0,
        shorter_width=s.integer("output_hidden_size", default=stack.dim) if added else 0,
        shorter_kernel=s.integer("adapter_kernel_size", default=3),
        shorter_stride=s.integer("adapter_stride", default=2),
        vocab=s.integer("vocab_size") if name.endswith("ForCTC") else 0,
    )  # fmt: skip


def convolutions(s: Settings) -> dict[str, Any]:
    """Those that read waves: `widths`, `kernels` and `strides` of a `SpeechTowerConfig`."""
    return {ours: _numbers(s, disk) for disk, ours in CONVOLUTIONS.items()}


def _numbers(s: Settings, name: str) -> tuple[int, ...]:
    """A list of whole numbers above 0; wav2vec 2.0's own where there is none."""
    found = s.get(name, default=getattr(SpeechTowerConfig, CONVOLUTIONS[name]))
    if not isinstance(found, list | tuple) or any(type(each) is not int or each < 1 for each in found):
        raise ConjureError(f"config.json: {name}: expected whole numbers above 0, got {found!r}")
    return tuple(found)


CONVOLUTIONS = {"conv_dim": "widths", "conv_kernel": "kernels", "conv_stride": "strides"}


def folded(disk: str) -> Rule:
    """A weight stored as length and direction of each tap's part (Salimans and Kingma 2016, arXiv 1602.07868)."""

    def length(tensor: Tensor) -> Tensor:
        return torch.linalg.vector_norm(tensor.float(), dim=(0, 1), keepdim=True)

    def read(pieces: Pieces) -> Tensor:
        size, direction = pieces
        return (direction.float() * (size.float() / length(direction))).to(direction.dtype)

    def write(tensor: Tensor) -> Pieces:
        return [length(tensor).to(tensor.dtype), tensor]

    return Rule((disk + "_g", disk + "_v"), read, write, suffixes=defaultdict(str))


def _speech_names(top: str) -> Any:
    def names(c: SpeechTowerConfig) -> Map:
        own, front = "attention.", top + "feature_extractor.conv_layers.{i}."
        place = top + "encoder.pos_conv_embed.conv."
        layer: Map = {
            "attention.qkv": rows(own + "q_proj", own + "k_proj", own + "v_proj"), "attention.out": own + "out_proj",
            "norm_attention": "layer_norm", "norm_feedforward": "final_layer_norm",
            "feedforward.up": "feed_forward.intermediate_dense", "feedforward.down": "feed_forward.output_dense",
            "adapter.norm": "adapter_layer.norm", "adapter.down": "adapter_layer.linear_1",
            "adapter.up": "adapter_layer.linear_2",
        }  # fmt: skip
        return {
            "front.{i}.convolution": front + "conv", "front.{i}.norm": front + "layer_norm",
            "feature_norm": top + "feature_projection.layer_norm", "project": top + "feature_projection.projection",
            "position.weight": folded(place + "weight"), "position.bias": place + "bias",
            "stack.norm_embedding": top + "encoder.layer_norm", "stack.norm": top + "encoder.layer_norm",
            **under(top + "encoder.layers.{i}.", layer, "stack.blocks.{i}."), "narrow": top + "adapter.proj",
            "narrow_norm": top + "adapter.proj_layer_norm", "shorter.{i}": top + "adapter.layers.{i}.conv",
            "head": "lm_head",
        }  # fmt: skip

    return names


def speak(network: SpeechTower, path: Path) -> None:
    """Another language for a network of MMS: adapters and letters from a file like `adapter.deu.safetensors`."""
    file, names = safe_open_file(path), _speech_names("wav2vec2.")(network.config)
    found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    wanted, places = {}, {}
    for parameter, tensor in network.state_dict().items():
        if ".adapter." not in parameter and not parameter.startswith("head."):
            continue
        match = rule_for(parameter, names)
        assert match is not None
        rule, last, numbers = match
        (name,) = rule.names(last, numbers)
        wanted[name], places[name] = tuple(tensor.shape), parameter
    count = len(found.get("lm_head.weight", ()))  # each language has its own letters
    wanted |= {name: (count, *shape[1:]) for name, shape in wanted.items() if name.startswith("lm_head.")}
    if wrong := misfits(wanted, {name: tuple(tensor.shape) for name, tensor in found.items()}):
        raise ConjureError(f"{path} is no language of this network:\n  " + "\n  ".join(wrong[:20]))
    network.head = Linear(network.config.output, count).requires_grad_(False)
    network.config = replace(network.config, vocab=count)
    dtype = network.project.weight.dtype
    network.load_state_dict({places[name]: found[name].to(dtype) for name in wanted}, strict=False, assign=True)


# -- Whisper -----------------------------------------------------------------------------------------------------------


def whisper(s: Settings) -> WhisperConfig:
    _refuse(architecture(s), "Model", "ForConditionalGeneration")

    def stack(kind: str, length: str, **more: Any) -> TransformerConfig:
        return TransformerConfig(
            dim=s.integer("d_model"), layers=s.integer(f"{kind}_layers"), heads=s.integer(f"{kind}_attention_heads"),
            hidden=s.integer(f"{kind}_ffn_dim"), activation=s.activation("activation_function"), gated=False,
            norm="layer", norm_eps=1e-5, qkv_bias=True, out_bias=True, mlp_bias=True, positions="learned",
            max_length=s.integer(length), **more,
        )  # fmt: skip

    return WhisperConfig(
        encoder=stack("encoder", "max_source_positions", vocab=0, causal=False),
        decoder=stack("decoder", "max_target_positions", vocab=s.integer("vocab_size"), cross=True),
        bins=s.integer("num_mel_bins", default=80),
    )  # fmt: skip


def _whisper_names(c: WhisperConfig) -> Map:
    names: Map = {
        "first": "model.encoder.conv1", "second": "model.encoder.conv2", "pair.decoder.head": "proj_out",
        "decoder.head": "proj_out", "decoder.embed": "model.decoder.embed_tokens",  # where `load` looks if they are one
    }  # fmt: skip
    for stack in ("encoder", "decoder"):
        top = f"model.{stack}."
        names |= inside(f"pair.{stack}.", {
            "embed": top + "embed_tokens", "place": top + "embed_positions", "norm": top + "layer_norm",
            **under(top + "layers.{i}.", bart_layer()),
        })  # fmt: skip
    return names


UNUSED = ("*masked_spec_embed", "quantizer.*", "project_hid.*", "project_q.*")
"""For training only."""

FAMILIES: dict[str, Family] = {
    "vit": Family(vit, _vit_names, "vit.", network=VisionTower, defaults=VIT, ignore=("*pooler.dense.*",),
                  kind="vision"),
    "clip": Family(clip, _joint_names, network=Contrastive, kind="contrastive"),
    "clip_vision_model": Family(clip_vision, _image_names, "vision_model.", network=VisionTower, defaults=CLIP_VISION,
                                kind="vision"),
    "clip_text_model": Family(clip_text, _text_names, "text_model.", network=TextTower, defaults=CLIP_TEXT,
                              kind="text"),
    "siglip": Family(siglip, _joint_names, network=Contrastive, kind="contrastive"),
    "siglip_vision_model": Family(siglip_vision, _image_names, "vision_model.", network=VisionTower,
                                  defaults=SIGLIP_VISION, kind="vision"),
    "siglip_text_model": Family(siglip_text, _text_names, "text_model.", network=TextTower, defaults=SIGLIP_TEXT,
                                kind="text"),
    "wav2vec2": Family(wav2vec2, _speech_names("wav2vec2."), "wav2vec2.", network=SpeechTower, ignore=UNUSED,
                       kind="speech"),
    "hubert": Family(wav2vec2, _speech_names("hubert."), "hubert.", network=SpeechTower, ignore=UNUSED, kind="speech"),
    "whisper": Family(whisper, _whisper_names, "model.", network=Whisper, kind="speech_to_text"),
    "llava": Family(llava, _llava_names, inner="vision_model.", network=VisionLanguage, kind="vision_language"),
}  # fmt: skip
