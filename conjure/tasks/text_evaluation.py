"""The published figures of text models: bits per byte and perplexity of texts they have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress
from conjure.data import fetch
from conjure.data.archives import file
from conjure.data.books import Document, book, documents, split
from conjure.media.text import read
from conjure.metrics.confidence import Interval
from conjure.metrics.likelihood import mapped, ratio_interval, token_nats
from conjure.models.transformer import Transformer

WIKITEXT = ("wikitext2_valid", "wikitext2", "wikitext")
CHUNK = 2048
"""Tokens of a chunk, the unit that the error bars resample."""

Figures = dict[str, dict[str, Any]]


def published(
    network: Transformer,
    tokenizer: Tokenizer,
    sets: Sequence[str],
    context: int,
    data: Sequence[str],
    on_progress: Callable[[Event], None] | None = None,
) -> Figures:
    """Bits per byte and token perplexity of the validation documents of `sets`, the model's own; or of each of `data`:
    `wikitext2_valid` (word perplexity too), another set of texts, or a text file."""
    if not data:
        held_out = split(documents(sets))[1]
        what = f"validation documents of {', '.join(sets)}"
        return measure(network, tokenizer, held_out, what, context=context, on_progress=on_progress)
    found: Figures = {}
    for name in data:
        prefix = "" if len(data) == 1 else f"{Path(name).stem}: "
        for figure, facts in _measured(network, tokenizer, name, sets, context, on_progress).items():
            found[prefix + figure] = facts
    return found


def _measured(
    network: Transformer,
    tokenizer: Tokenizer,
    name: str,
    sets: Sequence[str],
    context: int,
    on_progress: Callable[[Event], None] | None,
) -> Figures:
    if name in WIKITEXT:
        text = file(fetch.path(WIKITEXT[0]), "valid.txt").decode("utf-8")
        return measure(
            network, tokenizer, [Document(name, plain(text))], "WikiText-2 validation, detokenized",
            context=context, words=words(text), on_progress=on_progress,
        )  # fmt: skip
    path = Path(name)
    if path.is_file():
        text = read(path).text
        text = book(text) if path.suffix == ".md" else text
        return measure(network, tokenizer, [Document(name, text)], name, context=context, on_progress=on_progress)
    if path.suffix:
        raise ConjureError(f"expected a text file or a data set, but {name} does not exist", hint="conjure list data")
    texts, what = documents([name]), name
    if name in sets:  # the model has read the rest
        texts, what = split(texts)[1], f"validation documents of {name}"
    return measure(network, tokenizer, texts, what, context=context, on_progress=on_progress)


def words(text: str) -> int:
    """Words of WikiText as its papers count them: what spaces divide, and one <eos> for each line."""
    return sum(len(line.split()) + 1 for line in text.splitlines())


def plain(text: str) -> str:
    """WikiText as ordinary writing: without the spaces that its tokenizer put in front of punctuation and around @-@,
    @,@ and @.@. `<unk>` stays as it is. A model of words would not see any of it; one of bytes would pay for it."""
    for mark in "-,.":
        text = text.replace(f" @{mark}@ ", mark)
    for mark in (",", ".", ";", ":", "!", "?", ")", "'s", "n't", "%"):
        text = text.replace(f" {mark}", mark)
    return text.replace("( ", "(").replace(" \n", "\n").replace("\n ", "\n")


@torch.no_grad()
def measure(
    network: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[Document],
    what: str,
    *,
    context: int,
    words: int = 0,
    on_progress: Callable[[Event], None] | None = None,
) -> Figures:
    """Sliding windows of `context` tokens that move by half; the end of each text is predicted too."""
    end = [] if tokenizer.end is None else [tokenizer.end]
    rows = [end + tokenizer.encode(each.text) + end for each in texts]
    total, done = sum(len(row) - 1 for row in rows), 0
    nats: list[float] = []
    sizes: list[int] = []
    for row in rows:
        parts = []
        for part in token_nats(network, row, context=context, stride=max(1, context // 2)):
            parts.append(part)
            done += len(part)
            if on_progress:
                on_progress(Progress(done, total, "token", what))
        flat = np.concatenate([np.zeros(0), *parts])
        nats += [float(flat[at : at + CHUNK].sum()) for at in range(0, len(flat), CHUNK)]
        sizes += [len(flat[at : at + CHUNK]) for at in range(0, len(flat), CHUNK)]
    size = sum(len(each.text.encode()) for each in texts)
    per_token = ratio_interval(nats, sizes)
    step = max(1, context // 2)
    protocol = f"{what}; windows of {context} tokens moving by {step}; 95 % bootstrap over {len(nats)} chunks"

    def scaled(units: float) -> Callable[[float], float]:
        return lambda value: value * total / units

    def facts(interval: Interval, n: int, more: str = "") -> dict[str, Any]:
        return {**interval._asdict(), "n": n, "protocol": protocol + more}

    found = {
        "bits_per_byte": facts(mapped(per_token, scaled(size * math.log(2))), size, "; n is bytes"),
        "token_perplexity": facts(mapped(per_token, math.exp), total, "; n is tokens"),
    }
    if words:
        interval = mapped(mapped(per_token, scaled(words)), math.exp)
        more = "; exp of nats per word of the original, line ends counted; n is words"
        found = {"perplexity": facts(interval, words, more)} | found
    return found
