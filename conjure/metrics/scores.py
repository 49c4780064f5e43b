"""From answers to scores: what one item counts, and what many items are together, with standard errors.

The definitions, down to the draws of the bootstrap, are those of the LM Evaluation Harness 0.4.13, so that a number
can be laid beside published ones.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from conjure.core.errors import ConjureError
from conjure.metrics.harness import Scored

RESAMPLES = 100_000
NO_ANSWER = "[invalid]"


class Figure(NamedTuple):
    """A score over `n` items; `stderr` is None where nobody defines one."""

    value: float
    stderr: float | None
    n: int


# -- one item ---------------------------------------------------------------------------------------------------


def chosen(scored: Sequence[Scored], choices: Sequence[str], gold: int) -> dict[str, float]:
    """Whether the likeliest choice is the right one, by four lengths: the sum of log-probabilities (`acc`), or that
    divided by characters (`acc_norm`), by UTF-8 bytes (`acc_bytes`) or by tokens (`acc_tokens`, as llm-foundry does).
    Of equals the first counts."""
    logprobs = np.array([each.logprob for each in scored])
    lengths = {
        "acc": np.ones(len(choices)),
        "acc_norm": np.array([float(len(choice)) for choice in choices]),
        "acc_bytes": np.array([float(len(choice.encode())) for choice in choices]),
        "acc_tokens": np.array([float(each.tokens) for each in scored]),
    }
    if not all(lengths["acc_norm"]):
        raise ConjureError(f"expected choices with a text, got {list(choices)}")
    return {name: float(np.argmax(logprobs / length) == gold) for name, length in lengths.items()}


def true_mass(scored: Sequence[Scored], labels: Sequence[int]) -> float:
    """The share of probability that lies on true answers (Lin et al. 2022, arXiv 2109.07958, MC2)."""
    mass = np.exp(np.array([each.logprob for each in scored]))
    return float(np.sum((mass / np.sum(mass))[np.array(labels) == 1]))


def extracted(text: str, pattern: str, which: int) -> str:
    """Match `which` (0 the first, -1 the last) of the pattern, its first group that is not empty; `[invalid]` where
    there is none."""
    found = re.findall(pattern, text)
    if not found:
        return NO_ANSWER
    match = found[which]
    if isinstance(match, tuple):
        match = next((group for group in match if group), NO_ANSWER)
    return match.strip()


def exact_match(answer: str, gold: str, ignored: Sequence[str]) -> float:
    """1 where both are the same text, small and capital letters alike, once the patterns `ignored` are taken out."""
    for pattern in ignored:
        answer, gold = re.sub(pattern, "", answer), re.sub(pattern, "", gold)
    return float(answer.lower() == gold.lower())


# -- many items -------------------------------------------------------------------------------------------------


def mean(values: Sequence[float], resamples: int = RESAMPLES) -> Figure:
    """With the standard error of a mean, from the sample's deviation."""
    average = sum(values) / len(values)
    if len(values) < 2:
        return Figure(average, None, len(values))
    variance = sum((value - average) ** 2 for value in values) / (len(values) - 1)
    return Figure(average, math.sqrt(variance) / math.sqrt(len(values)), len(values))


def perplexity(values: Sequence[float], resamples: int = RESAMPLES) -> Figure:
    """exp(-mean) of log-likelihoods, with a bootstrap standard error."""
    value = _exp(-sum(values) / len(values))
    if len(values) < 2:
        return Figure(value, None, len(values))
    return Figure(value, _bootstrap(np.asarray(values, dtype=np.float64), resamples), len(values))


def weighted_perplexity(values: Sequence[tuple[float, float]], resamples: int = RESAMPLES) -> Figure:
    """exp(-nats per unit) of pairs (log-likelihood, units)."""
    return Figure(_exp(-_ratio(values)), None, len(values))


def bits(values: Sequence[tuple[float, float]], resamples: int = RESAMPLES) -> Figure:
    """Bits per unit of pairs (log-likelihood, units)."""
    return Figure(-_ratio(values) / math.log(2), None, len(values))


Together = Callable[[Sequence[Any], int], Figure]

AGGREGATES: Mapping[str, Together] = {
    "perplexity": perplexity,
    "word_perplexity": weighted_perplexity,
    "byte_perplexity": weighted_perplexity,
    "bits_per_byte": bits,
}
"""How the items of a metric come together; `mean` for all others."""


def aggregate(metric: str, values: Sequence[Any], resamples: int = RESAMPLES) -> Figure:
    """The figure of one metric over all items."""
    if not values:
        raise ConjureError(f"{metric}: there is no item to measure", hint="an empty suite has no result")
    return AGGREGATES.get(metric, mean)(values, resamples)


def pooled(parts: Sequence[Figure]) -> Figure:
    """Means of several suites as one, weighted by their items, with the pooled standard error."""
    sizes = [part.n for part in parts]
    total = sum(sizes)
    value = sum(part.value * part.n for part in parts) / total
    errors = [part.stderr for part in parts if part.stderr is not None]
    if len(errors) < len(parts) or total == len(parts):
        return Figure(value, None, total)
    variance = sum((n - 1) * error**2 * n for n, error in zip(sizes, errors, strict=True)) / (total - len(parts))
    return Figure(value, math.sqrt(variance / total), total)


def _exp(value: float) -> float:
    """exp, infinite where it is too large for a float."""
    return math.exp(value) if value < 709 else math.inf


def _ratio(values: Sequence[tuple[float, float]]) -> float:
    return sum(value for value, _ in values) / sum(units for _, units in values)


def _bootstrap(values: np.ndarray, resamples: int) -> float:
    """The deviation of exp(-mean) over samples drawn with replacement, in chunks of at most 1,000 draws with the seeds
    0, 1, 2, ... of Python's generator. NumPy continues the same Mersenne twister from the same state, so the draws are
    those of `random.choices`, at a hundredth of its time."""
    chunk = min(1000, resamples)
    found = []
    for seed in range(resamples // chunk):
        twister = np.random.RandomState()
        state = random.Random(seed).getstate()[1]
        twister.set_state(("MT19937", np.array(state[:-1], dtype=np.uint32), state[-1], 0, 0.0))
        drawn = (twister.random_sample((chunk, len(values))) * len(values)).astype(np.int64)
        with np.errstate(over="ignore"):
            found.append(np.exp(-values[drawn].mean(axis=1)))
    return float(np.std(np.concatenate(found), ddof=1))
