"""Attention over pixels against a plain reading of its formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.seeds import normal
from conjure.nn.native import pixels as compiled
from conjure.nn.spatial import Attention, PixelAttention, SpatialTransformer, innermost, pixels, tokens
from tests.nn.test_convolution import close, picture, randomised


def attended(q_ND: Tensor, k_SD: Tensor, v_SD: Tensor, heads: int) -> Tensor:
    parts = zip(q_ND.chunk(heads, -1), k_SD.chunk(heads, -1), v_SD.chunk(heads, -1))
    return torch.cat([(q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts], dim=-1)


def test_pixels_become_tokens_and_back() -> None:
    x = picture(3, 5)
    assert torch.equal(tokens(x)[1, 2 * 5 + 4], x[1, :, 2, 4])
    assert torch.equal(pixels(tokens(x), 3, 5), x)
    inner = innermost(x)
    assert tokens(inner).data_ptr() == inner.data_ptr()
    assert pixels(tokens(inner), 3, 5).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_pixels_to_pixels() -> None:
    layer, x = randomised(PixelAttention(8, heads=2, groups=4)), picture(3, 5)
    assert isinstance(layer, PixelAttention)
    norm, inner = layer.norm, layer.attention
    for b in range(2):
        h_CN = F.group_norm(x[b : b + 1], 4, norm.weight, norm.bias).flatten(2)[0]
        q, k, v = F.linear(h_CN.T, inner.qkv.weight, inner.qkv.bias).chunk(3, -1)
        mixed = F.linear(attended(q, k, v, 2), inner.out.weight, inner.out.bias)
        close(layer(x)[b], x[b] + mixed.T.view(8, 3, 5))


@torch.no_grad()
def test_a_transformer_reads_its_context() -> None:
    layer, x, context = randomised(SpatialTransformer(8, 2, 6, 2, groups=4)), picture(3, 5), normal([5, 6], (4, 6))
    assert isinstance(layer, SpatialTransformer)
    made = layer(x, context)

    def norm(x_ND: Tensor, layer: nn.Module) -> Tensor:
        return F.layer_norm(x_ND, (8,), layer.weight, layer.bias)  # type: ignore[arg-type]

    for b in range(2):
        h = F.group_norm(x[b : b + 1], 4, layer.norm.weight, layer.norm.bias, 1e-6).flatten(2)[0].T
        h = layer.project_in(h)
        for block in layer.blocks:
            one, two, ff = block.attention1, block.attention2, block.feedforward
            assert isinstance(one, Attention)
            assert isinstance(two, Attention)
            q, k, v = one.qkv(norm(h, block.norm1)).chunk(3, -1)
            h = h + one.out(attended(q, k, v, 2))
            k, v = two.kv(context[b]).chunk(2, -1)
            h = h + two.out(attended(two.q(norm(h, block.norm2)), k, v, 2))
            gate, up = ff.up(norm(h, block.norm3)).chunk(2, -1)
            h = h + ff.down(F.gelu(gate) * up)
        close(made[b], x[b] + layer.project_out(h).T.view(8, 3, 5))


@torch.no_grad()
def test_the_first_attention_may_read_the_context_too() -> None:
    layer = randomised(SpatialTransformer(8, 2, 6, 1, groups=4, context_only=True))
    x, context = picture(3, 5), normal([5, 6], (4, 6))
    wide = layer(x, context)
    # pixels no longer meet: a change of one in the middle of attention reaches the others through the norm alone
    h = layer.blocks[0](normal([1, 2], (15, 8)), context)  # type: ignore[index]
    other = normal([1, 2], (15, 8))
    other[:, 3] += 1
    changed = (layer.blocks[0](other, context) - h).abs().amax((0, 2)) > 1e-6  # type: ignore[index]
    assert changed.nonzero().tolist() == [[3]]
    assert wide.shape == x.shape


@torch.no_grad()
def test_compiled_code_computes_the_same_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = randomised(Attention(16, 2))
    x = normal([1], (1030, 16))
    calls = []
    before = compiled.attention
    monkeypatch.setattr(compiled, "attention", lambda *given: calls.append(1) or before(*given))
    fast = layer(x)
    monkeypatch.setattr(compiled, "attends", lambda *given: False)
    close(fast, layer(x))
    assert calls == [1]
