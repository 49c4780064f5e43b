"""How good translations of the held-out sentences are, each way apart, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from conjure.core.events import Event, Progress
from conjure.data.sentence_pairs import LANGUAGES, SET, Pair, groups, plain
from conjure.metrics.confidence import Interval, wilson
from conjure.metrics.translations import Closeness, closeness
from conjure.tasks.asked_language import likely

Translate = Callable[[Sequence[str], str, int], list[str]]
"""(sentences, language to write in, beams) -> translations."""
BEAMS = 4
AT_ONCE = 64


def published(translate: Translate, on_progress: Callable[[Event], None] | None = None) -> dict[str, dict[str, Any]]:
    """BLEU and chrF by search, BLEU without, BLEU of sentences unlike all taught ones; and how often the language of a
    sentence was found."""
    tell = on_progress or (lambda event: None)
    held = [pair for group in groups("test") for pair in group]
    taught = [pair for group in groups("train") for pair in group]
    figures: dict[str, dict[str, Any]] = {}
    for into, language in enumerate(LANGUAGES):
        asked = once(held, 1 - into)
        sources, wanted = [pair[1 - into] for pair in asked], [pair[into] for pair in asked]
        way = f"{LANGUAGES[1 - into]}_{language}"
        what = f"{len(asked)} held-out sentences of {SET}, {LANGUAGES[1 - into]} to {language}, a reference each"
        searched = _translated(translate, sources, language, BEAMS, tell)
        greedy = _translated(translate, sources, language, 1, tell)
        score = closeness(searched, wanted)
        near = neighbours(pair[1 - into] for pair in taught)
        apart = [n for n, text in enumerate(sources) if not keys(text) & near]
        unlike = closeness([searched[n] for n in apart], [wanted[n] for n in apart]) if len(apart) > 1 else None
        figures |= {
            f"bleu_{way}": _said(score, score.bleu, len(asked), f"{what}; {BEAMS} beams"),
            f"chrf_{way}": _said(score, score.chrf, len(asked), f"{what}; {BEAMS} beams"),
            f"bleu_{way}_greedy": _said(score, closeness(greedy, wanted).bleu, len(asked), f"{what}; greedy"),
        }
        if unlike is not None:
            told = f"those of them that differ from every taught {LANGUAGES[1 - into]} sentence by more than a word"
            figures[f"bleu_{way}_unlike"] = _said(unlike, unlike.bleu, len(apart), f"{told}; {BEAMS} beams")
    return figures | {"language_found": _language_found(held)}


def once(pairs: Sequence[Pair], side: int) -> list[Pair]:
    """Each sentence of that side with its first translation."""
    return list({pair[side]: pair for pair in reversed(pairs)}.values())[::-1]


def keys(text: str) -> set[tuple[str, ...]]:
    """The words of a sentence, and all but one of them: sentences that share a key differ by a word at most, replaced,
    left out or moved."""
    words = tuple(plain(text).split())
    return {words, *(words[:n] + words[n + 1 :] for n in range(len(words) if len(words) > 1 else 0))}


def neighbours(texts: Iterator[str]) -> set[tuple[str, ...]]:
    """The keys of all these sentences."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        found |= keys(text)
    return found


def _translated(
    translate: Translate, sources: Sequence[str], into: str, beams: int, tell: Callable[[Event], None]
) -> list[str]:
    """All of them, those of one length together."""
    order = sorted(range(len(sources)), key=lambda n: len(sources[n]))
    found = [""] * len(sources)
    for start in range(0, len(order), AT_ONCE):
        some = order[start : start + AT_ONCE]
        for n, text in zip(some, translate([sources[n] for n in some], into, beams), strict=True):
            found[n] = text
        tell(Progress(start + len(some), len(order), "sentence", f"into {into}, {beams} beams"))
    return found


def _said(score: Closeness, value: Interval, n: int, protocol: str) -> dict[str, Any]:
    signature = score.signatures[1] if value is score.chrf else score.signatures[0]
    return {"value": value.value, "low": value.low, "high": value.high, "n": n,
            "protocol": f"{protocol}; sacrebleu {signature}; 95 % bootstrap interval"}  # fmt: skip


def _language_found(held: Sequence[Pair]) -> dict[str, Any]:
    sentences = {(pair[side], language) for pair in held for side, language in enumerate(LANGUAGES)}
    right = sum(likely(text) == language for text, language in sentences)
    value, low, high = wilson(right, len(sentences))
    return {"value": value, "low": low, "high": high, "n": len(sentences),
            "protocol": "share of these sentences whose language was found by their words; 95 % Wilson interval"}
