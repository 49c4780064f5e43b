"""Attention against its formula, written out for one query at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conjure.core.seeds import normal
from conjure.nn.attention import attend, causal_mask


def formula(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, softcap: float) -> Tensor:
    """Loops over rows, heads and queries; `allowed` bool [B, H, T, S]."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    q, k, v = q.double(), k.double(), v.double()
    group = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                s = (k[b, h // group] @ q[b, h, t]) * scale
                s = softcap * torch.tanh(s / softcap) if softcap else s
                p = torch.where(allowed[b, h, t], s, -math.inf).softmax(0)
                out[b, h, t] = p @ v[b, h // group]
    return out


@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (3, 7)])
@pytest.mark.parametrize("masking", ["none", "causal", "bool", "per_head", "float", "causal_bool"])
def test_attend(softcap: float, kv_heads: int, queries: int, keys: int, masking: str) -> None:
    q = 2 * normal([0, 1], (4, queries, 6))
    k, v = normal([2, 3], (kv_heads, keys, 6)), normal([4, 5], (kv_heads, keys, 3))
    some = normal([6, 7], (1, 1, keys)) > -0.5
    some[..., 0] = True
    heads = normal([8, 9], (4, queries, keys)) > -0.5
    heads[..., 0] = True
    mask = {"bool": some, "causal_bool": some, "per_head": heads, "float": some.float().log()}.get(masking)
    causal = masking.startswith("causal")
    allowed = torch.ones(2, 4, queries, keys, dtype=torch.bool)
    if masking != "none" and masking != "causal":
        allowed = allowed & (heads if masking == "per_head" else some)
    if causal:
        allowed = allowed & (torch.arange(keys) <= torch.arange(keys - queries, keys)[:, None])
    wanted = formula(q, k, v, allowed, 0.3, softcap)
    got = attend(q, k, v, mask=mask, causal=causal, scale=0.3, softcap=softcap)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_the_default_scale_is_one_over_root_width() -> None:
    q, k, v = normal([0], (1, 2, 16)), normal([1], (1, 3, 16)), normal([2], (1, 3, 16))
    torch.testing.assert_close(attend(q, k, v), attend(q, k, v, scale=0.25))
    torch.testing.assert_close(attend(q, k, v, softcap=1e6), attend(q, k, v, scale=0.25), atol=1e-5, rtol=1e-4)


def test_causal_mask() -> None:
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True] * 4]
    assert causal_mask(2, 4, window=2).tolist() == [[False, True, True, False], [False, False, True, True]]


@pytest.mark.parametrize("masked", [False, True])
def test_training_in_bfloat16_on_a_cpu_attends_in_float32(masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 8, generator=generator).bfloat16().requires_grad_() for _ in range(3))
    mask = torch.zeros(5, 5, dtype=torch.bfloat16).masked_fill_(torch.ones(5, 5).triu(1) > 0, -torch.inf)
    out = attend(q, k, v, mask=mask) if masked else attend(q, k, v, causal=True)
    assert out.dtype == torch.bfloat16
    wide = [part.detach().float().requires_grad_() for part in (q, k, v)]
    wanted = attend(*wide, causal=True)
    assert torch.equal(out, wanted.bfloat16())
    out.sum().backward()
    wanted.sum().backward()
    for part, other in zip((q, k, v), wide, strict=True):
        assert part.grad is not None and other.grad is not None
        assert torch.equal(part.grad, other.grad.bfloat16())
