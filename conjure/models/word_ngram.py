"""A small language model over words beside a network that hears letters: which word is likely behind the two before it.

Interpolated Kneser-Ney with one discount (Kneser and Ney 1995; Chen and Goodman 1998, equation 17), from the counts of
three words in a row that a file holds. Beside it may stand what many other texts say of two words in a row, mixed in by
a fixed share: it knows more words. Letter by letter it is read along a tree of all words, so that a word that
cannot become a likely one is behind at once (look-ahead, Ortmanns et al. 1997); a word that it does not know costs so
much a letter.

Legend: E runs of two or three words, V words.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from conjure.codecs.plain_letters import SYMBOLS, spelled
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.models.listener import Tongue

ORDER = 3
DISCOUNT = 0.75
OTHERS = 0.3
"""What other texts weigh."""
LEAST_WORD, LEAST_PAIR = 3, 6
"""Words and pairs that come less often in other texts are left out."""
EDGE, STRANGE = 0, 1
"""Ids of what stands before and behind a sentence, and of a word that is not known. Words follow."""
NAME = "words.safetensors"
_BORDER = SYMBOLS.index(" ")
_OF_PAIRS = ("often", "runs", "counts")


class Known(NamedTuple):
    """What is known of a text: the node of its last word in the tree (-1: no word begins so), that word's score so far,
    how many letters it has, and the words before it."""

    node: int
    ahead: float
    letters: int
    history: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Counts in other texts: how `often` each id came, int32 `[V + 2]`; `runs` `[E, 2]` of ids, sorted, and their
    `counts` `[E]`. Absolute discounting: what a word has less behind another goes to how often words come at all."""

    often: np.ndarray
    runs: np.ndarray
    counts: np.ndarray

    @classmethod
    def learnt(cls, rows: Iterable[Sequence[str]], ids: Mapping[str, int]) -> Pairs:
        often, runs = np.zeros(len(ids) + 2, np.int32), Counter[tuple[int, int]]()
        for row in rows:
            own = [EDGE, *(ids.get(word, STRANGE) for word in row), EDGE]
            runs.update(itertools.pairwise(own))
        for (_, word), count in runs.items():
            often[word] += count
        kept = sorted(run for run, count in runs.items() if count >= LEAST_PAIR and STRANGE not in run)
        return cls(often, np.array(kept, np.uint16).reshape(-1, 2),
                   np.array([min(runs[run], 65_535) for run in kept], np.uint16))  # fmt: skip

    @cached_property
    def _tables(self) -> tuple[list[float], dict[int, float], dict[int, float]]:
        """(each word's share, pair -> its share behind its first word, word -> what is left behind it)."""
        often_V = self.often.astype(np.float64)
        share_E = (self.counts - DISCOUNT) / often_V[self.runs[:, 0]]
        key_E = self.runs.astype(np.int64) @ (len(often_V), 1)
        starts, first = np.unique(self.runs[:, 0], return_index=True)
        left = 1 - np.add.reduceat(share_E, first) if len(first) else first
        return ((often_V / often_V.sum()).tolist(), dict(zip(key_E.tolist(), share_E.tolist(), strict=True)),
                dict(zip(starts.tolist(), left.tolist(), strict=True)))  # fmt: skip

    def chance(self, word: int, history: Sequence[int]) -> float:
        """p(word | the last word of what is before it)."""
        alone, shares, left = self._tables
        if not history or history[-1] not in left:
            return alone[word]
        return shares.get(history[-1] * len(alone) + word, 0.0) + left[history[-1]] * alone[word]


class WordNGram:
    """`words` `[V]`; `runs` `[E, 3]` ids, sorted, and how often each came, `counts` `[E]`; `pairs` of other texts."""

    def __init__(self, words: Sequence[str], runs: np.ndarray, counts: np.ndarray, pairs: Pairs | None = None) -> None:
        self.words, self.runs, self.counts, self.pairs = tuple(words), runs, counts, pairs
        self.size = len(self.words) + 2
        self.ids = {word: index for index, word in enumerate(self.words, start=2)}

    @classmethod
    def learnt(cls, texts: Iterable[str], others: Sequence[str] = ()) -> WordNGram:
        """From sentences, each on its own, and from others that are less like what will be heard."""
        said, read = ([spelled(text).split() for text in some] for some in (texts, others))
        often = Counter(word for row in read for word in row)
        words = sorted({word for row in said for word in row} | {w for w, n in often.items() if n >= LEAST_WORD})
        ids = {word: index for index, word in enumerate(words, start=2)}
        runs = Counter[tuple[int, ...]]()
        for row in said:
            padded = [EDGE] * (ORDER - 1) + [ids[word] for word in row] + [EDGE]
            runs.update(zip(*(padded[k:] for k in range(ORDER)), strict=False))
        if not 0 < len(words) < 65_534:
            raise ConjureError(f"expected sentences of 1 to 65,533 different words, got {len(words):,}")
        kept = sorted(runs)
        counts = np.array([min(runs[run], 65_535) for run in kept], np.uint16)
        return cls(words, np.array(kept, np.uint16), counts, Pairs.learnt(read, ids) if read else None)

    def save(self, folder: Path) -> None:
        """FOLDER/words.safetensors."""
        letters = np.frombuffer("\n".join(self.words).encode("ascii"), np.uint8).copy()
        arrays = {"letters": letters, "runs": self.runs, "counts": self.counts}
        if self.pairs:
            arrays |= {f"pairs.{name}": getattr(self.pairs, name) for name in _OF_PAIRS}
        write_atomic(folder / NAME, to_bytes({name: torch.from_numpy(array) for name, array in arrays.items()}))

    @classmethod
    def load(cls, folder: Path) -> WordNGram | None:
        """None where the folder has none; `ConjureError` where the file is broken."""
        path = Path(folder) / NAME
        if not path.exists():
            return None
        try:
            with safe_open(str(path), framework="np") as stored:
                letters, runs, counts = (stored.get_tensor(name) for name in ("letters", "runs", "counts"))
                more = set(stored.keys()) - {"letters", "runs", "counts"}
                pairs = Pairs(*(stored.get_tensor(f"pairs.{name}") for name in _OF_PAIRS)) if more else None
        except SafetensorError as error:
            raise ConjureError(f"{path} is not a whole safetensors file: {error}", hint="fetch it again") from None
        return cls(letters.tobytes().decode("ascii").split("\n"), runs, counts, pairs)

    # -- probabilities

    @cached_property
    def _tables(self) -> list[tuple[dict[int, float], dict[int, float]]]:
        """For each length of run from 1: (run -> its discounted share behind its beginning, beginning -> what is left
        for shorter runs). Runs are numbers, the first word the highest digit."""
        key_E = self.runs.astype(np.int64) @ self.size ** np.arange(ORDER - 1, -1, -1)
        count_E = self.counts.astype(np.float64)
        made = []
        for length in range(ORDER, 0, -1):
            before_E = key_E // self.size
            starts_B, first_B = np.unique(before_E, return_index=True)
            total_B = np.add.reduceat(count_E, first_B)
            sorts_B = np.diff(np.append(first_B, len(key_E)))
            each_E = np.repeat(total_B, sorts_B)
            share_E = (count_E - DISCOUNT) / each_E
            left_B = DISCOUNT * sorts_B / total_B
            made.append((dict(zip(key_E.tolist(), share_E.tolist(), strict=True)),
                         dict(zip(starts_B.tolist(), left_B.tolist(), strict=True))))  # fmt: skip
            # Shorter runs count by how many different words come before them.
            key_E, count_E = np.unique(key_E % self.size ** (length - 1), return_counts=True)
            count_E = count_E.astype(np.float64)
        return made[::-1]

    def chance(self, word: int, history: Sequence[int]) -> float:
        """p(word | the words before it); all words, `EDGE` and `STRANGE` together have 1."""
        total = 1 / self.size
        for length, (shares, left) in enumerate(self._tables, start=1):
            behind = history[len(history) - length + 1 :] if length > 1 else ()
            before = sum(each * self.size**k for k, each in enumerate(reversed(tuple(behind))))
            if before not in left:
                break
            total = shares.get(before * self.size + word, 0.0) + left[before] * total
        return total if self.pairs is None else (1 - OTHERS) * total + OTHERS * self.pairs.chance(word, history)

    # -- letter by letter

    @cached_property
    def _tree(self) -> tuple[dict[int, int], list[float], list[int]]:
        """(node and letter -> node, the best word below each node, the word that ends there or -1)."""
        children, best, ends, width = dict[int, int](), [-math.inf], [-1], len(SYMBOLS)
        for word, index in self.ids.items():
            score, node, path = math.log(self.chance(index, ())), 0, [0]
            for letter in word:
                key = node * width + SYMBOLS.index(letter)
                if key not in children:
                    children[key] = len(best)
                    best.append(-math.inf)
                    ends.append(-1)
                node = children[key]
                path.append(node)
            ends[node] = index
            for each in path:
                best[each] = max(best[each], score)
        return children, best, ends

    def tongue(self, weight: float, bonus: float, letter: float) -> Tongue:
        """As `ctc.prefix_beam` takes it: `weight` times the log-probability of the words, and `bonus` for each; each
        letter of a strange word costs `letter`."""
        children, best, ends = self._tree
        width, root = len(SYMBOLS), best[0]

        def finished(known: Known) -> tuple[float, tuple[int, ...]]:
            word = ends[known.node] if known.node >= 0 else -1
            cost = 0.0 if word >= 0 else known.letters * letter
            word = word if word >= 0 else STRANGE
            score = math.log(self.chance(word, known.history)) - cost
            return weight * (score - known.ahead) + bonus, (*known.history, word)[1 - ORDER :]

        def score(known: Known, symbol: int) -> tuple[float, Known]:
            if symbol == _BORDER:
                if not known.letters:
                    return -10.0, known
                added, history = finished(known)
                return added + weight * root, Known(0, root, 0, history)
            node = children.get(known.node * width + symbol, -1) if known.node >= 0 else -1
            count = known.letters + 1
            ahead = best[node] if node >= 0 else best[0] - 3.0 - count * letter
            return weight * (ahead - known.ahead), Known(node, ahead, count, known.history)

        def end(known: Known) -> float:
            added, history = finished(known) if known.letters else (-weight * known.ahead, known.history)
            return added + weight * math.log(self.chance(EDGE, history))

        return Tongue(score=score, begin=Known(0, 0.0, 0, (EDGE,) * (ORDER - 1)), end=end)


def perplexity(model: WordNGram, texts: Iterable[str]) -> tuple[float, float]:
    """(e to the mean nats a word, ends of sentences too; share of words that are strange)."""
    nats = count = strange = 0.0
    for text in texts:
        row = [model.ids.get(word, STRANGE) for word in spelled(text).split()]
        padded = [EDGE] * (ORDER - 1) + row + [EDGE]
        strange += row.count(STRANGE)
        count += len(row) + 1
        for at in range(ORDER - 1, len(padded)):
            nats -= math.log(model.chance(padded[at], padded[at - ORDER + 1 : at]))
    return math.exp(nats / max(count, 1)), strange / max(count, 1)
