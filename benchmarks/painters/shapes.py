"""Random weights in the published sizes, as diffusers saves them: both programs read the same files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
            "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
UNET: dict[str, dict[str, Any]] = {
    "full": {"sample_size": 64, "cross_attention_dim": 768},
    "toy": {"sample_size": 8, "cross_attention_dim": 768, "block_out_channels": (32, 64), "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
}  # fmt: skip
VAE: dict[str, dict[str, Any]] = {
    "full": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    "toy": {"block_out_channels": (32, 64), "layers_per_block": 1},
}
DIT: dict[str, dict[str, Any]] = {
    "full": {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "sample_size": 32},
    "toy": {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8},
}


def write(folder: Path, size: str, part: str) -> None:
    """One part of Stable Diffusion 1 (unet, vae, scheduler) or DiT-XL/2 (transformer); nothing where it is there."""
    if (folder / part).is_dir():
        return
    import diffusers

    levels = len(VAE[size]["block_out_channels"])
    ways: dict[str, Any] = {"down_block_types": ("DownEncoderBlock2D",) * levels,
                            "up_block_types": ("UpDecoderBlock2D",) * levels}  # fmt: skip
    makers: dict[str, Callable[[], Any]] = {
        "unet": lambda: diffusers.UNet2DConditionModel(**UNET[size]),
        "vae": lambda: diffusers.AutoencoderKL(**VAE[size], **ways, latent_channels=4, sample_size=512),
        "transformer": lambda: diffusers.DiTTransformer2DModel(
            **DIT[size], in_channels=4, out_channels=8, norm_type="ada_norm_zero", activation_fn="gelu-approximate",
            attention_bias=True, norm_elementwise_affine=False, norm_eps=1e-6, num_embeds_ada_norm=1000, patch_size=2,
        ),
        "scheduler": lambda: diffusers.DDIMScheduler(**SCHEDULE),
    }  # fmt: skip
    made = makers[part]()
    if part == "transformer":  # published ones have the same network of time and class in every block
        first = made.transformer_blocks[0].norm1.emb.state_dict()
        for block in made.transformer_blocks:
            block.norm1.emb.load_state_dict(first)
    made.save_pretrained(folder / part)
