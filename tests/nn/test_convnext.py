from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conjure.core import seeds as randomness
from conjure.nn.convnext import ConvNeXt, TimeConvolution


@torch.no_grad()
def test_a_convolution_is_its_sum() -> None:
    layer = TimeConvolution(3, 5, 3, dilation=2)
    x_BTD = randomness.normal([0], (9, 3))
    wanted = layer.bias.expand(1, 9, 5).clone()
    for t in range(9):
        for tap, reach in enumerate((-2, 0, 2)):
            if 0 <= t + reach < 9:
                wanted[0, t] += layer.weight[:, :, tap] @ x_BTD[0, t + reach]
    found = layer(x_BTD)
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


def test_depthwise_keeps_channels_apart() -> None:
    layer = TimeConvolution(4, 4, 7, depthwise=True)
    x_BTD = randomness.normal([0], (12, 4)).requires_grad_()
    layer(x_BTD)[0, 6, 2].backward()
    assert x_BTD.grad is not None
    touched = x_BTD.grad[0].abs() > 0
    assert touched[3:10, 2].all() and int(touched.sum()) == 7
    with pytest.raises(ValueError, match="odd kernel"):
        TimeConvolution(4, 4, 6)


@torch.no_grad()
def test_a_block_by_hand() -> None:
    block = ConvNeXt(6, 10, kernel=3)
    x_BTD = randomness.normal([0, 1], (8, 6))
    h = F.layer_norm(block.depthwise(x_BTD), (6,), eps=1e-6)
    wanted = x_BTD + 0.3 * (F.gelu(h @ block.up.weight.T + block.up.bias) @ block.down.weight.T + block.down.bias)
    found = block(x_BTD)
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


@torch.no_grad()
def test_the_condition_shifts_scales_and_gates() -> None:
    block = ConvNeXt(6, 10, kernel=3)
    x_BTD = randomness.normal([0, 1], (8, 6))
    zero = torch.zeros(2, 1, 6)
    torch.testing.assert_close(block(x_BTD, None, (zero, zero, zero)), block(x_BTD))
    torch.testing.assert_close(block(x_BTD, None, (zero, zero, zero - 1)), x_BTD)  # the gate shuts
    shift, scale = randomness.normal([2, 3], (1, 6)), randomness.normal([4, 5], (1, 6))
    h = F.layer_norm(block.depthwise(x_BTD), (6,), eps=1e-6) * (1 + scale) + shift
    torch.testing.assert_close(block(x_BTD, None, (shift, scale, zero)), x_BTD + 0.3 * block.down(F.gelu(block.up(h))))


@torch.no_grad()
def test_what_lies_beyond_the_mask_changes_nothing() -> None:
    block = ConvNeXt(6, 10)
    x_BTD = randomness.normal([0], (20, 6))
    mask_BT1 = (torch.arange(20) < 12).float()[None, :, None]
    short = block(x_BTD[:, :12])
    torch.testing.assert_close(block(x_BTD, mask_BT1)[:, :12], short)
    assert not torch.allclose(block(x_BTD)[:, :12], short)
