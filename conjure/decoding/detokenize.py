"""Tokens to text as they come, never half a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONGEST_PART = 3
"""A UTF-8 character has at most four bytes, so at most three of them can be waiting for the rest."""


class Decodes(Protocol):
    """What is asked of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of these ids; bytes that are no UTF-8 become U+FFFD."""
        ...


class Detokenizer:
    """`push(id)` returns the text that has become certain, `finish()` the rest; together they are
    `decode(ids)`.

    A byte-level token may end inside a character, which `decode` shows as U+FFFD at the end of the text: that
    end is held back until later tokens complete it. Each token is decoded together with the piece before it,
    since some tokenizers drop the space in front of the first word.
    """

    def __init__(self, tokenizer: Decodes, after: Sequence[int] = ()) -> None:
        """`after` is the prompt, whose text is known already."""
        self.tokenizer = tokenizer
        self.ids = list(after)
        """The last finished piece, then the tokens since."""
        self.finished = len(self.ids)
        self.sent = len(tokenizer.decode(self.ids))
        """Characters of decode(ids) that have been returned."""

    def push(self, token: int) -> str:
        """The next piece of text, often a word, "" while a character is incomplete."""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        waiting = len(text) - len(text.rstrip(BROKEN))
        if len(self.ids) - self.finished > LONGEST_PART:  # not one slow character: some bytes stay broken
            waiting = min(waiting, LONGEST_PART)
        piece = text[self.sent : len(text) - waiting]
        self.sent += len(piece)
        if piece and waiting == 0:
            self.ids = self.ids[self.finished :]
            self.finished = len(self.ids)
            self.sent = len(self.tokenizer.decode(self.ids))
        return piece

    def finish(self) -> str:
        """What was held back; a character that never became whole comes as U+FFFD."""
        rest = self.tokenizer.decode(self.ids)[self.sent :]
        self.sent += len(rest)
        return rest
