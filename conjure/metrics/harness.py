"""The three questions that benchmarks ask a language model, by the rules of the LM Evaluation Harness.

How likely is this continuation of that context, how likely is this whole text, and what comes next until one of these
strings. Cutting into tokens, truncating and windows follow version 0.4.13 of the harness (Gao et al. 2021; Biderman et
al. 2024, arXiv 2405.14782) to the letter, because one token more or less gives another score.

Legend: B rows of a batch, T tokens of the longest row, V vocabulary, N tokens of a continuation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from conjure.core.errors import ConjureError

UNBOUNDED_CONTEXT = 2048
"""What the harness reads at once where a model states no limit."""
ROWS = 32
LOGITS = 1 << 26
"""Most logits that one batch makes: 256 MB of float32."""
SHORTEST = 0.875
"""Rows below this part of the longest one's length go into the next batch: padding costs what reading costs."""
WRITERS = 8
"""Texts that are written side by side."""

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model as it is examined."""

    logits: Callable[[Tensor, Tensor], Tensor]
    """(ids int64 [B, T], mask int64 [B, T], 0 behind the end of a row) -> float32 [B, T, V]."""
    encode: Callable[[str, bool], list[int]]
    """(text, whether to add what the tokenizer puts around a text) -> ids."""
    decode: Callable[[Sequence[int]], str]
    """Without special tokens."""
    write: Callable[[Sequence[Sequence[int]], int, Sequence[str]], Sequence[Sequence[int]]]
    """(prompts, most new tokens, stop strings) -> greedy ids, which end with the end of text, left out, or no earlier
    than where the text holds a stop string."""
    vocabulary: int
    prefix: int | None
    """The id that stands where there is no context: beginning of text, else end of text."""
    prefix_text: str = ""
    end_text: str = ""
    context: int = 0
    """Most tokens that are read at once; 0 is without end."""

    @property
    def longest(self) -> int:
        return self.context or UNBOUNDED_CONTEXT


class Scored(NamedTuple):
    """What a model says to a continuation."""

    logprob: float
    """Sum over its tokens, in nats."""
    greedy: bool
    """Whether each token is the likeliest one."""
    tokens: int


Pair = tuple[list[int], list[int]]


def loglikelihood(
    subject: Subject, requests: Sequence[tuple[str, str]], advance: Advance | None = None
) -> list[Scored]:
    """How likely each (context, continuation) is; an empty context stands for the beginning of a text.

    `advance` is told of requests that are done. Raises `ConjureError` for a continuation that has no token of its own
    or does not fit into the model.
    """
    return _scores(subject, [encoded_pair(subject, *request) for request in requests], advance)


def loglikelihood_rolling(subject: Subject, texts: Sequence[str], advance: Advance | None = None) -> list[float]:
    """log p of each whole text in nats: windows that do not overlap but for the last, see `rolling_windows`."""
    owners: list[int] = []
    pairs: list[Pair] = []
    for index, text in enumerate(texts):
        for pair in rolling_windows(_encode(subject, text), _prefix(subject), subject.longest):
            owners.append(index)
            pairs.append(pair)
    totals = [0.0] * len(texts)
    for index, scored in zip(owners, _scores(subject, pairs, None), strict=True):
        totals[index] += scored.logprob
    if advance is not None:
        advance(len(texts))
    return totals


def generate_until(
    subject: Subject, prompts: Sequence[str], *, stop: Sequence[str], tokens: int = 256, advance: Advance | None = None
) -> list[str]:
    """The greedy continuation of each prompt, at most `tokens` long, up to the first of the `stop` strings.

    Prompts lose their left end so that they and the new tokens fit. `advance` is told of prompts that are done.
    """
    room = subject.longest - tokens
    if room <= 0:
        raise ConjureError(
            f"{tokens} new tokens are asked for, the model reads {subject.longest} in all",
            hint="choose a model with a longer context",
        )
    stops = [*stop, subject.end_text] if subject.end_text else list(stop)
    rows = [_encode(subject, prompt)[-room:] or [_prefix(subject)] for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    found = [""] * len(rows)
    for at in range(0, len(order), WRITERS):
        part = order[at : at + WRITERS]
        for index, ids in zip(part, subject.write([rows[index] for index in part], tokens, stops), strict=True):
            found[index] = cut(subject.decode(ids), stops)
        if advance is not None:
            advance(len(part))
    return found


def cut(text: str, stops: Iterable[str]) -> str:
    """The text before the first of each of the strings, taken in order."""
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text


def encoded_pair(subject: Subject, context: str, continuation: str) -> Pair:
    """The ids of a context and of its continuation. Both are encoded as one text, because words merge with the space
    before them: blanks at the end of the context belong to the continuation, and what the context alone encodes to
    tells how many ids are its own."""
    if context == "":
        ids = subject.encode(continuation, False)
        prefix = _prefix(subject)
        pair = (ids[:1], ids[1:]) if ids[:1] == [prefix] else ([prefix], ids)
    else:
        before = context.rstrip()
        whole = _encode(subject, context + continuation)
        first = _encode(subject, before)
        pair = (first or [_prefix(subject)], whole[len(first) :])
    if not pair[1]:
        raise ConjureError(
            f"the continuation {continuation!r} has no token of its own after {context[-40:]!r}",
            hint="leave this item out, or give it a continuation that is longer",
        )
    return pair


def rolling_windows(ids: Sequence[int], prefix: int, longest: int) -> Iterator[Pair]:
    """(context, targets) that predict each id once: full windows one after the other, the first behind `prefix`; the
    last one reaches back so that it is as long as the others."""
    done = min(longest, len(ids))
    if done:
        yield [prefix], list(ids[:done])
    while done < len(ids):
        end = min(done + longest, len(ids))
        yield list(ids[end - longest - 1 : done]), list(ids[done:end])
        done = end


def _encode(subject: Subject, text: str) -> list[int]:
    """With what the tokenizer puts around a text, unless the text begins with it already."""
    return subject.encode(text, not (subject.prefix_text and text.startswith(subject.prefix_text)))


def _prefix(subject: Subject) -> int:
    if subject.prefix is None:
        raise ConjureError(
            "the model's tokenizer has neither a beginning nor an end of text to put before the first word",
            hint="add `bos_token` or `eos_token` to its tokenizer_config.json",
        )
    return subject.prefix


def _scores(subject: Subject, pairs: Sequence[Pair], advance: Advance | None) -> list[Scored]:
    """Longest rows first. Rows that read the same ids, as answers of one token each do, are read once."""
    longest = subject.longest
    rows: dict[tuple[int, ...], list[int]] = {}
    for index, (context, targets) in enumerate(pairs):
        if len(targets) > longest:
            raise ConjureError(
                f"a continuation has {len(targets):,} tokens, the model reads {longest:,} at once",
                hint="leave this item out, or choose a model with a longer context",
            )
        rows.setdefault(tuple([*context, *targets][-(longest + 1) : -1]), []).append(index)
    found: dict[int, Scored] = {}
    for batch in batches(sorted(rows, key=lambda row: (-len(row), row)), subject.vocabulary):
        ids_BT, mask_BT = padded(batch)
        with torch.inference_mode():
            logits_BTV = subject.logits(ids_BT, mask_BT)
        before = len(found)
        for row, logits_TV in zip(batch, logits_BTV, strict=True):
            most = max(len(pairs[index][1]) for index in rows[row])
            logp_NV = logits_TV[len(row) - most : len(row)].float().log_softmax(-1).cpu()
            for index in rows[row]:
                found[index] = _scored(logp_NV, pairs[index][1])
        if advance is not None:
            advance(len(found) - before)
    return [found[index] for index in range(len(pairs))]


def _scored(logp_NV: Tensor, targets: Sequence[int]) -> Scored:
    """The score of targets that are predicted at the last places of `logp_NV`."""
    own_NV, ids_N = logp_NV[-len(targets) :], torch.tensor(targets)
    total = float(own_NV.gather(-1, ids_N[:, None]).double().sum())
    if total != total:
        raise ConjureError(
            "the model's logits are no numbers (NaN)", hint="its weights are broken, or the type is too small for them"
        )
    return Scored(total, bool((own_NV.argmax(-1) == ids_N).all()), len(targets))


def batches(rows: Sequence[tuple[int, ...]], vocabulary: int) -> Iterator[list[tuple[int, ...]]]:
    """Neighbours of rows sorted by falling length, so that little is padded and the logits fit into memory."""
    batch: list[tuple[int, ...]] = []
    for row in rows:
        if batch:
            top = len(batch[0])
            full = len(batch) >= ROWS or (len(batch) + 1) * top * vocabulary > LOGITS
            if full or len(row) < SHORTEST * top:
                yield batch
                batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 [B, T]; filled up on the right with zeros, which causal models never look at."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    mask = [[*[1] * len(row), *[0] * (longest - len(row))] for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
