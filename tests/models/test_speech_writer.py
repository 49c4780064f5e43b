"""The network that writes codes: its loss is that of its logits, steps are those of a pass, tables are the codec's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.models.speech_writer import SpeechWriter, SpeechWriterShape
from conjure.models.transformer import TransformerConfig
from conjure.nn.cross_entropy import IGNORED

STACK = TransformerConfig(vocab=0, dim=16, layers=2, heads=2)


@pytest.fixture
def network() -> SpeechWriter:
    torch.manual_seed(0)
    made = SpeechWriter(SpeechWriterShape(transformer=STACK, books=3, codes=11, vector=4))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return made


def test_the_loss_is_that_of_the_logits(network: SpeechWriter) -> None:
    ids_BQS, targets_BQS = torch.randint(12, (2, 3, 7)), torch.randint(11, (2, 3, 7))
    targets_BQS[0, 1, :4] = IGNORED
    logits_BQSV = network.logits(network.hidden(ids_BQS))
    wanted = F.cross_entropy(logits_BQSV.flatten(0, 2), targets_BQS.flatten(), reduction="sum")
    loss = network(ids_BQS, targets_BQS)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for parameter in (network.tables[1], network.often, network.none):
        one, other = (torch.autograd.grad(each, parameter, retain_graph=True)[0] for each in (loss, wanted))
        assert torch.allclose(one, other, atol=1e-4)


@torch.no_grad()
def test_steps_one_by_one_are_those_of_a_pass(network: SpeechWriter) -> None:
    ids_BQS, cache = torch.randint(12, (2, 3, 9)), network.cache(2, 9)
    whole_BQSV = network.logits(network.hidden(ids_BQS))
    found = [network.hidden(part_BQS, cache=cache) for part_BQS in ids_BQS.split([4, 1, 1, 1, 1, 1], 2)]
    assert torch.allclose(network.logits(torch.cat(found, 1)), whole_BQSV, atol=1e-5)


@torch.no_grad()
def test_a_logit_falls_off_with_the_distance_from_a_point(network: SpeechWriter) -> None:
    """Out of a codec's book and the squares of its lengths: -|c - p|^2 is linear in what the table holds."""
    books = [3 + 2 * torch.randn(11, 4) for _ in range(3)]
    network.start_from(books)
    for codes_VC, table in zip(books, network.tables, strict=True):
        assert torch.allclose(table.mean(0), torch.zeros(5), atol=1e-5) and torch.allclose(table.std(0), torch.ones(5))
        wanted_V = -(codes_VC - torch.randn(4)).square().sum(1)
        known = torch.cat([table, torch.ones(11, 1)], 1)
        weights = torch.linalg.lstsq(known, wanted_V[:, None]).solution
        assert torch.allclose((known @ weights)[:, 0], wanted_V, atol=1e-2)


def test_what_cannot_be() -> None:
    for stack in (TransformerConfig(vocab=5), TransformerConfig(vocab=0, causal=False)):
        with pytest.raises(ConjureError, match="causal stack without a vocabulary"):
            SpeechWriterShape(transformer=stack)
    with pytest.raises(ConjureError, match="books"):
        SpeechWriterShape(books=0)
