"""diffusers' networks and schedulers, called as its pipelines call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.painters.work import GUIDANCE, Work


def load(work: Work) -> Callable[[], Tensor]:
    """What is timed: a function without arguments."""
    x = work.latents()
    if work.task == "decode":
        from diffusers import AutoencoderKL

        autoencoder: Any = AutoencoderKL.from_pretrained(work.folder, subfolder="vae", local_files_only=True)
        return lambda: autoencoder.decode(x).sample
    if work.task == "dit":
        from diffusers import DiTTransformer2DModel

        dit: Any = DiTTransformer2DModel.from_pretrained(work.folder, subfolder="transformer", local_files_only=True)
        told = {"timestep": torch.tensor([500, 500]), "class_labels": torch.tensor([1000, 207])}
        return lambda: dit(x, **told).sample
    from diffusers import DDIMScheduler, UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(work.folder, subfolder="unet", local_files_only=True)
    context = work.context()
    if work.task == "unet":
        return lambda: unet(x, torch.tensor(500), encoder_hidden_states=context).sample
    scheduler: Any = DDIMScheduler.from_pretrained(work.folder, subfolder="scheduler", local_files_only=True)

    def loop() -> Tensor:
        scheduler.set_timesteps(work.steps)
        latents = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(torch.cat([latents, latents]), t)
            without, told = unet(given, t, encoder_hidden_states=context).sample.chunk(2)
            latents = scheduler.step(without + GUIDANCE * (told - without), t, latents).prev_sample
        return latents

    return loop
