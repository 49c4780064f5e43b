"""conjure's networks, read as `conjure make` reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.painters.work import GUIDANCE, Work
from conjure.diffusion.schedule import schedule_from
from conjure.models.public.denoisers import open_autoencoder, open_denoiser
from conjure.models.public.diffusers import Files, Part, Pipeline, read_json, weights


def load(work: Work) -> Callable[[], Tensor]:
    """What is timed: a function without arguments."""
    folder = Path(work.folder)
    at = folder / work.part
    part = Part(config=read_json(at / "config.json"), tensors=Files(weights(at)))
    pipeline = Pipeline(kind="dit" if work.task == "dit" else "sd", path=folder, parts={work.part: part})
    x = work.latents()
    if work.task == "decode":
        autoencoder = open_autoencoder(pipeline)
        return lambda: autoencoder.decode(x)
    network: Any = open_denoiser(pipeline)[0]
    if work.task == "dit":
        return lambda: network(x, torch.tensor([500.0, 500.0]), torch.tensor([1000, 207]))
    context = work.context()
    if work.task == "unet":
        return lambda: network(x, torch.tensor([500.0, 500.0]), context)
    plan = schedule_from(read_json(folder / "scheduler" / "scheduler_config.json")).plan(work.steps)

    def predict(x: Tensor, t_B: Tensor) -> Tensor:
        without, told = network(torch.cat([x, x]), torch.cat([t_B, t_B]), context).chunk(2)
        return without + GUIDANCE * (told - without)

    return lambda: [step.x for step in plan.steps(predict, plan.prior(x))][-1]
