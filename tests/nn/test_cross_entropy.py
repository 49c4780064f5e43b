"""Chunked cross-entropy against the plain one: value and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conjure.core.seeds import normal, rng
from conjure.nn import cross_entropy
from conjure.nn.cross_entropy import IGNORED, linear_cross_entropy


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("ignored", [0, 3, 11])
def test_value_and_gradients(softcap: float, ignored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 4)  # three chunks, the last one short
    x = normal([0], (11, 6))[0].requires_grad_()
    weight = normal([1], (9, 6))[0].requires_grad_()
    targets = torch.from_numpy(rng(0).integers(0, 9, 11))
    targets[rng(1).permutation(11)[:ignored]] = IGNORED
    logits = x @ weight.T
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    wanted = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    got = linear_cross_entropy(x, weight, targets, softcap)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(3 * got, [x, weight]), torch.autograd.grad(3 * wanted, [x, weight]), strict=True
    ):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_without_gradients() -> None:
    x, weight = normal([0], (5, 4))[0], normal([1], (7, 4))[0]
    targets = torch.tensor([0, 6, 3, 3, 1])
    wanted = F.cross_entropy(x @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(linear_cross_entropy(x, weight, targets), wanted)


def test_bfloat16_stays_near() -> None:
    x, weight = normal([0], (64, 32))[0], normal([1], (50, 32))[0]
    targets = torch.from_numpy(rng(0).integers(0, 50, 64))
    wanted = linear_cross_entropy(x, weight, targets)
    x_half = x.bfloat16().requires_grad_()
    weight_full = weight.clone().requires_grad_()
    got = linear_cross_entropy(x_half, weight_full, targets)
    got.backward()
    assert got.dtype == torch.float32 and abs(got / wanted - 1) < 0.01
    assert x_half.grad is not None and x_half.grad.dtype == torch.bfloat16
    assert weight_full.grad is not None and weight_full.grad.dtype == torch.float32
