"""DiT against diffusers, and what its own training needs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel, Transformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.errors import ConjureError
from conjure.models.class_dit import ClassDiT, ClassDiTConfig
from conjure.models.public.diffusion_transformers import class_dit_config, class_dit_names
from tests.models.diffusers_references import drawn, filled, reference
from tests.models.public.references import close

TINY: dict[str, Any] = {
    "num_attention_heads": 4, "attention_head_dim": 8, "in_channels": 3, "out_channels": 6, "num_layers": 2,
    "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10,
}  # fmt: skip
OLD = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate", "attention_bias": True,
       "norm_elementwise_affine": False}  # fmt: skip
OURS = ClassDiTConfig(channels=3, out_channels=6, size=8, dim=32, layers=2, heads=4, hidden=48, classes=10)


def same(model: Any) -> ClassDiT:
    config = class_dit_config(json.loads(model.to_json_string()))
    return filled(ClassDiT(config), class_dit_names(config), model.state_dict())


@pytest.mark.filterwarnings("ignore:`Transformer2DModelOutput` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["new", "old", "one patch", "finer places"])
def test_it_is_diffusers_network(kind: str) -> None:
    if kind == "old":
        model = reference(Transformer2DModel(**TINY, **OLD))
    elif kind == "finer places":
        model = reference(Transformer2DModel(**TINY, **OLD, interpolation_scale=3.0))
    else:
        model = reference(DiTTransformer2DModel(**TINY | ({"patch_size": 4} if kind == "one patch" else {})))
    x, t, labels = drawn(3, 3, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([0, 7, 10])
    wanted = model(x, timestep=t, class_labels=labels).sample
    close(same(model)(x, t, labels), wanted)


def test_other_sizes_see_the_same_grid_finer() -> None:
    model = reference(DiTTransformer2DModel(**TINY))
    x, t, labels = drawn(1, 3, 12, 12), torch.tensor([40]), torch.tensor([3])
    close(same(model)(x, t, labels), model(x, timestep=t, class_labels=labels).sample)
    assert same(model)(drawn(1, 3, 6, 10), t, labels).shape == (1, 6, 6, 10)


def test_the_papers_own_frequencies_differ_from_diffusers() -> None:
    network, other = ClassDiT(OURS), ClassDiT(OURS)
    with torch.no_grad():
        for each in network.parameters():
            each.copy_(0.2 * drawn(*each.shape, seed=each.numel()))
    other.load_state_dict(network.state_dict())
    other.config = ClassDiTConfig(**{**vars(OURS), "frequencies": 127})
    t, features = torch.tensor([321.0]), torch.arange(128) / 128
    made = network.time(torch.cat([(t * 10_000**-features).cos(), (t * 10_000**-features).sin()])[None])
    seen = []
    network.time.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        x, labels = drawn(1, 3, 8, 8), torch.tensor([1])
        assert (network(x, t, labels) - other(x, t, labels)).abs().max() > 1e-3
    assert (seen[0] - made).abs().max() <= 1e-3 * made.abs().max()


def test_a_new_one_says_nothing_yet_and_every_parameter_learns() -> None:
    network = ClassDiT(OURS)
    inputs = drawn(2, 3, 8, 8), torch.tensor([5, 900]), torch.tensor([0, 10])
    assert network(*inputs).abs().max() == 0
    assert network.config.learned_variance
    with torch.no_grad():
        network.ending.linear.weight.normal_()
    network(*inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.blocks[0].heads.qkv.weight.grad.abs().max() > 0, "gates are open from the start"  # type: ignore[union-attr]


def test_half_precision_stays_half() -> None:
    network = ClassDiT(OURS).bfloat16()
    assert network(drawn(1, 3, 8, 8).bfloat16(), torch.tensor([5]), torch.tensor([0])).dtype == torch.bfloat16


def test_flops() -> None:
    network, counter = ClassDiT(OURS), FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernel of CPUs is not counted
        network(drawn(2, 3, 8, 6), torch.tensor([5, 6]), torch.tensor([0, 1]))
    assert counter.get_total_flops() == network.flops(2, 8, 6)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConjureError, match="divisible by 2, got 7 x 8"):
        ClassDiT(OURS)(drawn(1, 3, 7, 8), torch.tensor([5]), torch.tensor([0]))
    for change in ({"size": 9}, {"heads": 5}, {"dim": 34, "heads": 2}):
        with pytest.raises(ConjureError, match="expected patch to divide size"):
            ClassDiTConfig(**{**vars(OURS), **change})
