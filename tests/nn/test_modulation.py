from __future__ import annotations

import torch
import torch.nn.functional as F

from conjure.core.seeds import normal
from conjure.nn.modulation import GATE, Embedder, Ending, Modulation, leave_to_adam, modulated


def test_tokens_are_scaled_then_shifted() -> None:
    x, shift, scale = torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[10.0, 20.0]]]), torch.tensor([[[0.5, 2.0]]])
    assert torch.equal(modulated(x, shift, scale), torch.tensor([[[11.5, 14.0]]]))


def test_a_new_modulation_does_nothing_but_its_gates_are_open() -> None:
    parts = Modulation(4, 3, gates=(2,))(normal([1, 2], (4,)))
    assert [part.unique().tolist() for part in parts] == [[0], [0], [torch.tensor(GATE).item()]]
    assert all(part.shape == (2, 1, 4) for part in parts)


def test_parts_are_the_rows_of_one_matrix_in_order() -> None:
    modulation, condition = Modulation(4, 3), normal([1, 2], (4,))
    with torch.no_grad():
        modulation.linear.weight.normal_()
        parts = modulation(condition)
    for k, part in enumerate(parts):
        expected = F.silu(condition) @ modulation.linear.weight[4 * k : 4 * k + 4].T
        assert (part[:, 0] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_ending() -> None:
    ending, x, condition = Ending(4, 6), normal([1, 2], (3, 4)), normal([3, 4], (4,))
    assert ending(x, condition).abs().max() == 0
    with torch.no_grad():
        for parameter in ending.parameters():
            parameter.copy_(normal([parameter.numel()], parameter.shape)[0])
        told = ending.modulation.linear
        shift, scale = (F.silu(condition) @ told.weight.T + told.bias).split(4, -1)
        normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        expected = (normed * (1 + scale[:, None]) + shift[:, None]) @ ending.linear.weight.T + ending.linear.bias
        assert (ending(x, condition) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_embedder() -> None:
    embedder, features = Embedder(6, 4), normal([1, 2], (6,))
    expected = embedder.down(F.silu(embedder.up(features)))
    assert torch.equal(embedder(features), expected) and expected.shape == (2, 4)


def test_the_mark_that_the_optimiser_reads() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    leave_to_adam(parameter)
    assert parameter.adam  # type: ignore[attr-defined]
