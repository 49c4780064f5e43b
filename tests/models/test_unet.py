"""The U-Net: its sizes, what reaches what, and training. Parity with diffusers: `public/test_unets.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.unet import UNet, UNetConfig, waves

PIXELS: dict[str, Any] = {"channels": 1, "channels_out": 1, "widths": (8, 16), "residuals": 1, "depth": (0, 1),
                          "heads": (1, 2), "context": 0, "groups": 4}  # fmt: skip


def random(**changes: Any) -> UNet:
    network = UNet(UNetConfig(**{**PIXELS, **changes}))
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.2 * normal([k], parameter.shape)[0] + (parameter.mean() == 1))
    return network.eval()


def count(**changes: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(UNetConfig(**changes)).parameters())


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 859_520_964),  # Stable Diffusion 1
        ({"channels": 9}, 859_535_364),
        ({"channels": 8}, 859_532_484),
        ({"context": 1024, "heads": (5, 10, 20, 20)}, 865_910_724),  # 2
        ({"widths": (320, 640, 1280), "depth": (0, 2, 10), "middle": 10, "heads": (5, 10, 20), "context": 2048,
          "added": 2816}, 2_567_463_684),  # XL
        ({"channels": 3, "channels_out": 3, "widths": (128, 256, 256, 256), "depth": (0, 1, 0, 0), "context": 0,
          "heads": (1, 1, 1, 1)}, 35_746_307),  # DDPM for CIFAR-10
    ],
)  # fmt: skip
def test_parameters_are_those_published(changes: dict[str, Any], parameters: int) -> None:
    assert count(**changes) == parameters


def test_a_new_one_says_nothing_yet() -> None:
    network = UNet(UNetConfig(**PIXELS))
    assert network(normal([1, 2], (1, 8, 8)), torch.tensor([3.0, 500.0])).abs().max() == 0


def test_waves() -> None:
    t = torch.tensor([0.0, 7.0])
    made = waves(t, 6, spacing=1)
    f = torch.tensor([1.0, 10_000**-0.5, 1e-4])
    wanted = torch.cat([(t[:, None] * f).cos(), (t[:, None] * f).sin()], dim=-1)
    assert torch.allclose(made, wanted, atol=1e-6)
    assert torch.equal(waves(t, 6, cosine_first=False, spacing=1), made.roll(3, dims=1))


@torch.no_grad()
def test_everything_it_is_told_matters_and_samples_do_not_mix() -> None:
    network = random(depth=(1, 1), context=6, classes=5, added=4 + 2 * 2, size_width=2, guidance=4)
    x, t, context = normal([1, 2], (1, 8, 8)), torch.tensor([3.0, 500.0]), normal([3, 4], (3, 6))
    told: dict[str, Tensor] = {"pooled_BP": normal([5, 6], (4,)), "sizes_BN": torch.tensor([[8.0, 8.0], [4.0, 9.0]]),
                               "labels_B": torch.tensor([1, 4]), "guidance_B": torch.tensor([1.0, 7.0])}
    out = network(x, t, context, **told)
    others = [network(x, t + 1, context, **told), network(x, t, context + 1, **told)]
    for name, value in told.items():
        others.append(network(x, t, context, **{**told, name: value - 1}))
    assert all((other - out).abs().amax((1, 2, 3)).min() > 1e-4 for other in others)
    alone = network(x[1:], t[1:], context[1:], **{name: value[1:] for name, value in told.items()})
    assert (alone - out[1:]).abs().max() <= 1e-5 * out.abs().max()
    with pytest.raises(ValueError, match="needs labels_B"):
        network(x, t, context, **{**told, "labels_B": None})


@torch.no_grad()
def test_residuals_are_added_where_they_belong() -> None:
    """The last reaches everything; the first only what the finest level reads at the end."""
    network, x, t = random(depth=(0, 0), middle=0), normal([1], (1, 8, 8)), torch.tensor([3.0])
    out = network(x, t)
    zeros = [torch.zeros(1, width, *side) for width, side in
             zip([*network.config.skips, 16], [(8, 8), (8, 8), (4, 4), (4, 4), (4, 4)])]
    assert torch.equal(network(x, t, residuals=tuple(zeros)), out)
    for at in range(5):
        pushed = [each + (at == k) for k, each in enumerate(zeros)]
        assert (network(x, t, residuals=tuple(pushed)) - out).abs().max() > 1e-4


@torch.no_grad()
def test_precision_is_that_of_the_weights_unless_said() -> None:
    network, x, t = random(), normal([1], (1, 8, 8)), torch.tensor([3.0])
    whole = network(x, t)
    network.compute_dtype = torch.bfloat16
    half = network(x, t)
    network.compute_dtype = None
    lighter = network.bfloat16()(x, t)
    assert half.dtype == lighter.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.1 * whole.abs().max()
    assert torch.allclose(half, lighter, atol=0.02 * float(whole.abs().max()))


def test_it_learns() -> None:
    """A few steps bring a new one nearer to a fixed picture, and every parameter has a gradient."""
    torch.manual_seed(0)
    network, x, t = UNet(UNetConfig(**PIXELS, dropout=0.1)), normal([1, 2], (1, 8, 8)), torch.tensor([3.0, 500.0])
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = (network(x, t) - x).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_the_wrong_input_is_named() -> None:
    network, t = random(depth=(1, 1), context=6, added=8, size_width=2), torch.tensor([3.0])
    x, context = torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 6)
    with pytest.raises(ConjureError, match="reads 1 channels, got 4"):
        network(torch.zeros(1, 4, 8, 8), t, context)
    with pytest.raises(ConjureError, match="context of width 6, got 5"):
        network(x, t, context[..., 1:])
    with pytest.raises(ConjureError, match="context of width 6, got 0"):
        network(x, t)
    with pytest.raises(ConjureError, match="joins 8 values to the time, got 3 of the pooled context and 2 sizes"):
        network(x, t, context, pooled_BP=torch.zeros(1, 3), sizes_BN=torch.zeros(1, 2))


@pytest.mark.parametrize(
    "change",
    [{"depth": (0,)}, {"heads": (1,)}, {"widths": (6, 16)}, {"heads": (1, 3)}, {"residuals": 0}, {"depth": (0, 2)},
     {"channels": 0}, {"context_only": (True,)}, {"widths": ()}],
)  # fmt: skip
def test_configs_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(ConjureError, match=r"expected|needs a context"):
        UNetConfig(**{**PIXELS, **change})
