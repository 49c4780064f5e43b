"""Padded convolutions: lengths, causality and the reference's way with what is too short; Snake by its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conjure.nn.wave_convolution import PaddedConv1d, PaddedConvTranspose1d, Padding, Snake, padded


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (3, 1, 4), (10, 5, 1), (4, 2, 1), (6, 3, 1)])
@torch.no_grad()
def test_as_many_frames_as_there_are_strides_begun(kernel: int, stride: int, dilation: int, causal: bool) -> None:
    layer = PaddedConv1d(2, 3, kernel, stride=stride, dilation=dilation, causal=causal)
    for samples in (1, 2, 30, 31):
        assert layer(noise(1, 2, samples)).shape == (1, 3, -(-samples // stride))


@pytest.mark.parametrize("stride", [2, 3, 5])
@pytest.mark.parametrize(("causal", "trim"), [(False, 1.0), (True, 1.0), (True, 0.0), (True, 0.3)])
@torch.no_grad()
def test_the_way_back_has_all_samples(stride: int, causal: bool, trim: float) -> None:
    layer = PaddedConvTranspose1d(3, 2, 2 * stride, stride=stride, causal=causal, trim=trim)
    assert layer(noise(1, 3, 7)).shape == (1, 2, 7 * stride)
    # The spare samples are cut where they were asked to be.
    assert layer.right == {(False, 1.0): stride // 2, (True, 1.0): stride, (True, 0.0): 0}.get(
        (causal, trim), -(-3 * stride // 10)
    )


@torch.no_grad()
def test_causal_ones_do_not_look_ahead() -> None:
    x, y = noise(1, 2, 40), noise(1, 2, 40, seed=1)
    mixed = torch.cat([x[..., :20], y[..., 20:]], -1)
    for causal in (True, False):
        layer = PaddedConv1d(2, 3, 8, stride=4, causal=causal)
        same = (layer(x) == layer(mixed)).all(dim=(0, 1)).tolist()
        assert same == [True] * (5 if causal else 4) + [False] * (5 if causal else 6)


def test_mirrored_ends_and_what_is_too_short_for_them() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert padded(x, 2, 1, "reflect").tolist() == [[[3, 2, 1, 2, 3, 2]]]
    # 1 2 3 is filled up to 1 2 3 0 0 and mirrored: what was filled up is cut.
    assert padded(x, 4, 0, "reflect").tolist() == [[[0, 0, 3, 2, 1, 2, 3]]]
    others: dict[Padding, list[int]] = {"constant": [0, 1, 2, 3, 0], "replicate": [1, 1, 2, 3, 3]}
    for mode, wanted in others.items():
        assert padded(x, 1, 1, mode).tolist() == [[wanted]]


@torch.no_grad()
def test_the_norm_is_over_channels_and_time() -> None:
    made = PaddedConv1d(2, 3, 5, norm="group")(noise(2, 2, 50))
    assert made.mean((1, 2)).abs().max() < 1e-5 and (made.std((1, 2)) - 1).abs().max() < 0.01


def test_snake() -> None:
    layer, x = Snake(2), noise(3, 2, 5)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.5, 2.0]).view(1, 2, 1))
    wanted = torch.stack([x[:, 0] + torch.sin(0.5 * x[:, 0]) ** 2 / 0.5, x[:, 1] + torch.sin(2 * x[:, 1]) ** 2 / 2], 1)
    assert torch.allclose(layer(x), wanted, atol=1e-6)
