"""Tiny random codecs of the reference implementation, saved as the hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from tests.models.public.references import randomised, saved


def encodec_config(**more: Any) -> Any:
    sizes: dict[str, Any] = dict(  # noqa: C408
        num_filters=4, upsampling_ratios=[4, 3, 2], hidden_size=16, codebook_size=32, num_lstm_layers=2,
        target_bandwidths=[10.0, 20.0, 40.0], sampling_rate=16_000,
    )  # fmt: skip
    return tf.EncodecConfig(**{**sizes, **more})


def drawn(model: Any, seed: int = 3) -> Any:
    """With codes where the encoder puts sounds, so that many of them come up."""
    model = randomised(model)
    for name, parameter in model.encoder.named_parameters():  # that frames differ, and not by little beside their mean
        parameter.mul_(0.02 if "bias" in name else 2.0)
    generator = torch.Generator().manual_seed(seed)
    z_ND = model.encoder(sound(4, model.config.audio_channels)).movedim(1, -1).flatten(0, 1)
    spread_D = z_ND.std(0)
    for place, layer in enumerate(model.quantizer.layers):
        noise_CD = torch.randn(layer.codebook.embed.shape, generator=generator)
        drawn_C = torch.randint(len(z_ND), (len(noise_CD),), generator=generator)
        layer.codebook.embed.copy_(z_ND[drawn_C] if place == 0 else noise_CD * spread_D * 0.8**place)
        layer.codebook.cluster_size.copy_(noise_CD[:, 0].abs())
    return model


def encodec(folder: Path, **more: Any) -> Path:
    return saved(drawn(tf.EncodecModel(encodec_config(**more))), folder)


def dac(folder: Path, **more: Any) -> Path:
    sizes: dict[str, Any] = dict(  # noqa: C408
        encoder_hidden_size=4, downsampling_ratios=[2, 3, 4], decoder_hidden_size=32, n_codebooks=3, codebook_size=32,
        codebook_dim=4, sampling_rate=16_000,
    )  # fmt: skip
    return saved(randomised(tf.DacModel(tf.DacConfig(**{**sizes, **more}))), folder)


def sound(rows: int = 2, channels: int = 1, samples: int = 700, seed: int = 5) -> Tensor:
    return 0.3 * torch.randn(rows, channels, samples, generator=torch.Generator().manual_seed(seed))
