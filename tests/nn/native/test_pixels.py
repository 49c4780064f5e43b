"""Compiled convolutions and attention: the same as PyTorch's in double precision."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core.seeds import normal
from conjure.nn.native import pixels
from conjure.nn.native.build import build


def near(made: Tensor, wanted: Tensor) -> None:
    assert (made.double() - wanted).abs().max() <= 3e-6 * wanted.abs().max()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return normal([seed], shape)[0]


SIZES = [(2, 16, 32, 7, 5), (1, 48, 64, 1, 1), (1, 32, 32, 1, 6), (2, 32, 32, 41, 40), (1, 80, 96, 12, 16)]
"""Odd sides, one pixel, more tiles than a piece holds, few tiles and many channels."""


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_a_convolution_with_all_that_is_added(size: tuple[int, ...]) -> None:
    B, C, K, H, W = size
    x, weight = drawn(B, C, H, W), drawn(K, C, 3, 3, seed=2)
    bias, beside = drawn(B, K, seed=3), drawn(B, K, H, W, seed=4)
    made = pixels.conv3x3(x, weight, bias, beside_BKHW=beside)
    near(made, F.conv2d(x.double(), weight.double(), padding=1) + bias.double()[..., None, None] + beside.double())
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_a_convolution_of_the_picture_at_twice_its_size(size: tuple[int, ...]) -> None:
    B, C, K, H, W = size
    x, weight, bias = drawn(B, C, H, W), drawn(K, C, 3, 3, seed=2), drawn(B, K, seed=3)
    doubled = F.interpolate(x.double(), scale_factor=2, mode="nearest")
    wanted = F.conv2d(doubled, weight.double(), padding=1) + bias.double()[..., None, None]
    near(pixels.conv3x3(x, weight, bias, doubled=True), wanted)


@torch.no_grad()
def test_many_threads_and_kernels_that_are_prepared_once() -> None:
    before = torch.get_num_threads()
    x, weight, bias = drawn(1, 16, 90, 90), drawn(32, 16, 3, 3, seed=2), drawn(1, 32, seed=3)
    try:
        torch.set_num_threads(3)
        many = pixels.conv3x3(x, weight, bias)
        torch.set_num_threads(1)
        assert torch.equal(many, pixels.conv3x3(x, weight, bias))
    finally:
        torch.set_num_threads(before)
    near(many, F.conv2d(x.double(), weight.double(), bias[0].double(), padding=1))


@pytest.mark.parametrize("size", [(2, 3, 50, 77, 40), (1, 1, 1, 1, 8), (1, 2, 100, 1100, 64), (1, 1, 33, 513, 16)])
@torch.no_grad()
def test_attention(size: tuple[int, ...]) -> None:
    B, h, T, S, D = size
    q, k, v = (2 * drawn(B, h, n, D, seed=seed) for n, seed in ((T, 1), (S, 2), (S, 3)))
    k[:, :, -1] *= 3  # the largest score comes late
    near(pixels.attention(q, k, v), F.scaled_dot_product_attention(q.double(), k.double(), v.double()))
    scaled = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), scale=0.3)
    near(pixels.attention(q, k, v, 0.3), scaled)


@torch.no_grad()
def test_attention_reads_heads_where_they_lie() -> None:
    q, k, v = drawn(2, 60, 3 * 4 * 24).view(2, 60, 3, 4, 24).permute(2, 0, 3, 1, 4)
    made = pixels.attention(q, k, v)
    assert made.transpose(1, 2).is_contiguous()
    near(made, F.scaled_dot_product_attention(q.double(), k.double(), v.double()))


def test_when_they_are_used() -> None:
    x, weight = torch.empty(1, 64, 64, 64), torch.empty(64, 64, 3, 3)
    long = torch.empty(1, 2, 1024, 64)
    assert not pixels.convolves(x, weight) and not pixels.attends(long, long, long)  # gradients may be wanted
    with torch.no_grad():
        assert pixels.convolves(x, weight) and pixels.attends(long, long, long)
        assert not pixels.convolves(x[:, :, :4, :4], weight)  # too little to do
        assert pixels.convolves(x[:, :, :16, :16], weight, doubled=True)
        assert not pixels.convolves(x, torch.empty(64, 64, 1, 1))
        assert not pixels.convolves(x[:, :24], torch.empty(64, 24, 3, 3))
        assert not pixels.convolves(x, torch.empty(72, 64, 3, 3))
        assert not pixels.convolves(x.bfloat16(), weight) and not pixels.convolves(x.double(), weight.double())
        assert not pixels.attends(long, long[:, :, :1000], long[:, :, :1000])
        assert not pixels.attends(long.bfloat16(), long.bfloat16(), long.bfloat16())
        assert not pixels.attends(long, long.mT.contiguous().mT, long)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONJURE_NATIVE", "0")
    assert pixels.library() is None
    false = shutil.which("false")
    assert false is not None
    library, reason = build(tmp_path, false, pixels.SOURCE)
    assert library is None and "ended with 1" in reason
    assert [path.name.partition("-")[0] for path in tmp_path.glob("*.failed")] == ["pixels"]
