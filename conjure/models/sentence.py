"""One vector for a text, from the hidden states of its tokens, as `modules.json` of sentence-transformers says.

Legend: B rows, T tokens, D width, N texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from conjure.core.errors import ConjureError

Mode = Literal["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]
OLD_FLAGS: dict[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {"Tanh": torch.tanh, "Identity": lambda x: x, "ReLU": F.relu, "GELU": F.gelu}


@dataclass(frozen=True)
class Dense:
    """A matrix after the pooling."""

    weight: Tensor
    bias: Tensor | None
    activation: str

    def __call__(self, x_ND: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](F.linear(x_ND, self.weight, self.bias))


@dataclass(frozen=True)
class Sentence:
    """How hidden states become the vector of a text."""

    modes: tuple[Mode, ...] = ("mean",)
    normalise: bool = False
    dense: tuple[Dense, ...] = ()
    max_length: int = 0
    """Tokens of a text that count; 0: as many as the network reads."""

    def __call__(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """float32 `[B, D]` (`[B, n D]` of n modes)."""
        x_BD = torch.cat([pooled(hidden_BTD.float(), mask_BT, mode) for mode in self.modes], dim=-1)
        for layer in self.dense:
            x_BD = layer(x_BD)
        return F.normalize(x_BD, dim=-1) if self.normalise else x_BD


def pooled(hidden_BTD: Tensor, mask_BT: Tensor, mode: Mode) -> Tensor:
    """`[B, D]`, over the tokens where the mask is 1."""
    real_BT1 = mask_BT[..., None].to(hidden_BTD.dtype)
    if mode == "cls":
        return hidden_BTD[torch.arange(len(mask_BT)), mask_BT.long().argmax(-1)]
    if mode == "max":
        return hidden_BTD.masked_fill(real_BT1 == 0, -torch.inf).amax(1)
    if mode == "lasttoken":
        last_B = (mask_BT.long() * torch.arange(mask_BT.shape[1], device=mask_BT.device)).argmax(-1)
        return hidden_BTD[torch.arange(len(mask_BT)), last_B]
    if mode == "weightedmean":
        real_BT1 = real_BT1 * real_BT1.cumsum(1)
    total_BD, count_B1 = (hidden_BTD * real_BT1).sum(1), real_BT1.sum(1).clamp_min(1e-9)
    return total_BD / (count_B1.sqrt() if mode == "mean_sqrt_len_tokens" else count_B1)


def read(folder: Path) -> Sentence:
    """What `modules.json` of a model folder says; the mean of all tokens where there is none."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return Sentence()
    modes: tuple[Mode, ...] = ("mean",)
    normalise, dense = False, []
    for module in json.loads(modules.read_text(encoding="utf-8")):
        kind, inner = module["type"].rsplit(".", 1)[-1], _inside(folder, module.get("path", ""))
        if kind == "Pooling":
            modes = _modes(json.loads((inner / "config.json").read_text(encoding="utf-8")))
        elif kind == "Normalize":
            normalise = True
        elif kind == "Dense":
            dense.append(_dense(inner))
        elif kind != "Transformer":
            raise ConjureError(f"{modules}: cannot run a module of the kind {kind}",
                               hint="known are Transformer, Pooling, Dense, Normalize")
    limits = folder / "sentence_bert_config.json"
    said = json.loads(limits.read_text(encoding="utf-8")) if limits.is_file() else {}
    return Sentence(modes, normalise, tuple(dense), said.get("max_seq_length") or 0)


def _inside(folder: Path, path: str) -> Path:
    inner = (folder / path).resolve()
    if not inner.is_relative_to(folder.resolve()):
        raise ConjureError(f"{folder}/modules.json: {path} lies outside the model's folder")
    return inner


def _modes(said: Mapping[str, Any]) -> tuple[Mode, ...]:
    if "pooling_mode" in said:
        found = said["pooling_mode"]
        modes: tuple[Any, ...] = (found,) if isinstance(found, str) else tuple(found)
    else:
        modes = tuple(mode for flag, mode in OLD_FLAGS.items() if said.get(flag))
    if not modes or not set(modes) <= set(OLD_FLAGS.values()):
        raise ConjureError(f"expected a way to pool, got {modes}", hint=f"known are {', '.join(OLD_FLAGS.values())}")
    return modes


def _dense(folder: Path) -> Dense:
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = said.get("activation_function", "Tanh").rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise ConjureError(f"{folder}: unknown activation {name}", hint=f"known are {', '.join(ACTIVATIONS)}")
    tensors = load_file(folder / "model.safetensors")
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), name)
