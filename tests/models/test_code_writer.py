from __future__ import annotations

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.models.code_writer import CodeWriter, CodeWriterConfig, cosines
from conjure.models.transformer import TransformerConfig


@pytest.fixture(params=[False, True])
def network(request: pytest.FixtureRequest) -> CodeWriter:
    stack = TransformerConfig(vocab=0, dim=16, layers=2, heads=2)
    torch.manual_seed(0)
    made = CodeWriter(CodeWriterConfig(transformer=stack, books=3, codes=11, sinusoid=request.param))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return made


@torch.no_grad()
def test_steps_one_by_one_are_those_of_a_pass(network: CodeWriter) -> None:
    ids_BQS, cache = torch.randint(12, (2, 3, 9)), network.stack.cache(2, 9)
    whole_BQSV = network.logits(network.hidden(ids_BQS))
    found = [network.hidden(part_BQS, cache=cache) for part_BQS in ids_BQS.split([4, 1, 1, 1, 1, 1], 2)]
    assert torch.allclose(network.logits(torch.cat(found, 1)), whole_BQSV, atol=1e-5)
    changed = ids_BQS.clone()
    changed[:, :, 6:] = 0  # a later step changes none before it
    assert torch.allclose(network.logits(network.hidden(changed))[:, :, :6], whole_BQSV[:, :, :6], atol=1e-5)


def test_places_are_told_by_cosines_first() -> None:
    table = cosines(3, 2, 6)
    assert table.shape == (2, 6) and table[0, 0].item() == pytest.approx(torch.cos(torch.tensor(3.0)).item())
    assert table[1, 5].item() == pytest.approx(torch.sin(torch.tensor(4.0 * 1e-4)).item(), rel=1e-4)
    assert torch.allclose(cosines(0, 5, 6)[3:], table)


def test_a_stack_of_another_kind_is_refused() -> None:
    for stack in (TransformerConfig(vocab=5), TransformerConfig(vocab=0, causal=False)):
        with pytest.raises(ConjureError, match="causal stack without a vocabulary"):
            CodeWriterConfig(transformer=stack)
    with pytest.raises(ConjureError, match="books"):
        CodeWriterConfig(books=0)
