"""Linear layers and norms against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conjure.core.seeds import normal
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm, RMSNorm, _RMSNorm


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(normal([i], parameter.shape)[0])
    return module


def test_linear_follows_the_precision_of_its_input() -> None:
    layer = randomised(Linear(5, 3))
    x = normal([1], (4, 5))[0]
    close(layer(x), x @ layer.weight.T + layer.bias)
    assert layer(x.bfloat16()).dtype == torch.bfloat16 and layer.weight.dtype == torch.float32
    close(layer(x.double()), x.double() @ layer.weight.double().T + layer.bias.double())


@pytest.mark.parametrize("plus_one", [False, True])
def test_rms_norm(plus_one: bool) -> None:
    norm = RMSNorm(6, eps=0.1, plus_one=plus_one)
    x = normal([2], (3, 6))[0]
    unscaled = x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt()
    close(norm(x), unscaled)  # as it starts
    randomised(norm)
    close(norm(x), unscaled * (norm.weight + plus_one))
    close(RMSNorm(6, eps=0.1, affine=False)(x), unscaled)


def test_layer_norm() -> None:
    norm = randomised(LayerNorm(6, eps=0.1))
    x = normal([3], (3, 6))[0] + 5
    unscaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 0.1).sqrt()
    close(norm(x), unscaled * norm.weight + norm.bias)
    assert LayerNorm(6, bias=False).bias is None
    close(LayerNorm(6, eps=0.1, affine=False)(x), unscaled)


@pytest.mark.parametrize("norm", [RMSNorm(64), LayerNorm(64)])
def test_norms_compute_in_float32_and_return_the_input_type(norm: nn.Module) -> None:
    x = 300 * normal([4], (2, 64))[0]  # its square is beyond float16
    assert norm(x.half()).dtype == torch.float16
    assert (norm(x.half()).float() - norm(x)).abs().max() < 2e-3


def test_rms_norm_has_the_right_gradient() -> None:
    x = normal([5], (2, 3, 4))[0].double().requires_grad_()
    weight = normal([6], (4,))[0].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: _RMSNorm.apply(x, w, 0.1), (x, weight))
    assert torch.autograd.gradcheck(lambda x, w: _RMSNorm.apply(x.mT, w[:3], 0.1), (x[0], weight))  # not contiguous


@pytest.mark.parametrize("plus_one", [False, True])
def test_rms_norm_trains_as_the_one_of_pytorch(plus_one: bool) -> None:
    norm = randomised(RMSNorm(64, plus_one=plus_one))
    x, slope = normal([7], (5, 7, 64))[0].requires_grad_(), normal([8], (5, 7, 64))[0]
    wanted = F.rms_norm(x, (64,), norm.weight + plus_one, norm.eps)
    got = norm(x)
    close(got, wanted)
    inputs = [x, norm.weight]
    theirs = torch.autograd.grad((wanted * slope).sum(), inputs)
    for mine, their in zip(torch.autograd.grad((got * slope).sum(), inputs), theirs, strict=True):
        close(mine, their)
    with torch.no_grad():
        close(norm(norm(x)), F.rms_norm(wanted, (64,), norm.weight + plus_one, norm.eps))
    half = x.detach().bfloat16().requires_grad_()
    out = norm(half)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and half.grad is not None and half.grad.dtype == torch.bfloat16
