"""An ear with random weights, small; as a folder too."""

from __future__ import annotations

from pathlib import Path

import torch

from conjure.core import seeds as randomness
from conjure.core.config import to_dict
from conjure.models.ear import Ear, EarConfig
from conjure.models.folder import save_weights, write_config
from conjure.models.transformer import TransformerConfig
from conjure.nn.position import Rope

EAR = EarConfig(
    stack=TransformerConfig(vocab=0, dim=32, layers=3, heads=2, hidden=48, causal=False, qk_norm=True,
                            rope=Rope(dim=16)), first=1, middle=1, kernel=3)  # fmt: skip


def ear(seed: int = 0) -> Ear:
    with randomness.drawing_weights(seed):
        network = Ear(EAR)
    with torch.no_grad():
        for head in (network.letters, network.phones):
            head.weight.normal_(std=0.5, generator=randomness.generator(seed))
    return network.eval().requires_grad_(False)


def folder(path: Path, seed: int = 0) -> Path:
    network = ear(seed)
    write_config(path, kind="ear", task="ear", network=network, sections={"model": to_dict(EAR)})
    save_weights(path, "model", network)
    return path
