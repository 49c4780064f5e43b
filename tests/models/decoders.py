"""Shapes of decoders, random networks of them, and a run through all that a cache can do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from conjure.models.ngram import NGram
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from conjure.nn.rope_scaling import RopeScaling

BASE: dict[str, Any] = {"vocab": 97, "dim": 32, "layers": 2, "heads": 4, "hidden": 64, "rope": Rope(dim=8)}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries": {"kv_heads": 2},
    "one key head, odd widths": {"heads": 5, "kv_heads": 1, "head_dim": 12, "hidden": 50, "rope": Rope(dim=12)},
    "wide heads": {"dim": 80, "heads": 2, "head_dim": 72, "rope": Rope(dim=72)},
    "biases": {"norm": "layer", "qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "gemma": {"norm": "rms1", "placement": "sandwich", "embedding_scale": 5.7, "activation": "gelu_tanh",
              "qk_norm": True, "windows": (5, 0), "rope_local": Rope(dim=8, theta=100.0)},
    "post": {"placement": "post", "norm": "layer"},
    "post, final norm": {"placement": "post", "final_norm": True},
    "no final norm, scaled": {"final_norm": False, "logit_scale": 0.3},
    "parallel, one norm": {"parallel": "shared", "norm": "layer", "gated": False, "activation": "gelu"},
    "parallel, two norms": {"parallel": "separate", "gated": False, "activation": "quick_gelu"},
    "pairs side by side": {"rope": Rope(dim=4, interleaved=True)},
    "llama3 scaling": {"rope": Rope(dim=8, scaling=RopeScaling(kind="llama3", factor=8, original=16))},
    "learned": {"rope": None, "positions": "learned", "max_length": 64, "position_offset": 2},
    "sinusoid": {"rope": None, "positions": "sinusoid", "max_length": 64},
    "soft caps": {"attention_softcap": 3.0, "logit_softcap": 2.0},
    "alibi": {"rope": None, "alibi": "bloom", "embedding_norm": True},
    "sinks": {"sinks": True},
    "own head": {"tie": False, "head_bias": True, "logit_scale": 0.7},
    "relu2": {"activation": "relu2", "gated": False},
    "relu": {"activation": "relu"},
    "scales": {"attention_scale": 0.2, "scale_by_layer": True, "norm_affine": False, "norm": "layer"},
    "n-grams": {"ngram": NGram(rows=50, dim=8)},
}  # fmt: skip


def made(**knobs: Any) -> Transformer:
    """Random weights everywhere, norms and biases too."""
    network, random = Transformer(TransformerConfig(**{**BASE, **knobs})), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            centre = 1.0 if parameter.dim() == 1 and network.config.norm != "rms1" else 0.0
            size = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(centre + size * torch.randn(parameter.shape, generator=random))
    return network.eval().requires_grad_(False)


def ids(B: int, T: int, seed: int = 0) -> Tensor:
    return torch.randint(0, BASE["vocab"], (B, T), generator=torch.Generator().manual_seed(seed))


def said(network: Any, padding: list[int]) -> list[Tensor]:
    """A padded batch: a prompt, a step, other rows, some tokens taken back, and on."""
    given = ids(3, 24)
    cache = network.cache(3, 40, padding)
    prompt = network(given[:, :17], cache=cache, last_only=False)
    real = torch.arange(17) >= torch.tensor(padding)[:, None]
    found = [prompt[real], network(given[:, 17:18], cache=cache, last_only=True)]
    cache.keep([1, 0, 1])
    found.append(network(given[[1, 0, 1], 18:21], cache=cache, last_only=True))
    cache.truncate(19)
    found.append(network(given[:, 21:24], cache=cache, last_only=False))
    assert cache.length == 22
    return found


def apart(got: list[Tensor], wanted: list[Tensor]) -> float:
    assert [x.shape for x in got] == [x.shape for x in wanted]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, wanted, strict=True))
