"""The image autoencoder inside a model folder: a codec's own, or one that a picture model carries."""

from __future__ import annotations

from pathlib import Path

from conjure.codecs.image_autoencoder import ImageAutoencoder, ImageAutoencoderConfig, channels_last
from conjure.core.config import from_dict
from conjure.models.folder import load_weights, read_config


def load_codec(folder: Path) -> ImageAutoencoder:
    """Ready for use: no gradients, channels last. Raises `ConjureError` where the folder has none."""
    config = from_dict(ImageAutoencoderConfig, read_config(folder).get("codec", {}), where="codec")
    network = ImageAutoencoder(config)
    load_weights(network, folder / "codec.safetensors")
    network.eval().requires_grad_(False)
    return channels_last(network)
