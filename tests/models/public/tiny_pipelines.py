"""Tiny random pipelines of diffusers, saved as it saves them, and what it draws with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from torch import nn

WORDS = ["a photo of red apple on the table", "blurry bad picture", "cat dog house green!", "in style"]
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
            "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}  # fmt: skip
SIDE = 16
"""Of the latents."""


def clip_files(folder: Path, pad: str = "<|endoftext|>") -> Path:
    """A tokenizer of CLIP's kind: all letters, alone and at the end of a word, and some merges."""
    letters = sorted({letter for text in WORDS for letter in text if letter != " "} | set("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = {token: n for n, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    merges = []
    for left, right in [("a", "p"), ("r", "e"), ("re", "d</w>"), ("o", "f</w>"), ("c", "a"), ("ca", "t</w>")]:
        merges.append(f"{left} {right}")
        vocabulary.setdefault(left + right, len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 20, "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}))  # fmt: skip
    return folder


def shaken(model: nn.Module, seed: int = 0) -> Any:
    """Every parameter drawn anew, so that no default hides a mistake, and so small that activations stay tame."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(drawn * (0.8 / parameter[0].numel() ** 0.5))
            else:
                parameter.copy_(parameter + 0.1 * drawn)
    return model.eval()


def clip_text(tokenizer: Any, projection: int = 0, act: str = "quick_gelu", seed: int = 0, width: int = 64) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=max(1, width // 64), max_position_embeddings=20, hidden_act=act,
        projection_dim=projection or 64, bos_token_id=len(tokenizer) - 2, eos_token_id=len(tokenizer) - 1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    made = (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)
    return shaken(made, seed)


def autoencoder(channels: int = 4, **more: Any) -> Any:
    return shaken(diffusers.AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, layers_per_block=1, sample_size=32, **more,
    ), 5)  # fmt: skip


def unet(**more: Any) -> Any:
    return shaken(diffusers.UNet2DConditionModel(**{
        "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": SIDE, "in_channels": 4,
        "out_channels": 4, "cross_attention_dim": 64, "attention_head_dim": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        **more,
    }), 3)  # fmt: skip


def stable_diffusion(folder: Path, *, prediction: str = "epsilon", linear: bool = False, **more: Any) -> Any:
    """SD 1; with `linear` and v-prediction SD 2."""
    files = clip_files(folder / "files", "!" if linear else "<|endoftext|>")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(files)
    heads = {"use_linear_projection": True, "attention_head_dim": [1, 1]} if linear else {}
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(), unet=unet(**heads, **more), tokenizer=tokenizer,
        text_encoder=clip_text(tokenizer, act="gelu" if linear else "quick_gelu"),
        scheduler=diffusers.DDIMScheduler(prediction_type=prediction, **SCHEDULE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl(folder: Path, **more: Any) -> Any:
    first = transformers.CLIPTokenizer.from_pretrained(clip_files(folder / "files"))
    second = transformers.CLIPTokenizer.from_pretrained(clip_files(folder / "files_2", "!"))
    net = unet(cross_attention_dim=64 + 128, use_linear_projection=True, attention_head_dim=[1, 1],
               transformer_layers_per_block=[1, 2], addition_embed_type="text_time", addition_time_embed_dim=8,
               projection_class_embeddings_input_dim=6 * 8 + 48,
               down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
               up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more)  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025), unet=net, tokenizer=first, tokenizer_2=second,
        text_encoder=clip_text(first), text_encoder_2=clip_text(second, 48, "gelu", 1, 128),
        scheduler=diffusers.EulerDiscreteScheduler(**{k: v for k, v in SCHEDULE.items()
                                                      if k not in ("clip_sample", "set_alpha_to_one")}),
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip


def t5(folder: Path, width: int = 96) -> tuple[Any, Any]:
    """A T5 encoder, and a tokenizer of whole words for it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for text in WORDS for word in text.split()})
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{word: n for n, word in enumerate(words, start=3)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=256,
    )  # fmt: skip
    config = transformers.T5Config(vocab_size=len(vocabulary), d_model=width, d_ff=64, d_kv=16, num_heads=2,
                                   num_layers=2, feed_forward_proj="gated-gelu")  # fmt: skip
    return tokenizer, shaken(transformers.T5EncoderModel(config), 9)


def stable_diffusion_3(folder: Path, *, long: bool = True, head: int = 16) -> Any:
    first = transformers.CLIPTokenizer.from_pretrained(clip_files(folder / "files"))
    second = transformers.CLIPTokenizer.from_pretrained(clip_files(folder / "files_2", "!"))
    tokenizer, encoder = t5(folder) if long else (None, None)
    wide = 224
    if encoder is not None:
        tokenizer, encoder = t5(folder, wide)
    net = shaken(diffusers.SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=8, num_layers=2, attention_head_dim=head,
        num_attention_heads=64 // head, joint_attention_dim=wide, caption_projection_dim=64,
        pooled_projection_dim=24 + 48, out_channels=8,
        pos_embed_max_size=24))  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=net, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(8, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(first, 24), tokenizer=first, text_encoder_2=clip_text(second, 48, "gelu", 1, 128),
        tokenizer_2=second, text_encoder_3=encoder, tokenizer_3=tokenizer,
    )  # fmt: skip


def flux(folder: Path, *, guided: bool = True) -> Any:
    first = transformers.CLIPTokenizer.from_pretrained(clip_files(folder / "files"))
    tokenizer, encoder = t5(folder)
    net = shaken(diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=32, num_attention_heads=2,
        joint_attention_dim=96, pooled_projection_dim=64, guidance_embeds=guided, axes_dims_rope=(8, 12, 12)))
    return diffusers.FluxPipeline(
        transformer=net, vae=autoencoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guided),
        text_encoder=clip_text(first), tokenizer=first, text_encoder_2=encoder, tokenizer_2=tokenizer,
    )  # fmt: skip


def drawn(pipeline: Any, prompt: str, *, seed: int, **options: Any) -> np.ndarray:
    """uint8 `[H, W, 3]` of the reference."""
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(prompt, generator=torch.Generator().manual_seed(seed), output_type="np", **options).images[0]
    return (made * 255).round().astype(np.uint8)
