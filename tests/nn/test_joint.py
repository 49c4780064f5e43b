"""Joint attention and its blocks against a plain reading of the papers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.seeds import normal
from conjure.nn.joint import Heads, JointBlock, Listened, Stream, finite, together

D, H, HIDDEN, S, N = 16, 2, 24, 3, 5


def random(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.copy_(0.4 * normal([k], parameter.shape)[0])
    return module


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape and (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (D,), eps=1e-6)


def softmaxed(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """One sample, `[T, D]` each."""
    mixed = []
    for head in range(H):
        part = slice(head * D // H, (head + 1) * D // H)
        scores = q[:, part] @ k[:, part].T / (D // H) ** 0.5
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        mixed.append(scores.softmax(-1) @ v[:, part])
    return torch.cat(mixed, -1)


@torch.no_grad()
def test_streams_meet_in_one_softmax() -> None:
    first, second = random(Heads(D, H)), random(Heads(D, H, qk_norm=True))
    a, b = normal([1], (S, D)), normal([2], (N, D))
    seen = torch.tensor([True, False, True] + [True] * N)
    made = together([first(a), second(b)], seen[None, None, None])
    (qa, ka, va), (qb, kb, vb) = (
        (module.qkv(x[0])).chunk(3, -1) for module, x in ((first, a), (second, b)))

    def rms(x: Tensor, weight: Tensor) -> Tensor:
        heads = x.unflatten(-1, (H, -1))
        return (heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight).flatten(-2)

    assert isinstance(second.norm_q, nn.Module) and isinstance(second.norm_k, nn.Module)
    qb, kb = rms(qb, second.norm_q.weight), rms(kb, second.norm_k.weight)  # type: ignore[arg-type]
    expected = softmaxed(torch.cat([qa, qb]), torch.cat([ka, kb]), torch.cat([va, vb]), seen)
    close(torch.cat(made, dim=1)[0], expected)
    assert [part.shape[1] for part in made] == [S, N]


@torch.no_grad()
def test_turning_all_alike_changes_nothing_and_turning_one_does() -> None:
    triple = random(Heads(D, H))(normal([1], (N, D)))
    still = together([triple])[0]
    angle = torch.full((N, D // H // 2), 0.7)
    close(together([triple], turns=(angle.cos(), angle.sin()))[0], still)
    angle[2] = 0
    assert (together([triple], turns=(angle.cos(), angle.sin()))[0] - still).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("second", [False, True])
def test_a_stream_is_the_block_of_dit(second: bool) -> None:
    stream, x, condition = random(Stream(D, H, HIDDEN, second=second, eps=0.5)), normal([1], (N, D)), normal([2], (D,))
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f, *rest = stream.modulation(condition)
    q, k, v = stream.heads.qkv(norm(x) * (1 + scale_a) + shift_a)[0].chunk(3, -1)
    y = x + gate_a * stream.heads.out(softmaxed(q, k, v))
    if second:
        q, k, v = stream.second.qkv(norm(x) * (1 + rest[1]) + rest[0])[0].chunk(3, -1)
        y = y + rest[2] * stream.second.out(softmaxed(q, k, v))
    h = F.layer_norm(y, (D,), eps=0.5) * (1 + scale_f) + shift_f
    expected = y + gate_f * stream.feedforward.down(F.gelu(stream.feedforward.up(h), approximate="tanh"))
    close(stream(x, condition), expected)


@torch.no_grad()
@pytest.mark.parametrize("last", [False, True])
def test_a_joint_block(last: bool) -> None:
    block = random(JointBlock(D, H, HIDDEN, last=last))
    context, x, condition = normal([1], (S, D)), normal([2], (N, D)), normal([3], (D,))
    mine, told = block.picture, block.listened if last else block.context
    assert isinstance(told, Listened if last else Stream)
    both = []
    for each, tokens in ((told, context), (mine, x)):
        shift, scale = each.modulation(condition)[:2]
        both.append(each.heads.qkv(norm(tokens) * (1 + scale) + shift)[0].chunk(3, -1))
    mixed = softmaxed(*(torch.cat(parts) for parts in zip(*both, strict=True)))[None]
    after, picture = block(context, x, condition)
    close(picture, mine.end(x, mixed[:, S:], mine.modulation(condition)))
    if last:
        assert torch.equal(after, context)
    else:
        close(after, told.end(context, mixed[:, :S], told.modulation(condition)))


def test_only_half_precision_is_kept_finite() -> None:
    assert finite(torch.tensor([torch.inf, -torch.inf, 1.0]).half()).tolist() == [65504, -65504, 1]
    assert finite(torch.tensor([1e30])).item() == torch.tensor(1e30).item()
