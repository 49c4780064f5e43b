"""CTC: each way of reading beside a count of every path there is, and beside torch's loss."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.decoding.ctc import aligned, greedy, prefix_beam

T, V = 6, 4


def frames(seed: int, T: int = T, V: int = V) -> torch.Tensor:
    return 2 * torch.randn(T, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joined(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def every_path(logits_TV: torch.Tensor, blank: int) -> dict[tuple[int, ...], list[tuple[tuple[int, ...], float]]]:
    """text -> (path, log-probability) of all of its paths."""
    logp = logits_TV.log_softmax(-1).tolist()
    found = defaultdict(list)
    for path in itertools.product(range(logits_TV.shape[1]), repeat=len(logp)):
        found[joined(path, blank)].append((path, sum(row[s] for row, s in zip(logp, path, strict=True))))
    return found


def total(paths: list[tuple[tuple[int, ...], float]]) -> float:
    return math.log(sum(math.exp(chance) for _, chance in paths))


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_path(seed: int, blank: int) -> None:
    logits = frames(seed)
    best = max((pair for pairs in every_path(logits, blank).values() for pair in pairs), key=lambda pair: pair[1])
    found = greedy(logits, blank)
    assert tuple(piece.id for piece in found) == joined(best[0], blank)
    for piece in found:
        assert all(best[0][t] == piece.id for t in range(piece.start, piece.end))
        mean = logits.log_softmax(-1)[piece.start : piece.end, piece.id].mean()
        assert piece.logprob == pytest.approx(float(mean))
    assert sum(piece.end - piece.start for piece in found) == sum(symbol != blank for symbol in best[0])


@pytest.mark.parametrize("text", [(1,), (1, 1), (2, 1, 2), (1, 2, 2, 1), (3, 3, 3)])
def test_the_best_path_of_a_known_text(text: tuple[int, ...]) -> None:
    logits = frames(7)
    best = max(every_path(logits, 0)[text], key=lambda pair: pair[1])[0]
    found = aligned(logits, text)
    assert tuple(piece.id for piece in found) == text
    made = [0] * T
    for piece in found:
        made[piece.start : piece.end] = [piece.id] * (piece.end - piece.start)
    assert tuple(made) == best


def test_a_text_that_is_too_long_for_its_frames() -> None:
    assert [(p.start, p.end) for p in aligned(frames(1, T=3), [1, 1])] == [(0, 1), (2, 3)]
    with pytest.raises(ConjureError, match="2 symbols take at least 3 frames, there are 2"):
        aligned(frames(1, T=2), [1, 1])
    assert aligned(frames(1), []) == []


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_counts_every_path(seed: int, blank: int) -> None:
    logits = frames(seed)
    wanted = {text: total(paths) for text, paths in every_path(logits, blank).items()}
    found = prefix_beam(logits, blank, beams=10_000, unlikely=-math.inf)
    assert {reading.ids for reading in found} == set(wanted)
    for reading in found:
        assert reading.logprob == pytest.approx(wanted[reading.ids], abs=1e-9)
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)


def test_a_reading_has_the_probability_that_the_loss_gives() -> None:
    logits = frames(5, T=8, V=4)
    best = prefix_beam(logits, beams=20_000, unlikely=-math.inf)[0]
    lengths = torch.tensor([8]), torch.tensor([len(best.ids)])
    loss = F.ctc_loss(logits.log_softmax(-1)[:, None], torch.tensor([best.ids]), *lengths, reduction="sum")
    assert best.logprob == pytest.approx(-float(loss), abs=1e-4)


def test_a_language_model_is_added_once_a_symbol() -> None:
    logits = frames(2)
    asked: list[tuple[Any, int]] = []

    def score(known: tuple[int, ...], symbol: int) -> tuple[float, tuple[int, ...]]:
        asked.append((known, symbol))
        return 0.7 * len(known) - symbol, (*known, symbol)

    found = prefix_beam(logits, beams=10_000, score=score, begin=(), end=lambda known: 5.0 * (len(known) == 2),
                        unlikely=-math.inf)  # fmt: skip
    wanted = {text: total(paths) for text, paths in every_path(logits, 0).items()}
    for reading in found:
        added = sum(0.7 * place - symbol for place, symbol in enumerate(reading.ids)) + 5.0 * (len(reading.ids) == 2)
        assert reading.score == pytest.approx(wanted[reading.ids] + added, abs=1e-9)
    assert len(asked) == len(set(asked))


def test_a_narrow_beam_is_near_the_exact_one_and_never_above() -> None:
    logits = frames(3, T=8)
    exact = prefix_beam(logits, beams=100_000, unlikely=-math.inf)[0]
    narrow = prefix_beam(logits, beams=8)
    assert len(narrow) <= 8
    assert exact.logprob - 0.5 < narrow[0].logprob <= exact.logprob + 1e-9


def test_one_beam_where_nothing_is_heard() -> None:
    logits = torch.full((5, 3), -50.0)
    logits[:, 0] = 50.0
    assert [r.ids for r in prefix_beam(logits, beams=4)] == [()]
    assert greedy(logits) == []


def test_what_is_no_logits() -> None:
    with pytest.raises(ConjureError, match=r"expected logits of frames, \[T, V\]"):
        greedy(torch.zeros(1, 3, 4))
    with pytest.raises(ConjureError, match="at least one beam"):
        prefix_beam(frames(0), beams=0)


def test_a_long_text_is_placed_too() -> None:
    text = [1 + n % 3 for n in range(400)]
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor(text), V).double()
    assert [(piece.start, piece.end) for piece in aligned(logits, text)] == [(n, n + 1) for n in range(400)]
