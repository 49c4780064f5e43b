"""Neural codecs of sound by their folders: ours, and those of the hub."""

from __future__ import annotations

from pathlib import Path

import torch

from conjure.core import shelf
from conjure.core.config import from_dict
from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Checkpoint
from conjure.models.folder import load_weights, read_config
from conjure.models.public.load import build, family_of
from conjure.models.sound_codes import SoundCodec
from conjure.models.speech_codec import SpeechCodec, SpeechCodecConfig


def load_codec(folder: Path) -> SpeechCodec:
    """Ours; `ConjureError` where there is none."""
    saved = read_config(folder)
    if saved.get("kind") != "speech_codec":
        raise ConjureError(f"{folder} holds no codec of speech", hint="conjure train codec makes one")
    network = SpeechCodec(from_dict(SpeechCodecConfig, saved["codec"], where="codec"))
    load_weights(network, folder / "codec.safetensors")
    return network.eval().requires_grad_(False)


def load_public(folder: Path) -> SoundCodec:
    """EnCodec or DAC in the layout of the hub."""
    config = shelf.read_config(folder)
    kind, family = family_of(config)
    if family.kind != "sound_codec":
        raise ConjureError(f"{folder.name}: a {kind} is no codec of sound", hint="for example: facebook/encodec_24khz")
    network, _ = build(config, Checkpoint(folder), torch.float32)
    assert hasattr(network, "encode") and hasattr(network, "decode")
    return network  # type: ignore[return-value]
