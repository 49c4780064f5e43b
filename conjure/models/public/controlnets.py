"""ControlNets as diffusers stores them, and whether one belongs to a model."""

from __future__ import annotations

from pathlib import Path

import torch

from conjure.core.errors import ConjureError
from conjure.models.controlnet import ControlNet, ControlNetConfig
from conjure.models.public.diffusers import Files, Pipeline, fill, read_json, weights
from conjure.models.public.unets import controlnet_config, controlnet_names, old_names, unet_config

CLASS = "ControlNetModel"


def read_controlnet_config(folder: Path) -> ControlNetConfig:
    """Of the ControlNet in a folder; `ConjureError` where something else lies there."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    if config.get("_class_name") != CLASS:
        what = config.get("_class_name") or ("a single file" if folder.is_file() else "something else")
        raise ConjureError(f"{folder}: expected a ControlNet, this is {what}",
                           hint=f"a folder in diffusers' layout, whose config.json names a {CLASS}")
    return controlnet_config(config)


def open_controlnet(folder: Path) -> ControlNet:
    """With its weights, float32."""
    config, linear = read_controlnet_config(folder), read_json(folder / "config.json").get("use_linear_projection")
    tensors = Files(weights(folder))
    with torch.device("meta"):
        network = ControlNet(config)
    names = controlnet_names(config, linear=bool(linear), old=old_names(tensors.names()))
    fill(network, names, tensors, what="a ControlNet of this config")
    return network


def belongs(folder: Path, its: ControlNetConfig, pipeline: Pipeline, shrink: int) -> None:
    """`ConjureError` where it was trained beside another kind of network than that of this model."""
    if pipeline.kind not in ("sd", "sdxl"):
        raise ConjureError(f"{pipeline.path.name}: ControlNets steer U-Nets, this model has none",
                           hint="known are Stable Diffusion 1, 2 and XL")
    base = unet_config(pipeline.network.config)
    facts = (
        ("channels of latents", its.unet.channels, base.channels),
        ("channels of the levels", its.unet.widths, base.widths),
        ("width of the text", its.unet.context, base.context),
        ("layers", (its.unet.residuals, its.unet.depth), (base.residuals, base.depth)),
        ("values beside the time", its.unet.added, base.added),
        ("channels of the guide", its.hint_channels, 3),
        ("pixels to a latent", its.shrink, shrink),
    )
    if wrong := [f"{name}: {got} there, {wanted} here" for name, got, wanted in facts if got != wanted]:
        raise ConjureError(f"{folder}: this ControlNet does not belong to {pipeline.path.name}: {'; '.join(wrong)}",
                           hint="it was trained beside another base model")
