"""Sentences in two languages side by side: the pairs of English and Spanish in the set `tatoeba`.

Sentences that are the same but for case, accents, marks and contractions, and all that are translations of one of
them, are a group; a group lies in one part alone. So no sentence of a held-out part was taught, in either language.

Legend: N examples.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive, rng
from conjure.data.archives import file
from conjure.data.fetch import get

SET, FILE = "tatoeba", "spa-eng.tsv"
LANGUAGES = ("en", "es")
"""In the order of the columns."""
Part = Literal["train", "valid", "test"]
Pair = tuple[str, str]
"""The sentence in English and in Spanish."""
VALID, TEST = 0.01, 0.02
"""Shares of the groups."""
_CONTRACTED = (("won't", "will not"), ("can't", "can not"), ("cannot", "can not"), ("n't", " not"), ("'re", " are"),
               ("'ve", " have"), ("'ll", " will"), ("'m", " am"), ("'s", " is"), ("'d", " would"))  # fmt: skip

_MARKS = re.compile("[\u0300-\u036f]")
_WORDS = re.compile(r"\w+")


def plain(text: str) -> str:
    """The words without case, accents, marks and English contractions: two sentences that read alike are equal."""
    text = text.casefold().replace("’", "'")
    if "'" in text or "cannot" in text:
        for short, long in _CONTRACTED:
            text = text.replace(short, long)
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFKD", text))
    return " ".join(_WORDS.findall(text))


def grouped(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The pairs in groups that share no sentence, alike ones counted as one; the order is that of the pairs."""
    parent: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    distinct = list(dict.fromkeys(pairs))
    ends = [tuple((side, plain(text)) for side, text in enumerate(pair)) for pair in distinct]
    for first, second in ends:
        parent[root(first)] = root(second)
    groups: defaultdict[tuple[int, str], list[Pair]] = defaultdict(list)
    for pair, (first, _) in zip(distinct, ends, strict=True):
        groups[root(first)].append(pair)
    return list(groups.values())


def part_of(group: Sequence[Pair]) -> Part:
    """Which part a group lies in: a digest of its first sentence says so, so more data move no group."""
    key = min(plain(english) for english, _ in group)
    draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "valid" if draw < VALID else "test" if draw < VALID + TEST else "train"


@lru_cache(maxsize=1)
def groups(part: Part) -> tuple[tuple[Pair, ...], ...]:
    """The groups of a part, from the set on this machine."""
    lines = file(get(SET), FILE).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line]
    if bad := next((row for row in rows if len(row) < 2), None):
        raise ConjureError(f"{SET}/{FILE}: expected an English and a Spanish sentence in a line, got {bad[0]!r}")
    found = grouped((unicodedata.normalize("NFC", row[0]), unicodedata.normalize("NFC", row[1])) for row in rows)
    return tuple(tuple(group) for group in found if part_of(group) == part)


class Drill:
    """An endless order of examples in blocks of nearly equal lengths, so that a batch of some is little padded.

    Example i is a pure function of (seed, i). An epoch has every example once; which examples are in a block, and the
    order of blocks, are drawn for the epoch.
    """

    def __init__(self, lengths: Sequence[tuple[int, int]], block: int, seed: int) -> None:
        """`lengths` are tokens of source and target; a batch should be a multiple of `block`."""
        self._lengths_N2, self._block, self._seed = np.array(lengths).reshape(-1, 2), block, seed
        self._order = lru_cache(maxsize=2)(self._drawn_order)

    @property
    def epoch(self) -> int:
        """Indices in an epoch: the examples, and so many again that the last block is full."""
        return -(-len(self._lengths_N2) // self._block) * self._block

    def example(self, index: int) -> int:
        """Which of the examples stands at this index."""
        return int(self._order(index // self.epoch)[index % self.epoch])

    def _drawn_order(self, epoch: int) -> np.ndarray:
        draw = rng(derive(self._seed, "pairs", epoch))
        some_N = draw.permutation(len(self._lengths_N2))
        order_N = np.resize(some_N, self.epoch)
        source_N, target_N = self._lengths_N2[order_N].T
        # The last key counts first: blocks have one length of source, mostly, and nearly one of target.
        order_N = order_N[np.lexsort((target_N + draw.random(len(order_N)), source_N))]
        blocks = order_N.reshape(-1, self._block)
        return blocks[draw.permutation(len(blocks))].reshape(-1)
