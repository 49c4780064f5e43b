"""The vocoder inside a model folder: its own, or one that a voice carries."""

from __future__ import annotations

from pathlib import Path

from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.models.folder import load_weights, read_config
from conjure.models.istft_vocoder import Vocoder, VocoderConfig


def load_vocoder(folder: Path) -> Vocoder:
    """Ready for use, without gradients. Raises `ConjureError` where the folder has none."""
    saved = read_config(folder)
    if "vocoder" not in saved:
        raise ConjureError(f"{folder} holds no vocoder", hint="conjure train voice-vocoder makes one")
    network = Vocoder(from_dict(VocoderConfig, saved["vocoder"], where="vocoder"))
    load_weights(network, folder / "vocoder.safetensors")
    return network.eval().requires_grad_(False)
