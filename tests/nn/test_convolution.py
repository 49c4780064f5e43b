"""Convolutions and group norm against torch's own, and bands against the whole picture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.seeds import normal
from conjure.nn.convolution import Conv2d, Downsample, GroupNorm, Residual, Upsample, banded_conv, in_bands
from conjure.nn.native import pixels as compiled


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.copy_(0.3 * normal([k], parameter.shape)[0] + (parameter.mean() == 1))
    return module


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


def picture(height: int = 7, width: int = 6, channels: int = 8, batch: int = 2) -> Tensor:
    return normal(range(batch), (channels, height, width))


@torch.no_grad()
def test_group_norm() -> None:
    ours, x = randomised(GroupNorm(2, 8, 1e-3)), picture()
    assert isinstance(ours, GroupNorm)
    groups = x.view(2, 2, -1)
    plain = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, keepdim=True, unbiased=False) + 1e-3).sqrt()
    wanted = plain.view_as(x) * ours.weight[:, None, None] + ours.bias[:, None, None]
    close(ours(x), wanted)
    active = GroupNorm(2, 8, 1e-3, silu=True)
    active.load_state_dict(ours.state_dict())
    close(active(x), wanted * wanted.sigmoid())
    close(active(x.contiguous(memory_format=torch.channels_last)), wanted * wanted.sigmoid())


@torch.no_grad()
def test_group_norm_is_computed_in_float32() -> None:
    norm, x = GroupNorm(2, 8), (1000 * picture()).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_computes_in_the_type_of_its_input(dtype: torch.dtype) -> None:
    conv, x = Conv2d(8, 4, 3, padding=1), picture().to(dtype)
    wanted = F.conv2d(x, conv.weight.to(dtype), None if conv.bias is None else conv.bias.to(dtype), padding=1)
    assert conv(x).dtype == dtype
    assert torch.equal(conv(x), wanted)


def read_plainly(block: Residual, x: Tensor, time: Tensor) -> Tensor:
    """The formula, nothing in place."""
    assert block.time is not None
    assert block.skip is not None
    told = block.time(time)[..., None, None]
    h = F.conv2d(F.silu(F.group_norm(x, 2, block.norm1.weight, block.norm1.bias)), block.conv1.weight, block.conv1.bias,
                 padding=1)
    if block.scales:
        h = F.group_norm(h, 2, block.norm2.weight, block.norm2.bias) * (1 + told[:, :4]) + told[:, 4:]
    else:
        h = F.group_norm(h + told, 2, block.norm2.weight, block.norm2.bias)
    wanted = F.conv2d(F.silu(h), block.conv2.weight, block.conv2.bias, padding=1)
    return wanted + F.conv2d(x, block.skip.weight, block.skip.bias)


@pytest.mark.parametrize("scales", [False, True])
def test_a_residual_block_is_what_the_papers_say(scales: bool) -> None:
    block, x, time = randomised(Residual(8, 4, time=6, groups=2, scales=scales)), picture(), normal([7, 8], (6,))
    assert isinstance(block, Residual)
    before = x.clone()
    with torch.no_grad():
        close(block(x, time), read_plainly(block, x, time))
    assert torch.equal(x, before), "the input is left as it was"
    inputs = [x.requires_grad_(), time.requires_grad_(), *block.parameters()]
    weights = picture(channels=4)
    ours = torch.autograd.grad((block(x, time) * weights).sum(), inputs)
    theirs = torch.autograd.grad((read_plainly(block, x, time) * weights).sum(), inputs)
    for got, wanted in zip(ours, theirs, strict=True):
        assert (got - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize(("height", "rows"), [(7, 2), (8, 1), (6, 8), (9, 3)])
def test_bands_are_the_whole(height: int, rows: int) -> None:
    x = picture(height)
    for module in (Residual(8, 8, groups=2), Residual(8, 4, groups=4), Upsample(8), Downsample(8, lopsided=True)):
        randomised(module)
        if isinstance(module, Downsample) and rows % 2:
            continue
        bands = in_bands(x.clone(), rows)
        assert sum(band.shape[2] for band in bands) == height
        made = module.banded(bands)
        assert not bands, "what was read is let go"
        close(torch.cat(made, dim=2), module(x))
    conv = randomised(Conv2d(8, 4, 3, padding=1))
    assert isinstance(conv, Conv2d)
    close(torch.cat(banded_conv(conv, in_bands(x, rows), F.silu), dim=2), conv(F.silu(x)))


def test_doubling_many_pixels_at_once_is_doubling_and_a_convolution() -> None:
    layer, x = randomised(Upsample(4)), picture(50, 90, channels=4)
    assert isinstance(layer, Upsample)
    assert layer.MANY <= 50 * 90
    wanted = layer.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")).detach()
    with torch.no_grad():
        close(layer(x), wanted)
        close(layer(x.contiguous(memory_format=torch.channels_last)), wanted)
    close(layer(x).detach(), wanted)


@torch.no_grad()
def test_statistics_of_bands_far_from_zero() -> None:
    """A mean a thousand times the spread costs no more digits than it does in one piece."""
    norm, x = GroupNorm(2, 8), picture(32, 32) + 1000
    bands = in_bands(x, 5)
    wanted = F.group_norm(x.double(), 2)
    made = torch.cat([norm.over(bands)(band) for band in bands], dim=2)
    assert (made - wanted).abs().max() <= 1e-3 * wanted.abs().max()


@torch.no_grad()
def test_sizes() -> None:
    x = picture(7, 5)
    assert Upsample(8)(x).shape == (2, 8, 14, 10)
    assert Upsample(8)(x, (13, 9)).shape == (2, 8, 13, 9)
    assert Downsample(8)(x).shape == (2, 8, 4, 3)
    assert Downsample(8, lopsided=True)(x).shape == (2, 8, 3, 2)


@pytest.mark.parametrize("made", [
    lambda: Residual(64, 96, time=12), lambda: Residual(64, 64), lambda: Residual(64, 64, time=12, scales=True),
    lambda: Upsample(64), lambda: Conv2d(64, 32, 3, padding=1, bias=False),
])  # fmt: skip
@torch.no_grad()
def test_compiled_code_computes_the_same(made: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = randomised(made())
    x = picture(29, 40, channels=64)
    told = (normal([7, 8], (12,)),) if isinstance(layer, Residual) and layer.time is not None else ()
    calls = []
    before = compiled.conv3x3
    monkeypatch.setattr(compiled, "conv3x3", lambda *given, **more: calls.append(1) or before(*given, **more))
    fast = layer(x, *told)
    assert len(calls) == (2 if isinstance(layer, Residual) else 1)
    monkeypatch.setattr(compiled, "convolves", lambda *given, **more: False)
    close(fast, layer(x, *told))
    assert len(calls) <= 2
