"""Tiny random diffusion transformers of diffusers, and ours filled from what they would save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from conjure.models.public.names import Map, rule_for
from tests.models.public.references import randomised


def reference(model: Any, seed: int = 0) -> Any:
    """Every parameter drawn anew; blocks of DiT share one embedding, as in all files there are."""
    randomised(model, seed)
    for block in getattr(model, "transformer_blocks", []):
        if getattr(getattr(block, "norm1", None), "emb", None) is not None:
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


def filled(network: Any, names: Map, state: Mapping[str, Tensor]) -> Any:
    """The network with the tensors of `state`, all of which have to be used."""
    left, made = set(state), {}
    for parameter, target in network.state_dict().items():
        match = rule_for(parameter, names)
        assert match is not None, parameter
        rule, last, numbers = match
        listed = rule.names(last, numbers)
        left -= set(listed)
        made[parameter] = rule.read([state[name] for name in listed])
        assert made[parameter].shape == target.shape, parameter
        if rule.shaped is not None:
            assert rule.shaped([tuple(state[name].shape) for name in listed]) == tuple(target.shape), parameter
    assert not left
    network.load_state_dict(made)
    return network.eval().requires_grad_(False)


def written(network: nn.Module, names: Map) -> dict[str, Tensor]:
    """As the file would have it."""
    state: dict[str, Tensor] = {}
    for parameter, tensor in network.state_dict().items():
        match = rule_for(parameter, names)
        assert match is not None, parameter
        rule, last, numbers = match
        state |= zip(rule.names(last, numbers), rule.write(tensor), strict=True)
    return state


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
