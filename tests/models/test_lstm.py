"""The LSTM against PyTorch's own, and its memory against reading everything at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.models.lstm import LSTM, LSTMConfig, Recall


def made(layers: int = 2, dim: int = 8, dropout: float = 0.0) -> LSTM:
    torch.manual_seed(0)
    return LSTM(LSTMConfig(kind="lstm", vocab=11, dim=dim, layers=layers, dropout=dropout)).eval()


IDS = torch.arange(24).view(2, 12) * 7 % 11


def reference(network: LSTM) -> torch.nn.LSTM:
    """The same weights in PyTorch's order of gates: input, forget, candidate, output."""
    dim = network.config.dim
    theirs = torch.nn.LSTM(dim, dim, network.config.layers, batch_first=True)
    order = torch.cat([torch.arange(i * dim, (i + 1) * dim) for i in (0, 1, 3, 2)])
    with torch.no_grad():
        for layer, block in enumerate(network.blocks):
            getattr(theirs, f"weight_ih_l{layer}").copy_(block.below.weight[order])
            getattr(theirs, f"weight_hh_l{layer}").copy_(block.before.weight[order])
            getattr(theirs, f"bias_ih_l{layer}").copy_(block.below.bias[order])
            getattr(theirs, f"bias_hh_l{layer}").zero_()
    return theirs


def test_it_computes_what_the_reference_does() -> None:
    network = made()
    with torch.no_grad():
        wanted, _ = reference(network)(network.embed(IDS))
        found = network.hidden(IDS)
        torch.testing.assert_close(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
        torch.testing.assert_close(network(IDS), wanted @ network.embed.weight.T, atol=1e-5, rtol=0)
        torch.testing.assert_close(network(IDS, last_only=True), network(IDS)[:, -1:])


def test_with_targets_it_gives_their_cross_entropy() -> None:
    network, targets = made(), (IDS + 1) % 11
    targets[0, :4] = -100
    wanted = F.cross_entropy(network(IDS).flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=-100)
    torch.testing.assert_close(network(IDS, targets=targets), wanted)


def test_documents_in_a_row_do_not_see_each_other() -> None:
    network = made()
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [1] * 3])
    with torch.no_grad():
        packed = network(IDS, documents=documents)
        torch.testing.assert_close(packed[0, 5:], network(IDS[:1, 5:])[0])
        torch.testing.assert_close(packed[1, 9:], network(IDS[1:, 9:])[0])
        torch.testing.assert_close(packed[1, :9], network(IDS[1:, :9])[0])
        assert not torch.allclose(packed[0, 5:], network(IDS)[0, 5:])


def test_piece_by_piece_is_the_same_as_at_once() -> None:
    network = made()
    with torch.no_grad():
        wanted = network(IDS)
        cache = network.cache(2, 12)
        parts = [network(IDS[:, a:b], cache=cache, last_only=False) for a, b in ((0, 5), (5, 6), (6, 12))]
        torch.testing.assert_close(torch.cat(parts, 1), wanted)
        assert cache.length == 12
        with pytest.raises(ConjureError, match="holds 12 tokens"):
            network(IDS[:, :1], cache=cache)


def test_padded_rows_are_as_alone() -> None:
    network = made()
    with torch.no_grad():
        cache = network.cache(2, 12, padding=[3, 0])
        first = network(IDS[:, :4], cache=cache)
        second = network(IDS[:, 4:], cache=cache)
        alone = network(IDS[:1, 3:])
        torch.testing.assert_close(torch.cat([first, second], 1)[0, 3:], alone[0])
        torch.testing.assert_close(second[1], network(IDS[1:])[0, 4:])


def test_what_was_taken_back_is_forgotten() -> None:
    network = made()
    with torch.no_grad():
        cache = network.cache(2, 20)
        network(IDS[:, :8], cache=cache)
        network((IDS[:, 8:] + 1) % 11, cache=cache)
        cache.truncate(8)
        torch.testing.assert_close(network(IDS[:, 8:], cache=cache), network(IDS)[:, 8:])
        assert cache.length == 12


def test_rows_are_kept_and_copied_and_a_memory_restored() -> None:
    network = made()
    with torch.no_grad():
        cache = network.cache(2, 12)
        network(IDS[:, :6], cache=cache)
        state = {name: tensor.clone() for name, tensor in cache.state().items()}
        cache.keep([1, 1, 0])
        rows = IDS[[1, 1, 0]]
        torch.testing.assert_close(network(rows[:, 6:], cache=cache), network(rows)[:, 6:])
        again = network.cache(2, 12)
        again.restore(state)
        torch.testing.assert_close(network(IDS[:, 6:], cache=again), network(IDS)[:, 6:])
        assert isinstance(again, Recall) and again.length == 12


def test_dropout_is_for_training() -> None:
    network = made(dropout=0.5)
    assert torch.equal(network(IDS), network(IDS))
    network.train()
    assert not torch.equal(network(IDS), network(IDS))


def test_flops_and_parameters() -> None:
    network = made(layers=3, dim=8)
    matrices = 3 * 2 * 4 * 8 * 8
    assert network.flops(2, 5) == 2 * 2 * 5 * (matrices + 11 * 8)
    assert sum(p.numel() for p in network.parameters()) == matrices + 3 * 4 * 8 + 11 * 8


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"layers": 0}, {"dropout": 1.0}])
def test_wrong_values_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConjureError, match=f"model.{next(iter(wrong))}"):
        LSTMConfig(**{"kind": "lstm", "vocab": 5, "dim": 4} | wrong)  # type: ignore[arg-type]
