from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.decoding.word_presence import presence

BORDER, A, B, C = 1, 2, 3, 4


def spoken(ids: list[int], sure: float = 6.0) -> Tensor:
    """Logits of a network that hears these symbols, each for two frames with a blank behind it."""
    logits_TV = torch.zeros(3 * len(ids), 5)
    for place, symbol in enumerate(ids):
        logits_TV[3 * place : 3 * place + 2, symbol] = sure
        logits_TV[3 * place + 2, 0] = sure
    return logits_TV


def chance(logits_TV: Tensor, text: list[int]) -> float:
    """Over all paths, one by one."""
    logp_TV, total = logits_TV.double().log_softmax(-1).numpy(), 0.0
    for path in itertools.product(range(logits_TV.shape[1]), repeat=len(logits_TV)):
        joined = [each for each, _ in itertools.groupby(path)]
        if [each for each in joined if each] == text:
            total += float(np.exp(logp_TV[np.arange(len(path)), list(path)].sum()))
    return float(np.log(total)) if total else -np.inf


def test_it_is_the_difference_of_two_counts_of_all_paths() -> None:
    logits_TV = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    found = presence(logits_TV, [[A], [B]], BORDER)
    assert found is not None
    own = chance(logits_TV, [A, BORDER, B])
    assert found.letter == pytest.approx(own / 3)
    assert found.missing == pytest.approx((chance(logits_TV, [B]) - own, chance(logits_TV, [A]) - own))
    twice = [[A, BORDER, A, BORDER, B], [A, BORDER, B, BORDER, B]]
    assert found.twice == pytest.approx([chance(logits_TV, text) - own for text in twice])


def test_what_is_missing_and_what_is_said_again() -> None:
    words = [[A, B], [C], [B, A]]
    right = presence(spoken([A, B, BORDER, C, BORDER, B, A]), words, BORDER)
    assert right is not None and right.faults() == [] and right.doubt() < -5
    gone = presence(spoken([A, B, BORDER, B, A]), words, BORDER)
    assert gone is not None and gone.faults() == [(1, "missing")] and gone.doubt() > 5
    assert gone.faults(missing=100.0) == [] and gone.doubt(missing=100.0) < 0
    again = presence(spoken([A, B, BORDER, C, BORDER, C, BORDER, B, A]), words, BORDER)
    assert again is not None and again.faults() == [(1, "twice")]
    silent = presence(spoken([0] * 6), words, BORDER)
    assert silent is not None and min(silent.missing) > 10 and silent.doubt() > 10


def test_texts_that_do_not_fit() -> None:
    assert presence(spoken([A]), [[A, B], [C, A]], BORDER) is None
    tight = presence(torch.zeros(3, 5), [[A], [B]], BORDER)
    assert tight is not None and tight.twice == (-np.inf, -np.inf) and tight.missing[0] > -np.inf
    for words in ([], [[A], []]):
        with pytest.raises(ConjureError, match="at least one symbol"):
            presence(torch.zeros(3, 5), words, BORDER)
