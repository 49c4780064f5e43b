"""Texts of many clients by one model at a time of each: requests, and what comes back of them, blind to any API.

Everything here runs in the worker's thread but for the dataclasses.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive
from conjure.decoding.engine import Engine, Separate
from conjure.decoding.grammar import Grammars
from conjure.decoding.rows import Constraint, Generation, Row
from conjure.models.compiled import Compiled
from conjure.models.compiled_slots import CompiledSlots
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.language import LanguageModel

PLACES = 32
LONGEST = 4096
"""Tokens of prompt and answer together, where a model sets no bound or a larger one."""


@dataclass(frozen=True, kw_only=True)
class TextWish:
    """What is to be continued: `messages` through the chat template, `prompt` as text, or `ids`; `settings` are those
    of `Decoding`, over what the model's own files say; `schema` is a JSON schema that the answer keeps to."""

    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    prompt: str = ""
    ids: Sequence[int] = ()
    count: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    grammar: str = ""


@dataclass(frozen=True)
class Began:
    """The prompt is known: so many tokens."""

    tokens: int


@dataclass(frozen=True)
class Piece:
    """The next token of answer `index`, and the text that has become certain with it."""

    index: int
    token: int
    text: str
    logprob: float | None = None
    name: str = ""
    """What the token says, where its log-probability was asked for."""
    named: Sequence[tuple[str, float]] = ()
    """The likeliest tokens and their log-probabilities."""


@dataclass(frozen=True)
class Ended:
    """Answer `index` is whole."""

    index: int
    made: Generation


class Writer:
    """A language model with its engine."""

    def __init__(self, model: LanguageModel, places: int = PLACES) -> None:
        if "generate" not in model.can or isinstance(model.network, EncoderDecoder):
            raise ConjureError(f"a {model.family} of this kind does not write on from a text",
                               hint=f"it can {', '.join(sorted(model.can))}")  # fmt: skip
        self.model = model
        self.capacity = min(model.context or LONGEST, LONGEST)
        network = model.writer
        compiled = isinstance(network, Compiled)
        self.engine = Engine((CompiledSlots if compiled else Separate)(network, places, self.capacity))  # type: ignore[arg-type]
        self._grammars: Grammars | None = None

    def write(self, wish: TextWish) -> Generator[Any, None, None]:
        """`Began`, then `Piece` by `Piece` of all answers and `Ended` of each; None for steps that brought nothing."""
        ids = self._ids(wish)
        rows = self._rows(wish, ids)
        yield Began(len(ids))
        streams, places = {row.index: self.engine.stream(row) for row in rows}, [0] * len(rows)
        try:
            while streams:
                for row in [row for row in rows if row.index in streams]:
                    step = next(streams[row.index], False)
                    if step is False:
                        del streams[row.index]
                        yield Ended(row.index, row.generation())
                    elif step is None:
                        yield None
                    else:
                        yield self._piece(row, places[row.index], *step)  # type: ignore[misc]
                        places[row.index] += 1
        finally:
            for stream in streams.values():
                stream.close()  # type: ignore[attr-defined]

    def count(self, wish: TextWish) -> int:
        """How many tokens the prompt has."""
        return len(self._ids(wish))

    def _ids(self, wish: TextWish) -> list[int]:
        tokenizer = self.model.tokenizer
        if wish.messages:
            return list(tokenizer.chat(wish.messages, wish.tools or None))
        ids = list(wish.ids) or tokenizer.encode(wish.prompt, special=True)
        size = self.model.vocab
        if wrong := [i for i in ids if not 0 <= i < size]:
            raise ConjureError(f"token {wrong[0]}: expected ids from 0 to {size - 1}")
        return self.model.begun(ids)

    def _rows(self, wish: TextWish, ids: Sequence[int]) -> list[Row]:
        room = self.capacity - len(ids)
        if room < 1:
            raise ConjureError(f"the prompt has {len(ids)} tokens, this model reads {self.capacity} with the answer",
                               hint="shorten it")  # fmt: skip
        given = dict(wish.settings)
        given["tokens"] = min(given.get("tokens") or room, room)
        decoding = self.model.decoding(**given)
        if decoding.beams > 1 or decoding.best_of > 1 or decoding.contrastive_alpha > 0:
            raise ConjureError("searches (beams, best_of, contrastive) are not served", hint="leave them out")
        limits = self._limits(wish)
        return [
            Row(
                index, ids, seed=wish.seed if index == 0 else derive(wish.seed, "choice", index), decoding=decoding,
                end=self.model.end, tokenizer=self.model.tokenizer, watched=True,
                constraint=None if limits is None else limits.copy(),
            )
            for index in range(wish.count)
        ]  # fmt: skip

    def _limits(self, wish: TextWish) -> Constraint | None:
        if wish.schema is None and not wish.grammar:
            return None
        if self._grammars is None:
            self._grammars = Grammars(self.model.tokenizer, end=self.model.end, size=self.model.vocab or None)
        return self._grammars.json(wish.schema) if wish.schema is not None else self._grammars.lark(wish.grammar)

    def _piece(self, row: Row, place: int, token: int, text: str) -> Piece:
        said = self.model.tokenizer.token
        if place >= len(row.logprobs):
            return Piece(row.index, token, text)
        likely = row.alternatives[place] if place < len(row.alternatives) else ()
        return Piece(row.index, token, text, row.logprobs[place], said(token), [(said(i), v) for i, v in likely])
