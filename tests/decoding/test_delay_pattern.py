"""Codes that lag behind: the pattern, and that every code is drawn given exactly what it may see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conjure.decoding.delay_pattern import UNKNOWN, Drawing, aligned, delayed, write
from conjure.models.speech_writer import SpeechWriter, SpeechWriterShape
from conjure.models.transformer import TransformerConfig
from conjure.nn.position import Rope


def writer(books: int = 3, codes: int = 11) -> SpeechWriter:
    stack = TransformerConfig(vocab=0, dim=16, layers=2, heads=2, rope=Rope(dim=8))
    torch.manual_seed(0)
    network = SpeechWriter(SpeechWriterShape(transformer=stack, books=books, codes=codes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return network.eval().requires_grad_(False)


def known(rows: int, books: int, frames: int) -> Tensor:
    return torch.randint(11, (rows, books, frames), generator=torch.Generator().manual_seed(1))


def test_the_pattern() -> None:
    ids_BQT = torch.arange(12).view(1, 3, 4)
    assert delayed(ids_BQT, -9)[0].tolist() == [
        [0, 1, 2, 3, -9, -9], [-9, 4, 5, 6, 7, -9], [-9, -9, 8, 9, 10, 11]
    ]  # fmt: skip
    assert torch.equal(aligned(delayed(ids_BQT, -9)), ids_BQT)
    pairs_BQT = torch.arange(12).view(1, 4, 3)
    assert delayed(pairs_BQT, -9, 2)[0].tolist() == [[0, 1, 2, -9], [3, 4, 5, -9], [-9, 6, 7, 8], [-9, 9, 10, 11]]
    assert torch.equal(aligned(delayed(pairs_BQT, -9, 2), 2), pairs_BQT)


@pytest.mark.parametrize("frames", [0, 1, 6])
def test_it_writes_the_likeliest_codes_of_a_full_pass(frames: int) -> None:
    network, before = writer(), known(2, 3, frames)
    steps = list(write(network, before, 5, network.pad, [1, 2], Drawing(temperature=0)))
    assert [done for done, _ in steps] == [0, 0, 1, 2, 3, 4, 5]
    made_BQT = steps[-1][1]
    assert torch.equal(made_BQT[:, :, :frames], before) and int(made_BQT.min()) >= 0
    # The same by reading all of it at once.
    grid_BQS = delayed(made_BQT, network.pad)
    first = torch.full((2, 3, 1), network.pad)
    logits_BQSV = network.logits(network.hidden(torch.cat([first, grid_BQS[:, :, :-1]], 2)))
    assert torch.equal(aligned(logits_BQSV.argmax(-1))[:, :, frames:], made_BQT[:, :, frames:])


def test_what_is_not_there_yet_is_marked() -> None:
    network = writer()
    done, so_far_BQT = next(write(network, known(1, 3, 4), 3, network.pad, [0], Drawing()))
    assert done == 0 and (so_far_BQT[0] == UNKNOWN).tolist() == [
        [False] * 5 + [True] * 2, [False] * 4 + [True] * 3, [False] * 4 + [True] * 3
    ]  # fmt: skip


def test_a_row_is_its_seeds_own() -> None:
    network, how = writer(), Drawing(temperature=1.0)

    def last(seeds: list[int]) -> Tensor:
        *_, (_, made) = write(network, known(1, 3, 4).expand(len(seeds), -1, -1), 6, network.pad, seeds, how)
        return made

    together = last([3, 4, 3])
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    assert torch.equal(last([4])[0], together[1])


def test_draws_follow_the_network() -> None:
    network = writer(books=1)
    seeds = list(range(1500))
    *_, (_, made) = write(network, known(1, 1, 3).expand(1500, -1, -1), 1, network.pad, seeds, Drawing(temperature=0.7))
    first = torch.cat([torch.full((1, 1, 1), network.pad), known(1, 1, 3)], 2)
    p_V = (network.logits(network.hidden(first))[0, 0, -1] / 0.7).softmax(-1)
    share_V = torch.bincount(made[:, 0, -1], minlength=11) / 1500
    assert (share_V - p_V).abs().max() < 0.05
    *_, (_, few) = write(network, known(1, 1, 3).expand(50, -1, -1), 1, network.pad, seeds[:50], Drawing(top_k=2))
    assert set(few[:, 0, -1].tolist()) <= set(p_V.topk(2).indices.tolist())
