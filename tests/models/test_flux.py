"""Flux against diffusers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.models.flux import Flux, FluxConfig, turns_of
from conjure.models.public.diffusion_transformers import flux_config, flux_names
from tests.models.diffusers_references import drawn, filled, reference
from tests.models.public.references import close

TINY: dict[str, Any] = {
    "in_channels": 12, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 20, "pooled_projection_dim": 12, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
OURS = FluxConfig(channels=3, out_channels=3, dim=32, layers=1, single_layers=1, heads=2, hidden=48, context=20,
                  pooled=12, guidance=True, axes=(4, 6, 6))  # fmt: skip


def told(batch: int, height: int, width: int, channels: int = 3) -> tuple[Tensor, ...]:
    t = torch.tensor([1000.0, 437.5, 62.5])[:batch]
    return drawn(batch, channels, height, width), t, drawn(batch, 5, 20, seed=1), drawn(batch, 12, seed=2)


def theirs(model: Any, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor, guidance: Tensor | None) -> Tensor:
    """The way diffusers' pipeline goes: packed, with places beside it, and packed again."""
    batch, channels, height, width = x.shape
    cpu = torch.device("cpu")
    places = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, cpu, torch.float32)
    packed = FluxPipeline._pack_latents(x, batch, channels, height, width)
    out = model(packed, context, pooled, t / 1000, places, torch.zeros(context.shape[1], 3), guidance).sample
    return FluxPipeline._unpack_latents(out, height, width, 1)


@pytest.mark.parametrize("kind", ["schnell", "dev", "fill"])
def test_it_is_diffusers_network(kind: str) -> None:
    changes = {"schnell": {}, "dev": {"guidance_embeds": True}, "fill": {"in_channels": 20, "out_channels": 12}}[kind]
    model = reference(FluxTransformer2DModel(**{**TINY, **changes}))
    config = flux_config(json.loads(model.to_json_string()))
    network = filled(Flux(config), flux_names(config), model.state_dict())
    for batch, height, width in ((3, 8, 8), (2, 4, 14), (1, 2, 2)):
        x, t, context, pooled = told(batch, height, width, 5 if kind == "fill" else 3)
        guidance = torch.tensor([3.5, 1.0, 7.5])[:batch] if kind == "dev" else None
        wanted = theirs(model, x, t, context, pooled, guidance)
        close(network(x, t, context, pooled, guidance), wanted)


def test_turns_of_large_pictures() -> None:
    model = FluxTransformer2DModel(**{**TINY, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)})
    places = FluxPipeline._prepare_latent_image_ids(1, 90, 160, torch.device("cpu"), torch.float32)
    wanted = model.pos_embed(torch.cat([torch.zeros(7, 3), places]))
    for got, table in zip(turns_of(7, 90, 160, (16, 56, 56)), wanted, strict=True):
        assert (got - table[:, ::2]).abs().max() <= 1e-6 and torch.equal(table[:, ::2], table[:, 1::2])


def test_a_new_one_says_nothing_yet_and_every_parameter_learns() -> None:
    network = Flux(OURS)
    inputs = (*told(2, 4, 4), torch.tensor([3.5, 1.0]))
    assert network(*inputs).abs().max() == 0
    with torch.no_grad():
        network.ending.linear.weight.normal_()
    network(*inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_half_precision_stays_finite() -> None:
    network = Flux(OURS)
    with torch.no_grad():
        network.blocks[0].context.feedforward.down.bias.fill_(1e6)  # type: ignore[union-attr]
        network.ending.linear.weight.normal_()
        x, t, context, pooled = told(1, 4, 4)
        halves = (each.half() for each in (context, pooled))
        out = network(x.half(), t, *halves, torch.tensor([3.5]))
    assert out.dtype == torch.float16 and out.isfinite().all()


@pytest.mark.parametrize("guidance", [True, False])
def test_flops(guidance: bool) -> None:
    config = FluxConfig(**{**vars(OURS), "guidance": guidance})
    network, counter = Flux(config), FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernel of CPUs is not counted
        network(*told(2, 4, 6), torch.tensor([3.5, 1.0]))
    assert counter.get_total_flops() == network.flops(2, 4, 6, context=5)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConjureError, match="divisible by 2, got 3 x 4"):
        Flux(OURS)(*told(1, 3, 4), torch.tensor([3.5]))
    with pytest.raises(ConjureError, match="whose sum is dim / heads"):
        FluxConfig(**{**vars(OURS), "axes": (4, 4, 4)})
    with pytest.raises(ConjureError, match="expected 3 numbers"):
        FluxConfig(**{**vars(OURS), "axes": (8, 8)})
