"""Linear layers with what follows them, against the two steps; and when PyTorch's own are used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conjure.core.seeds import normal
from conjure.nn import fused
from conjure.nn.linear import Linear


@pytest.mark.parametrize("after", ["none", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("rows", [3, 80])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_layer_and_its_activation(after: fused.After, rows: int, bias: bool) -> None:
    layer = Linear(24, 40, bias=bias)
    x = normal([1, 2], (rows, 24))
    wanted = F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
    if after != "none":
        wanted = F.gelu(wanted, approximate="tanh" if after == "gelu_tanh" else "none")
    made = fused.linear(x, layer, after)
    assert made.shape == wanted.shape
    assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_only_many_rows_of_float32_without_gradients() -> None:
    layer, x = Linear(8, 8), torch.zeros(64, 8)
    assert not fused._fits(x, layer)
    fused.linear(x, layer, "gelu").sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert fused._fits(x, layer)
        assert not fused._fits(x[:63], layer) and not fused._fits(x.bfloat16(), layer)
        assert not fused._fits(x.T[:, :8].contiguous().T, layer)
        assert torch.equal(fused.linear(x.bfloat16(), layer), layer(x.bfloat16()))
