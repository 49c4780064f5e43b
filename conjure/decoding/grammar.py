"""Texts that keep to a JSON schema, a regular expression, a grammar or a list, through the `llguidance` library.

    grammars = Grammars(tokenizer, end=[0])
    generate(..., constraints=[grammars.json({"type": "integer"})])

Each text needs its own constraint. One step costs tens of microseconds, whatever the vocabulary's size.

Legend: V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from conjure.core.errors import ConjureError

if TYPE_CHECKING:
    from llguidance import LLMatcher

SPACE = r"\n? {0,8}"


class HasFile(Protocol):
    """What is asked of a tokenizer."""

    def to_bytes(self) -> bytes:
        """The content of its `tokenizer.json`."""
        ...


class Grammars:
    """Makes constraints for one tokenizer; the work that depends on the vocabulary alone is done once, here."""

    def __init__(self, tokenizer: HasFile, *, end: Collection[int] = (), size: int | None = None) -> None:
        """`end` are the ids that end a text; `size` is the number of logits where the network has more than the
        tokenizer has tokens."""
        try:
            import llguidance
        except ImportError:
            raise ConjureError("grammars need the library llguidance", hint="pip install llguidance") from None
        self.library = llguidance.LLMatcher
        try:
            self.tokens = llguidance.LLTokenizer(
                tokenizer.to_bytes().decode(), n_vocab=size, eos_token=sorted(end) or None
            )
        except ValueError as error:
            raise ConjureError(f"llguidance cannot use this tokenizer: {error}") from None

    def json(self, schema: Mapping[str, Any] | str) -> Grammar:
        """JSON that is valid under this JSON schema; between its parts a line end and a few spaces at most, since a
        network that may write any number of spaces sometimes does."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        try:
            return self._made(
                self.library.grammar_from_json_schema(text, overrides={"whitespace_pattern": SPACE}), "JSON schema"
            )
        except ValueError as error:
            raise ConjureError(f"JSON schema: no valid JSON: {error}") from None

    def regex(self, pattern: str) -> Grammar:
        """Text that as a whole matches this regular expression (Rust's syntax, without look-around)."""
        return self._made(self.library.grammar_from_regex(pattern), "regular expression")

    def lark(self, grammar: str) -> Grammar:
        """Text that this grammar derives from `start` (Lark's syntax, as llguidance reads it)."""
        return self._made(self.library.grammar_from_lark(grammar), "grammar")

    def choice(self, options: Sequence[str]) -> Grammar:
        """One of these texts."""
        if not options or not all(options):
            raise ConjureError("choice: expected texts that are not empty", hint="write what may be chosen")
        literals = " | ".join(json.dumps(option, ensure_ascii=False) for option in options)
        return self._made(self.library.grammar_from_lark(f"start: {literals}"), "choice")

    def _made(self, grammar: str, what: str) -> Grammar:
        matcher = self.library(self.tokens, grammar, log_level=0)
        if matcher.is_error():
            raise ConjureError(f"{what}: {matcher.get_error().strip()}")
        return Grammar(matcher, self.tokens.vocab_size)


class Grammar:
    """A `Constraint` of `rows`: the state of one text in a grammar."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self.matcher, self.size = matcher, size

    @property
    def finished(self) -> bool:
        return self.matcher.is_stopped()

    def mask(self) -> Tensor:
        """bool [V]; an end mark is allowed where the text may end."""
        bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        self._check("the grammar allows no further token", "it may want what no token can write")
        return torch.from_numpy(np.unpackbits(bits, count=self.size, bitorder="little").view(np.bool_))

    def accept(self, token: int) -> None:
        if not self.finished:
            self.matcher.consume_token(token)
        self._check("the text has left the grammar", "forced ids must keep to it too")

    def forced(self) -> list[int]:
        return self.matcher.compute_ff_tokens()

    def copy(self) -> Grammar:
        return Grammar(self.matcher.deep_copy(), self.size)

    def _check(self, what: str, hint: str) -> None:
        if self.matcher.is_error():
            raise ConjureError(f"{what}: {self.matcher.get_error().strip().splitlines()[0]}", hint=hint)
