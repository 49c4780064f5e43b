"""Is every word of a text in a sound, and once? Asked of a network that was trained by CTC, where the text is known.

The likelihood of the text, over all of its paths, is compared with that of the same text without a word, and with the
word twice. Where one of these explains the sound better, the word seems to be missing or said again. Nothing is
decoded, so a network that reads badly can still tell: it only has to choose between two texts that differ by a word.

Legend: T frames, V symbols, A texts, L symbols of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core.errors import ConjureError

Fault = Literal["missing", "twice"]
AT_ONCE = 64
"""Texts that are compared in one go."""


@dataclass(frozen=True)
class Presence:
    """Of a text with W words: how much likelier, in nats, the sound is without word w, and with it twice; `-inf` where
    the other text cannot be. `letter` is the log-probability of the text itself over its symbols."""

    missing: tuple[float, ...]
    twice: tuple[float, ...]
    letter: float

    def faults(self, missing: float = 0.0, twice: float = 0.0) -> list[tuple[int, Fault]]:
        """(word, what seems wrong with it) where the other text is likelier by more than so many nats. Where one word
        is wrong, texts that differ in its neighbours may be likelier too: of words in a row the likeliest counts."""
        found: list[tuple[int, Fault]] = []
        above = [max(a - missing, b - twice) for a, b in zip(self.missing, self.twice, strict=True)]
        around = (float("-inf"), *above, float("-inf"))
        for word, (each, a) in enumerate(zip(above, self.missing, strict=True)):
            if each > 0 and each > around[word] and each >= around[word + 2]:
                found.append((word, "missing" if a - missing == each else "twice"))
        return found

    def doubt(self, missing: float = 0.0, twice: float = 0.0) -> float:
        """By how much the worst word is above these margins: above 0 there are `faults`."""
        return max(max(self.missing) - missing, max(self.twice) - twice)


def presence(logits_TV: Tensor, words: Sequence[Sequence[int]], border: int, blank: int = 0) -> Presence | None:
    """Of words as ids, `border` between them; logits may be normalised or not.

    None where the text cannot be said in so few frames: then nothing is known. `ConjureError` for no words.
    """
    if not words or not all(words):
        raise ConjureError("expected words of at least one symbol each to look for")
    logp_TV = torch.log_softmax(logits_TV.detach().double(), -1)
    numbers = range(len(words))
    texts = [words, *([*words[:w], *words[w + 1 :]] for w in numbers),
             *([*words[: w + 1], *words[w:]] for w in numbers)]  # fmt: skip
    flat = [_joined(text, border) for text in texts]
    found = [each for start in range(0, len(flat), AT_ONCE) for each in _chances(logp_TV, flat[start : start + AT_ONCE],
                                                                                blank)]  # fmt: skip
    own = found[0]
    if own == float("-inf"):
        return None
    apart = [each - own for each in found[1:]]
    return Presence(tuple(apart[: len(words)]), tuple(apart[len(words) :]), own / len(flat[0]))


def _joined(words: Sequence[Sequence[int]], border: int) -> list[int]:
    found: list[int] = []
    for word in words:
        found += [border, *word] if found else word
    return found


def _chances(logp_TV: Tensor, texts: Sequence[list[int]], blank: int) -> list[float]:
    """The log-probability of each text over all of its paths."""
    lengths = [len(text) for text in texts]
    texts_AL = torch.full((len(texts), max(1, *lengths)), blank)
    for row, text in zip(texts_AL, texts, strict=True):
        row[: len(text)] = torch.tensor(text, dtype=torch.long)
    T = len(logp_TV)
    logp_TAV = logp_TV[:, None].expand(-1, len(texts), -1)
    nats_A = F.ctc_loss(logp_TAV, texts_AL, torch.full((len(texts),), T), torch.tensor(lengths), blank, "none")
    return (-nats_A).tolist()
