"""The networks of a picture model, of whichever family: built from config or shapes, their weights read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from conjure.models.autoencoder_kl import AutoencoderKL
from conjure.models.class_dit import ClassDiT
from conjure.models.flux import Flux
from conjure.models.mmdit import MMDiT
from conjure.models.public import diffusion_transformers as transformers
from conjure.models.public.autoencoders import autoencoder_config, autoencoder_names, tiny_config, tiny_names
from conjure.models.public.diffusers import Part, Pipeline, fill
from conjure.models.public.names import Map
from conjure.models.public.unets import old_names, unet_config, unet_names
from conjure.models.taesd import TinyAutoencoder
from conjure.models.unet import UNet

Autoencoder = AutoencoderKL | TinyAutoencoder


def laid_out(pipeline: Pipeline) -> tuple[nn.Module, tuple[Map, Map]]:
    """The network that takes the noise away, without weights, and its maps: to diffusers' names and to those of who
    trained it."""
    part, kind = pipeline.network, pipeline.kind
    original = part.layout == "original"
    with torch.device("meta"):
        if kind in ("sd", "sdxl"):
            config, linear = unet_config(part.config), bool(part.config.get("use_linear_projection"))
            return UNet(config), (unet_names(config, linear=linear, old=not original and _old(part)),
                                  unet_names(config, "original", linear=linear))  # fmt: skip
        if kind == "sd3":
            shape = transformers.mmdit_shapes(_shapes(part)) if original else transformers.mmdit_config(part.config)
            return MMDiT(shape), (transformers.mmdit_names(shape), transformers.mmdit_original(shape))
        if kind == "flux":
            plan = transformers.flux_shapes(_shapes(part)) if original else transformers.flux_config(part.config)
            return Flux(plan), (transformers.flux_names(plan), transformers.flux_original(plan))
        classes = transformers.class_dit_config(part.config)
        return ClassDiT(classes), (transformers.class_dit_names(classes), transformers.class_dit_original(classes))


def open_denoiser(pipeline: Pipeline) -> tuple[nn.Module, tuple[Map, Map]]:
    """The same with its weights, float32."""
    network, maps = laid_out(pipeline)
    part = pipeline.network
    names = maps[part.layout == "original"]
    fill(network, names, part.tensors, what=f"a {pipeline.kind} denoiser of this config",
         ignore=transformers.DIT_COMPUTED if pipeline.kind == "dit" else ())  # fmt: skip
    return network, maps


def open_autoencoder(pipeline: Pipeline) -> Autoencoder:
    """With its weights, float32."""
    network, names = autoencoder_laid_out(pipeline)
    part = pipeline.parts["vae"]
    fill(network, names, part.tensors, what="an autoencoder of this config")
    return network


def autoencoder_laid_out(pipeline: Pipeline) -> tuple[Autoencoder, Map]:
    """Without weights, and its map."""
    part = pipeline.parts["vae"]
    with torch.device("meta"):
        if part.config.get("_class_name") == "AutoencoderTiny":
            tiny = tiny_config(part.config)
            return TinyAutoencoder(tiny), tiny_names(tiny)
        config = autoencoder_config(part.config)
        return AutoencoderKL(config), autoencoder_names(config, part.layout, old=_old(part))


def _old(part: Part) -> bool:
    return old_names(part.tensors.names())


def _shapes(part: Part) -> Mapping[str, Any]:
    return {name: part.tensors.shape(name) for name in part.tensors.names()}
