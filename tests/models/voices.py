"""Tiny random voices of the reference implementation, in folders as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from tests.models.public.references import randomised

CHARACTERS = "k'z_aeioubcdfghlmnprst -"
VITS: dict[str, Any] = {
    "vocab_size": len(CHARACTERS) + 1, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "ffn_dim": 24, "flow_size": 12, "spectrogram_bins": 9, "upsample_initial_channel": 16, "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4], "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "duration_predictor_filter_channels": 20, "prior_encoder_num_flows": 2, "prior_encoder_num_wavenet_layers": 2,
    "posterior_encoder_num_wavenet_layers": 2, "wavenet_dilation_rate": 2,
}  # fmt: skip


def vits_reference(seed: int = 0, **more: Any) -> Any:
    """Durations of a few frames, not of e^20."""
    return randomised(tf.VitsModel(tf.VitsConfig(**{**VITS, **more})), seed)


def vits(folder: Path, model: Any = None, **tokenizer: Any) -> Path:
    """A folder of MMS-TTS."""
    model = vits_reference() if model is None else model
    model.save_pretrained(folder)
    vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "<unk>": len(vocabulary)}))
    said = {"add_blank": True, "normalize": True, "phonemize": False, "is_uroman": False, "language": "eng",
            "pad_token": "k", "unk_token": "<unk>", "tokenizer_class": "VitsTokenizer"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, **tokenizer}))
    return folder


class Noises:
    """Noise for both sides: what the reference draws is drawn here again."""

    def __init__(self, seed: int = 5) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: list[torch.Tensor] = []

    def randn(self, *shape: int, **_: Any) -> torch.Tensor:
        self.drawn.append(torch.normal(torch.zeros(shape), 1.0, generator=self.generator))
        return self.drawn[-1]

    def randn_like(self, tensor: torch.Tensor, **_: Any) -> torch.Tensor:
        return self.randn(*tensor.shape)
