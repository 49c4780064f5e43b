"""A public model ready for use: logits, hidden states, embeddings, text.

Legend: B rows, T tokens, V vocabulary, D width, N texts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Checkpoint
from conjure.models.public.load import LoadReport, build, family_of
from conjure.models.transformer import Transformer

Ids = Tensor | Sequence[Sequence[int]]


class LanguageModel:
    """What `conjure.load` gives for a public model."""

    def __init__(self, network: nn.Module, config: dict[str, Any], folder: Path, report: LoadReport) -> None:
        self.network, self.config, self.folder, self.report = network, config, folder, report

    @classmethod
    def load(cls, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> LanguageModel:
        """From a folder with config.json, safetensors and tokenizer files as the hub has them."""
        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family_of(config)
        network, report = build(config, Checkpoint(folder), dtype)
        return cls(network, config, folder, report)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder)

    @property
    def family(self) -> str:
        return self.report.family

    @torch.inference_mode()
    def logits(
        self,
        input_ids: Ids | None = None,
        attention_mask: Ids | None = None,
        decoder_input_ids: Ids | None = None,
        token_type_ids: Ids | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> Tensor:
        """float32 `[B, T, V]`; where `attention_mask` is 0, what comes out means nothing."""
        given = self._given(input_ids, attention_mask, decoder_input_ids, token_type_ids, pixel_values, input_features)
        if isinstance(self.network, Transformer):
            return self.network(given["input_ids"], mask_BT=given.get("attention_mask"))
        return self.network.logits(**given)

    @torch.inference_mode()
    def hidden(
        self,
        input_ids: Ids | None = None,
        attention_mask: Ids | None = None,
        decoder_input_ids: Ids | None = None,
        token_type_ids: Ids | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> Tensor:
        """The last hidden states, float32 `[B, T, D]`, after the final norm."""
        given = self._given(input_ids, attention_mask, decoder_input_ids, token_type_ids, pixel_values, input_features)
        if isinstance(self.network, Transformer):
            return self.network.hidden(given["input_ids"], mask_BT=given.get("attention_mask")).float()
        return self.network.hidden(**given).float()

    def _given(self, *values: Ids | None) -> dict[str, Tensor]:
        names = ("input_ids", "attention_mask", "decoder_input_ids", "token_type_ids", "pixel_values", "input_features")
        given = {name: torch.as_tensor(value) for name, value in zip(names, values, strict=True) if value is not None}
        vocab = getattr(self, "vocab", 0)
        for name in ("input_ids", "decoder_input_ids"):
            ids = given.get(name)
            if ids is None:
                continue
            if ids.dim() != 2 or not ids.numel():
                raise ConjureError(f"{name}: expected ids [rows, tokens] and at least one, got {list(ids.shape)}")
            if vocab and (ids.min() < 0 or ids.max() >= vocab):
                raise ConjureError(f"{name}: expected ids from 0 to {vocab - 1}, got {int(ids.min())} to {int(ids.max())}")
        return given

    @property
    def vocab(self) -> int:
        """Ids are below this; 0 for models that read no text."""
        config = getattr(self.network, "config", None)
        inner = next((part for name in ("encoder", "stack", "text") if (part := getattr(config, name, None))), config)
        return getattr(inner, "vocab", 0)
