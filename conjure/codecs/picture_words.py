"""Captions <-> token rows for the illustrated text encoder: words of a grammar, and names that stand for pictures.

A name may be several words ("fire engine"); the longest that fits wins, reading from the left. What is neither word nor
name is UNKNOWN, and `unknown()` says which words those were and what is near them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic

SPECIAL = ("<pad>", "<start>", "<unknown>", "<name>", "<names>")
PAD, START, UNKNOWN, NAME, NAMES = range(len(SPECIAL))


@dataclass(frozen=True)
class Name:
    """A phrase that stands for a page of the book."""

    phrase: str
    page: int
    plural: bool = False


class PictureWords:
    """`spell` brings a caption to the plain form that words and names are kept in."""

    def __init__(self, words: Iterable[str], names: Iterable[Name], spell: Callable[[str], str]) -> None:
        self.vocabulary = (*SPECIAL, *sorted(set(words)))  # rows of the word table
        self.spell = spell
        self._row = {word: row for row, word in enumerate(self.vocabulary)}
        self._name: dict[str, Name] = {}
        self._title: dict[int, str] = {}
        for name in names:  # the earliest of equal names wins
            if name.phrase not in self._row:
                self._name.setdefault(name.phrase, name)
                self._title.setdefault(name.page, name.phrase)
        self._longest = max((len(phrase.split()) for phrase in self._name), default=1)

    def _tokens(self, caption: str) -> Iterator[str | Name]:
        """Names where there are any, words as they are elsewhere."""
        words = self.spell(caption).split()
        while words:
            for length in range(min(self._longest, len(words)), 0, -1):
                name = self._name.get(" ".join(words[:length]))
                if name is not None:
                    yield name
                    break
            else:
                length = 1
                yield words[0]
            words = words[length:]

    def encode(self, captions: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, pages), both int64 [len(captions), length]; page -1 where a token names nothing.

        What a caption has beyond `length` tokens, the start included, is cut off.
        """
        rows = np.full((len(captions), length), PAD, np.int64)
        pages = np.full((len(captions), length), -1, np.int64)
        for b, caption in enumerate(captions):
            rows[b, 0] = START
            for t, token in zip(range(1, length), self._tokens(caption), strict=False):
                if isinstance(token, Name):
                    rows[b, t], pages[b, t] = NAMES if token.plural else NAME, token.page
                else:
                    rows[b, t] = self._row.get(token, UNKNOWN)
        return rows, pages

    def cut(self, caption: str, length: int) -> str:
        """What `encode` leaves out of a caption: all beyond `length` tokens."""
        left = list(self._tokens(caption))[length - 1 :]
        return " ".join(token.phrase if isinstance(token, Name) else token for token in left)

    def unknown(self, caption: str) -> dict[str, list[str]]:
        """Words that were not learnt -> the nearest known ones."""
        missing = [t for t in self._tokens(caption) if isinstance(t, str) and t not in self._row]
        known = [n.phrase for n in self._name.values() if not n.plural] + list(self.vocabulary[len(SPECIAL):])
        return {word: difflib.get_close_matches(word, known, n=3, cutoff=0.6) for word in missing}

    def unread(self, caption: str, length: int, advice: str) -> Iterator[str]:
        """What there is to say about words that were not learnt, with `advice`, and about an end that is cut off."""
        if unknown := self.unknown(caption):
            said = "; ".join(f"{word!r}" + (f" (nearest known: {', '.join(near)})" if near else "")
                             for word, near in unknown.items())  # fmt: skip
            yield f"not learnt: {said}. {advice}"
        if cut := self.cut(caption, length):
            yield f"the text is too long for this model, which does not read its end: {cut!r}"

    def read(self, rows: Sequence[int], pages: Sequence[int]) -> str:
        """Encoded tokens for people: words as they are, the first name of a page in brackets."""
        shown = [f"[{self._title[page]}]" if page >= 0 else self.vocabulary[row]
                 for row, page in zip(rows, pages, strict=True) if row != PAD]
        return " ".join(shown)

    def save(self, folder: Path) -> None:
        """folder/words.json, which holds everything but `spell`."""
        data = {"words": self.vocabulary[len(SPECIAL):],
                "names": [[n.phrase, n.page, int(n.plural)] for n in self._name.values()]}
        write_atomic(Path(folder) / "words.json", (json.dumps(data, separators=(",", ":")) + "\n").encode())

    @classmethod
    def load(cls, folder: Path, spell: Callable[[str], str], *, pages: int = 0) -> PictureWords:
        """What `save` wrote; `ConjureError` for anything else, or a name of a page at or beyond `pages`."""
        path = Path(folder) / "words.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            words = [_checked(word, str) for word in _checked(data["words"], list)]
            names = [Name(_checked(phrase, str), _checked(page, int), bool(many))
                     for phrase, page, many in _checked(data["names"], list)]
            beyond = [name.phrase for name in names if not 0 <= name.page < pages]
            if beyond:
                raise ValueError(f"the book has {pages} pages, none for {beyond[0]!r}")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConjureError(f"{path} is no vocabulary: {error!r}", hint="fetch or train the model again") from None
        return cls(words, names, spell)


T = TypeVar("T")


def _checked(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:  # True is no page
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
