"""The diffusion transformer against a plain reading of its formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conjure.core.seeds import normal, uniform
from conjure.models.dit import Block, DiT, DiTConfig

CONFIG = DiTConfig(channels=3, size=6, patch=2, dim=16, layers=2, heads=2, hidden=24)
D, N, S = CONFIG.dim, 9, 5


def random(config: DiTConfig = CONFIG) -> DiT:
    network = DiT(config)
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal([k], parameter.shape)[0])
    return network


def told(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    mask = torch.ones(batch, S, dtype=torch.bool)
    mask[:, 3:] = False
    x, context, summary = (normal([k] * batch, shape) for k, shape in enumerate([(3, 6, 6), (S, D), (D,)]))
    return x, uniform(range(batch)), context, mask, summary


def test_parameters() -> None:
    pixels, h = 3 * 4, CONFIG.hidden
    block = 3 * D * D + 2 * D * D + (D * D + D) + 2 * (D // 2) + (2 * D * h + h + D) + 6 * D
    time = 256 * D + D + D * D + D + 6 * D * D + 6 * D + 2 * D * D + 2 * D
    expected = 2 * block + time + (pixels * D + D) + (D * pixels + pixels)
    assert sum(p.numel() for p in DiT(CONFIG).parameters()) == expected


def test_a_block_is_what_the_papers_say() -> None:
    block = random().blocks[0]
    assert isinstance(block, Block)
    x, time, context = (normal([k, k + 1], shape) for k, shape in enumerate([(N, D), (6, D), (S, D)]))
    mask = torch.tensor([[True] * N + [True] * 3 + [False] * 2] * 2)[:, None, None]

    def norm(v: Tensor) -> Tensor:
        return (v - v.mean(-1, keepdim=True)) / (v.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    def rms(v: Tensor, weight: Tensor) -> Tensor:
        return v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    expected = torch.empty_like(x)
    for b in range(2):
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = time[b] + block.offsets
        h = norm(x[b]) * (1 + scale_a) + shift_a
        q, k, v = (h @ block.qkv.weight.T).chunk(3, -1)
        context_k, context_v = (context[b, :3] @ block.context_kv.weight.T).chunk(2, -1)
        k, v, mixed = torch.cat([k, context_k]), torch.cat([v, context_v]), []
        for part in (slice(0, 8), slice(8, 16)):
            scores = rms(q[:, part], block.norm_q.weight) @ rms(k[:, part], block.norm_k.weight).T / 8**0.5
            mixed.append(scores.softmax(-1) @ v[:, part])
        y = x[b] + gate_a * block.out(torch.cat(mixed, -1))
        h = norm(y) * (1 + scale_f) + shift_f
        up, down = block.feedforward.up, block.feedforward.down
        expected[b] = y + gate_f * down(torch.nn.functional.gelu(up(h)))
    with torch.no_grad():
        made = block(x, time, context, mask)
    assert (made - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_new_one_says_nothing_yet_but_its_gates_are_open() -> None:
    network = DiT(CONFIG)
    assert network(*told()).abs().max() == 0
    assert all((b.offsets[[2, 5]] == 0.1).all() and (b.offsets[[0, 1, 3, 4]] == 0).all() for b in network.blocks)


def test_patches_keep_their_places() -> None:
    """Without blocks, what a patch holds reaches its own pixels and no others."""
    network = random(DiTConfig(channels=3, size=6, patch=2, dim=16, layers=0, heads=2, hidden=24))
    x, *rest = told(1)
    other = x.clone()
    other[0, 1, 3, 5] += 1
    with torch.no_grad():
        changed = (network(x, *rest) - network(other, *rest)).abs().sum((0, 1)) > 1e-6
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(changed, expected)


@torch.no_grad()
def test_masked_context_changes_nothing() -> None:
    network, (x, t, context, mask, summary) = random(), told()
    out = network(x, t, context, mask, summary)
    noisy = context.clone()
    noisy[:, 3:] = 100
    assert torch.equal(network(x, t, noisy, mask, summary), out)
    short = network(x, t, context[:, :3], mask[:, :3], summary)
    assert (short - out).abs().max() <= 1e-5 * out.abs().max()
    order = torch.tensor([2, 0, 1, 3, 4])
    shuffled = network(x, t, context[:, order], mask[:, order], summary)
    assert (shuffled - out).abs().max() <= 1e-5 * out.abs().max(), "the context's order is the encoder's business"


@torch.no_grad()
def test_everything_it_is_told_matters_and_samples_do_not_mix() -> None:
    network, (x, t, context, mask, summary) = random(), told()
    out = network(x, t, context, mask, summary)
    wider = mask.clone()
    wider[:, 3] = True
    for other in (
        network(x, t + 0.1, context, mask, summary),
        network(x, t, context + 1, mask, summary),
        network(x, t, context, wider, summary),
        network(x, t, context, mask, summary + 1),
        network(x, t, context, mask, summary, normal([5, 6], (N, D))),
    ):
        assert (other - out).abs().max() > 1e-3
    assert torch.equal(network(x, t, context, mask, summary, torch.zeros(2, N, D)), out)
    alone = network(*(each[1:] for each in (x, t, context, mask, summary)))
    assert (alone - out[1:]).abs().max() <= 1e-5 * out.abs().max()


def test_flops() -> None:
    network, counter = DiT(CONFIG), FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernel of CPUs is not counted
        network(*told(2))
    assert network.patch_count == N
    assert counter.get_total_flops() == network.flops(batch=2, context=S)


@pytest.mark.parametrize("change", [{"patch": 4}, {"heads": 3}, {"dim": 18}])
def test_sizes_that_do_not_fit(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected patch to divide size"):
        DiTConfig(**{"channels": 3, "size": 6, "patch": 2, "dim": 16, "heads": 2, **change})


def test_small_tables_are_left_to_adam() -> None:
    marked = {name for name, p in DiT(CONFIG).named_parameters() if getattr(p, "adam", False)}
    assert marked == {"patches.weight", "to_pixels.weight", "modulation.1.weight", "modulation_out.1.weight",
                      "blocks.0.offsets", "blocks.1.offsets"}  # fmt: skip
