"""The published figures of a model that follows instructions, on questions that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from conjure.core.events import Event, Progress
from conjure.data.exercises import KINDS_OF_EXERCISE, Exercise
from conjure.data.instructions import Piece, examination, filled
from conjure.data.packing import laid
from conjure.metrics.confidence import bootstrap_mean, wilson
from conjure.metrics.likelihood import ratio_interval
from conjure.metrics.text_overlap import rouge_l, word_f1

EACH = 40
"""Exercises of each kind."""
ROWS = 16
"""Questions answered at once."""

Figures = dict[str, dict[str, Any]]
Answers = Callable[[Sequence[Exercise]], list[str]]


def answer_figures(
    answers: Answers,
    asked: Sequence[Exercise],
    names: Sequence[str],
    on_progress: Callable[[Event], None] | None = None,
    *,
    each: int = EACH,
) -> Figures:
    """Exact matches of exercises, all and by kind; word F1 and ROUGE-L of the answers to `asked`."""
    exercises = [one for kind in KINDS_OF_EXERCISE for one in examination(kind, each)]
    everything = [*exercises, *asked]
    made: list[str] = []
    while len(made) < len(everything):
        made += answers(everything[len(made) : len(made) + ROWS])
        if on_progress:
            on_progress(Progress(len(made), len(everything), "question"))
    right = [ours.strip() == one.answer for ours, one in zip(made, exercises, strict=False)]
    protocol = "exercises of the held-out tenth, up to {} of each kind; the likeliest tokens; exact match; 95 % Wilson"
    found: Figures = {
        "exact_match": {**wilson(sum(right), len(right))._asdict(), "n": len(right), "protocol": protocol.format(each)}
    }
    for kind in KINDS_OF_EXERCISE:
        own = [good for good, one in zip(right, exercises, strict=True) if one.kind == kind]
        if own:
            facts = wilson(sum(own), len(own))._asdict()
            found[f"{kind}: exact_match"] = {**facts, "n": len(own), "protocol": protocol.format(each)}
    pairs = [(ours, one.answer) for ours, one in zip(made[len(exercises) :], asked, strict=True)]
    for name, measured in (("word_f1", word_f1), ("rouge_l", rouge_l)):
        if pairs:
            facts = bootstrap_mean([measured(*pair) for pair in pairs], seed=0)._asdict()
            what = f"instructions of the held-out tenth of {', '.join(names)}; the likeliest tokens; 95 % bootstrap"
            found[f"instructions: {name}"] = {**facts, "n": len(pairs), "protocol": what}
    return found


def likelihood(
    nats: Callable[[dict[str, Tensor]], float],
    pieces: Sequence[Piece],
    asked: Sequence[Exercise],
    names: Sequence[str],
    length: int,
) -> Figures:
    """Bits per byte of the written answers to `asked`, their ends included; `nats(batch)` is the sum over a batch."""
    kept = [(p, one) for p, one in zip(pieces, asked, strict=True) if len(p[0]) <= length]
    if not kept:
        return {}
    values = [nats(laid(filled([piece], length), length)) for piece, _ in kept]
    sizes = [float(len(one.answer.encode())) * math.log(2) for _, one in kept]
    what = f"answers to the held-out tenth of {', '.join(names)} given the instruction; 95 % bootstrap over answers"
    return {
        "instructions: bits_per_byte": {**ratio_interval(values, sizes)._asdict(), "n": len(kept), "protocol": what}
    }
