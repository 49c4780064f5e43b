"""MMDiT against diffusers' Stable Diffusion 3 and 3.5, and what its own training needs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.models.mmdit import MMDiT, MMDiTConfig
from conjure.models.public.diffusion_transformers import mmdit_config, mmdit_names
from conjure.train.optim import split_parameters
from tests.models.diffusers_references import drawn, filled, reference
from tests.models.public.references import close

TINY: dict[str, Any] = {
    "sample_size": 8, "patch_size": 2, "in_channels": 3, "out_channels": 3, "num_layers": 3, "attention_head_dim": 8,
    "num_attention_heads": 4, "joint_attention_dim": 20, "caption_projection_dim": 32, "pooled_projection_dim": 12,
    "pos_embed_max_size": 6,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "3": {}, "3.5 large": {"qk_norm": "rms_norm"},
    "3.5 medium": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "dual to the end": {"dual_attention_layers": (0, 2), "out_channels": 6, "num_layers": 3},
}  # fmt: skip
OURS = MMDiTConfig(channels=3, out_channels=3, dim=32, layers=3, heads=4, hidden=48, context=20, pooled=0, size=8,
                   places=4, qk_norm=True)  # fmt: skip


def told(batch: int = 2, height: int = 8, width: int = 8) -> tuple[Tensor, ...]:
    t = torch.tensor([1000.0, 437.5, 3.25])[:batch]
    return drawn(batch, 3, height, width), t, drawn(batch, 5, 20, seed=1), drawn(batch, 12, seed=2)


def same(model: Any) -> MMDiT:
    config = mmdit_config(json.loads(model.to_json_string()))
    return filled(MMDiT(config), mmdit_names(config), model.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_diffusers_network(kind: str) -> None:
    model = reference(SD3Transformer2DModel(**{**TINY, **KINDS[kind]}))
    network = same(model)
    for x, t, context, pooled in (told(3), told(2, 12, 6), told(1, 2, 10)):
        close(network(x, t, context, pooled), model(x, context, pooled, t).sample)


def test_the_table_in_the_file_is_what_counts() -> None:
    model = reference(SD3Transformer2DModel(**TINY))
    close(MMDiT(mmdit_config(model.config)).place_ND, model.pos_embed.pos_embed[0])
    model.pos_embed.pos_embed.copy_(drawn(1, 36, 32, seed=5))
    x, t, context, pooled = told()
    close(same(model)(x, t, context, pooled), model(x, context, pooled, t).sample)


@torch.no_grad()
def test_masked_context_changes_nothing() -> None:
    network = reference(MMDiT(OURS))
    x, t, context, _ = told()
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    out = network(x, t, context, mask_BS=mask)
    noisy = context.clone()
    noisy[:, 3:] = 100
    close(network(x, t, noisy, mask_BS=mask), out)
    close(network(x, t, context[:, :3]), out)
    assert (network(x, t, context) - out).abs().max() > 1e-3
    close(network(x[1:], t[1:], context[1:], mask_BS=mask[1:]), out[1:])


def test_a_new_one_says_nothing_yet_and_every_parameter_learns() -> None:
    network = MMDiT(OURS)
    x, t, context, _ = told()
    assert network(x, t, context).abs().max() == 0
    with torch.no_grad():
        network.ending.linear.weight.normal_()
    network(x, t, context).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    first = network.blocks[0].context
    assert first is not None and first.heads.qkv.weight.grad.abs().max() > 0, "gates are open from the start"  # type: ignore[union-attr]
    muon, adam = split_parameters(network)
    assert "blocks.2.listened.heads.qkv.weight" in muon and "blocks.0.picture.modulation.linear.weight" in adam


@pytest.mark.parametrize("dual", [(), (0, 2)])
def test_flops(dual: tuple[int, ...]) -> None:
    config = MMDiTConfig(**{**vars(OURS), "dual": dual, "pooled": 12 if dual else 0})
    network, counter = MMDiT(config), FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernel of CPUs is not counted
        network(*told(2, 8, 6)[: 4 if dual else 3])
    assert counter.get_total_flops() == network.flops(2, 8, 6, context=5)


def test_what_does_not_fit_is_said() -> None:
    network = MMDiT(OURS)
    x, t, context, _ = told()
    with pytest.raises(ConjureError, match="divisible by 2, got 8 x 5"):
        network(x[..., :5], t, context)
    with pytest.raises(ConjureError, match="at most 8 x 8, got 10 x 4"):
        network(drawn(2, 3, 10, 4), t, context)
    with pytest.raises(ConjureError, match="numbers of the 3 layers"):
        MMDiTConfig(**{**vars(OURS), "dual": (3,)})
    with pytest.raises(ConjureError, match="expected patch to divide size"):
        MMDiTConfig(**{**vars(OURS), "heads": 5})
