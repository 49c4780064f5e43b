"""ControlNet: sizes, scales, and guides that do not fit. Parity with diffusers: `public/test_unets.py`."""

from __future__ import annotations

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.controlnet import ControlNet, ControlNetConfig, faded, summed
from conjure.models.unet import UNet, UNetConfig

UNET = UNetConfig(widths=(8, 16), residuals=1, depth=(1, 0), heads=(2, 2), context=6, groups=4)
TINY = ControlNetConfig(unet=UNET, hint_widths=(4, 6))
X, T, CONTEXT, HINT = normal([1], (4, 8, 8)), torch.tensor([3.0]), normal([2], (3, 6)), normal([3], (3, 16, 16))


def random() -> ControlNet:
    network = ControlNet(TINY)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0] + (parameter.mean() == 1))
    return network.eval()


def test_parameters_are_those_published() -> None:
    with torch.device("meta"):
        network = ControlNet(ControlNetConfig())
    assert sum(p.numel() for p in network.parameters()) == 361_279_120


@torch.no_grad()
def test_a_new_one_steers_nothing() -> None:
    residuals = ControlNet(TINY)(X, T, CONTEXT, hint_BCHW=HINT)
    assert all((each == 0).all() for each in residuals)
    network = UNet(UNET)
    torch.nn.init.normal_(network.out.weight)
    assert torch.equal(network(X, T, CONTEXT, residuals=residuals), network(X, T, CONTEXT))


@torch.no_grad()
def test_scales() -> None:
    network = random()
    plain = network(X, T, CONTEXT, hint_BCHW=HINT)
    assert len(plain) == len(UNET.skips) + 1
    for half, each in zip(network(X, T, CONTEXT, hint_BCHW=HINT, scale=0.5), plain, strict=True):
        assert torch.allclose(half, each / 2)
    factors = faded(0.5, len(plain))
    assert factors[0] == pytest.approx(0.05)
    assert factors[-1] == 0.5
    for less, each, factor in zip(network(X, T, CONTEXT, hint_BCHW=HINT, scale=factors), plain, factors, strict=True):
        assert torch.allclose(less, each * factor)
    for both, each in zip(summed([plain, plain]), plain, strict=True):
        assert torch.allclose(both, 2 * each)


def test_a_guide_that_does_not_fit() -> None:
    network = random()
    with pytest.raises(ConjureError, match="guide of 3 channels and 16 x 16 pixels, got 1 and 16 x 16"):
        network(X, T, CONTEXT, hint_BCHW=HINT[:, :1])
    with pytest.raises(ConjureError, match="16 x 16 pixels, got 3 and 16 x 8"):
        network(X, T, CONTEXT, hint_BCHW=HINT[:, :, :8])
    with pytest.raises(ConjureError, match="expected hint_widths"):
        ControlNetConfig(hint_widths=())
