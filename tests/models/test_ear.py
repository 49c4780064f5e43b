"""The network of the ear: padding and neighbours change nothing, its parts against plain versions, its loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.codecs.plain_letters import SYMBOLS
from conjure.core.errors import ConjureError
from conjure.models.ear import MEL, Ear, EarBlock, EarConfig, features
from conjure.models.transformer import Context, TransformerConfig
from conjure.nn.position import Rope, rope_tables
from conjure.train.optim import split_parameters

STACK = TransformerConfig(
    vocab=0, dim=32, layers=4, heads=2, hidden=48, causal=False, qk_norm=True, rope=Rope(dim=16)
)  # fmt: skip
WRITER = TransformerConfig(
    vocab=len(SYMBOLS), dim=32, layers=2, heads=2, hidden=48, cross=True, qk_norm=True, rope=Rope(dim=16)
)  # fmt: skip
CONFIG = EarConfig(stack=STACK, first=1, middle=2, kernel=5, dropout=0.0, writer=WRITER)


def stirred(config: EarConfig = CONFIG) -> Ear:
    """New networks say the same of everything: weights that are zero are drawn too."""
    torch.manual_seed(3)
    network = Ear(config).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
    return network.requires_grad_(False)


def mels(*lengths: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randn(length, MEL.bands, generator=generator) for length in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, True), torch.tensor(lengths)


def close(found: Tensor, wanted: Tensor) -> None:
    found, wanted = found.detach(), wanted.detach()
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def test_a_frame_for_every_forty_milliseconds() -> None:
    network = stirred()
    for length in (8, 37, 38, 39, 40, 41):
        logits, frames = network.logits(*mels(length))
        assert frames.tolist() == [-(-length // 4)]
        assert logits.shape[1] >= -(-length // 4)
        assert logits.shape[2] == len(SYMBOLS)


def test_a_row_is_the_same_alone_and_beside_longer_ones() -> None:
    network = stirred()
    mel, lengths = mels(61, 40, 23)
    together, frames = network.logits(mel, lengths)
    noisy = mel.clone()
    noisy[1, 40:] = 7.0  # what is behind the end is not heard
    loud, _ = network.logits(noisy, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = network.logits(mel[row : row + 1, :length], lengths[row : row + 1])
        count = int(frames[row])
        close(together[row, :count], alone[0, :count])
        close(loud[row, :count], alone[0, :count])


def test_a_block_is_convolution_then_transformer() -> None:
    torch.manual_seed(0)
    block = EarBlock(CONFIG, 0).eval()
    torch.nn.init.normal_(block.weight)
    x, here = torch.randn(2, 9, 32), torch.ones(2, 9, 1)
    context = Context({False: rope_tables(torch.arange(9), Rope(dim=16))}, {0: None}, None, None, None, None)
    normed = F.pad(block.norm(x), (0, 0, 2, 2))
    mixed = sum(normed[:, k : k + 9] * block.weight[:, k] for k in range(5))
    close(block(x, context, here), block.block(x + mixed, context))


def test_the_loss_is_that_of_the_texts_and_of_known_phones() -> None:
    network = stirred()
    mel, lengths = mels(48, 33)
    letters, counts = torch.tensor([[3, 4, 4, 1, 9], [5, 6, 0, 0, 0]]), torch.tensor([5, 2])
    phones = torch.full((2, 12), -1)
    phones[0, :10] = torch.arange(10)
    texts, written, said = network(mel, lengths, letters, counts, phones)
    logits, frames = network.logits(mel, lengths)
    wanted = sum(
        F.ctc_loss(logits[b, : int(frames[b])].log_softmax(-1)[:, None], letters[b : b + 1, : int(counts[b])],
                   frames[b : b + 1], counts[b : b + 1], reduction="sum")
        for b in range(2)
    )  # fmt: skip
    close(texts, torch.as_tensor(wanted))
    assert network.writer is not None
    heard, _, _ = network.heard(mel, lengths)
    wanted = 0.0
    for b in range(2):  # the blank begins a text and ends it
        ids = [0, *letters[b, : int(counts[b])].tolist(), 0]
        logits_TV = network.writer(torch.tensor([ids[:-1]]), memory=heard[b : b + 1, : int(frames[b])])[0]
        wanted += F.cross_entropy(logits_TV, torch.tensor(ids[1:]), reduction="sum")
    close(written, torch.as_tensor(wanted))
    early, _, _ = network.hidden(mel, lengths)
    logp = network.phones(network.norm_phones(early)).log_softmax(-1)
    close(said, -logp[0, torch.arange(10), torch.arange(10)].sum())


def test_nothing_said_and_nothing_known_is_a_loss_too() -> None:
    network = stirred()
    mel, lengths = mels(40)
    texts, written, said = network(
        mel, lengths, torch.zeros(1, 0, dtype=torch.long), torch.tensor([0]), torch.full((1, 10), -1)
    )
    logits, frames = network.logits(mel, lengths)
    close(texts, -logits[0, : int(frames[0])].log_softmax(-1)[:, 0].sum())
    assert float(said.detach()) == 0
    (nothing,) = network.would_write(network.heard(mel, lengths)[0][0], [[]])
    assert float(written) == pytest.approx(-nothing, rel=1e-5)


def test_the_writer_says_how_likely_each_of_several_texts_is() -> None:
    network = stirred()
    mel, lengths = mels(61, 40)
    letters, counts = torch.tensor([[3, 4, 4, 1, 9]]), torch.tensor([5])
    heard, _, frames = network.heard(mel, lengths)
    own = heard[1, : int(frames[1])]
    found = network.would_write(own, [[7], letters[0].tolist(), []])
    _, written, _ = network(mel[1:, :40], lengths[1:], letters, counts, torch.full((1, 10), -1))
    assert found[1] == pytest.approx(-float(written), rel=1e-5)
    assert found[0] == pytest.approx(network.would_write(own, [[7]])[0], rel=1e-5)
    with pytest.raises(ConjureError, match="no writer"):
        Ear(replace(CONFIG, writer=None)).would_write(own, [[7]])


def test_what_the_writer_is_told_it_wrote_may_differ() -> None:
    network = stirred()
    mel, lengths = mels(40)
    letters, counts, unknown = torch.tensor([[3, 4, 5]]), torch.tensor([3]), torch.full((1, 10), -1)
    texts, written, _ = network(mel, lengths, letters, counts, unknown)
    same, other, _ = network(mel, lengths, letters, counts, unknown, torch.tensor([[3, 9, 5]]))
    close(same, texts)
    assert float(other) != float(written)


def test_a_writer_that_does_not_fit() -> None:
    for wrong in (replace(WRITER, dim=64), replace(WRITER, vocab=28), replace(WRITER, cross=False)):
        with pytest.raises(ConjureError, match=r"model\.writer"):
            replace(CONFIG, writer=wrong)


def test_all_matrices_within_blocks_are_trained_as_such() -> None:
    muon, adam = split_parameters(Ear(CONFIG))
    assert "front.0.weight" in muon
    assert "blocks.0.block.attention.qkv.weight" in muon
    assert {"letters.weight", "phones.weight", "blocks.0.weight"} <= set(adam)


def test_flops_are_those_of_the_matrices() -> None:
    network = Ear(CONFIG)
    made = 0.0

    def count(module: torch.nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal made
        assert isinstance(module, torch.nn.Linear | torch.nn.Conv1d)
        places = out.numel() / module.weight.shape[0]
        made += 2 * places * module.weight.numel()

    for module in network.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            module.register_forward_hook(count)
    mel, lengths = mels(400, 400)
    letters, counts, unknown = torch.ones(2, 49, dtype=torch.long), torch.tensor([49, 49]), torch.zeros(2, 100).long()
    network(mel, lengths, letters, counts, unknown)  # a letter and an end more for every second frame
    attention = sum(4 * 2 * frames**2 * 32 for frames in (100, 50, 50, 100)) + 2 * 4 * 2 * 50 * 150 * 32
    assert network.flops(2, 400) == pytest.approx(made + attention, rel=0.05)


def test_features_leave_out_what_a_microphone_colours() -> None:
    draw = np.random.default_rng(0)
    wave = torch.from_numpy((draw.standard_normal(16_000) * np.hanning(16_000)).astype(np.float32))
    plain = features(wave)
    assert plain.shape == (101, 80)
    assert float(plain.mean(0).abs().max()) < 1e-4
    assert float(plain.std()) == pytest.approx(1, abs=0.05)
    close(features(0.25 * wave), plain)
    assert float(features(torch.zeros(8000)).abs().max()) == 0


@pytest.mark.parametrize(
    "wrong", [{"first": 0}, {"middle": 3}, {"kernel": 4}, {"stack": TransformerConfig(vocab=0, dim=32, heads=2)}]
)
def test_shapes_that_make_no_ear(wrong: dict[str, object]) -> None:
    with pytest.raises(ConjureError, match="expected"):
        EarConfig(**({"stack": STACK, "first": 1, "middle": 2} | wrong))  # type: ignore[arg-type]
