"""The feed-forward layer against its formula, for every activation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from conjure.core.seeds import normal
from conjure.nn.feedforward import ACTIVATIONS, FeedForward, _GatedSiLU

SCALAR = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "clamped_swish": lambda x: min(x, 7.0) / (1 + math.exp(-1.702 * min(x, 7.0))),
}


def test_every_activation_is_covered() -> None:
    assert set(SCALAR) == set(ACTIVATIONS)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", list(SCALAR))
def test_feedforward(activation: str, gated: bool) -> None:
    layer = FeedForward(4, 3, activation=activation, gated=gated, bias=True)  # type: ignore[arg-type]
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal([i], parameter.shape)[0])
    x = normal([9], (2, 4))[0]
    h = 5 * x @ layer.up.weight.T + layer.up.bias
    x = 5 * x  # far enough for what is clamped
    bent = torch.tensor([[SCALAR[activation](v) for v in row] for row in h.tolist()])
    up = h[:, 3:].clamp(-7, 7) + 1 if activation == "clamped_swish" else h[:, 3:]
    wanted = (bent[:, :3] * up if gated else bent) @ layer.down.weight.T + layer.down.bias
    assert (layer(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert (layer(x.requires_grad_()) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    with torch.no_grad():
        assert (layer(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_gated_silu_has_the_right_gradient() -> None:
    h = normal([0], (2, 3, 8))[0].double().requires_grad_()
    assert torch.autograd.gradcheck(_GatedSiLU.apply, (h,))
    assert torch.autograd.gradcheck(lambda h: _GatedSiLU.apply(h.mT[:, :, :2]), (h,))  # not contiguous


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_silu_is_silu_times_up(dtype: torch.dtype) -> None:
    h, slope = normal([0], (5, 16))[0].to(dtype).requires_grad_(), normal([1], (5, 8))[0].to(dtype)
    wanted = F.silu(h[:, :8]) * h[:, 8:]
    got = _GatedSiLU.apply(h)
    assert got.dtype == dtype and torch.equal(got, wanted)
    (mine,), (theirs,) = (torch.autograd.grad((out * slope).sum(), h) for out in (got, wanted))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert mine.dtype == dtype and (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_a_compiled_layer_trains_alike() -> None:
    layer = FeedForward(4, 3)
    x = normal([2], (2, 4))[0].requires_grad_()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    (mine,), (theirs,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (compiled, layer))
    assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()
