"""How close translations come to those of people: BLEU and chrF of a whole set, by sacrebleu.

BLEU (Papineni et al. 2002) with the tokenizer 13a and case kept, chrF of six letters (Popović 2015), one reference a
sentence: what `sacrebleu` prints with its defaults (Post 2018, arXiv 1804.08771).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from conjure.core.errors import ConjureError
from conjure.metrics.confidence import Interval

DRAWS = 1000
"""Of the bootstrap over sentences (Koehn 2004)."""


class Closeness(NamedTuple):
    """0 to 100 each, with 95 % intervals."""

    bleu: Interval
    chrf: Interval
    signatures: tuple[str, str]
    """How sacrebleu says what was measured, for BLEU and chrF."""


def closeness(found: Sequence[str], wanted: Sequence[str]) -> Closeness:
    """Of all of `found` together to `wanted`, a reference for each."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise ConjureError("BLEU needs sacrebleu", hint="pip install sacrebleu") from None
    if len(found) != len(wanted) or len(wanted) < 2:
        raise ConjureError(f"expected as many texts as were wanted, at least two, got {len(found)} and {len(wanted)}")
    intervals, signatures = [], []
    for metric in (BLEU(), CHRF()):
        score = metric.corpus_score(list(found), [list(wanted)], n_bootstrap=DRAWS)
        mean, half = float(score._mean), float(score._ci)
        intervals.append(Interval(float(score.score), max(0.0, mean - half), min(100.0, mean + half)))
        signatures.append(str(metric.get_signature()))
    return Closeness(intervals[0], intervals[1], (signatures[0], signatures[1]))
