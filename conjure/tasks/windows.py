"""Long texts for encoders: windows over a text's ids, each inside what the model wants around a text.

Legend: B windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError
from conjure.models.headed import Headed
from conjure.models.language import LanguageModel, padded

AT_ONCE = 16
"""Windows in one batch."""
USUAL = 512
"""Tokens of a window where the model states no limit."""


@dataclass(frozen=True)
class Framed:
    """`before + ids + after` is what the network reads; `ids` may be cut to a window."""

    before: list[int]
    ids: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int]]
    """Which text each part is of: those before, that of `ids`, those after."""

    def window(self, start: int, end: int) -> tuple[list[int], list[int]]:
        """(ids, types) of a window."""
        before, own, after = self.types
        return [*self.before, *self.ids[start:end], *self.after], [*before, *[own] * (end - start), *after]

    def room(self, context: int) -> int:
        """Tokens of the text that fit beside the others."""
        room = (context or USUAL) - len(self.before) - len(self.after)
        if room < 1:
            raise ConjureError(
                f"this model reads at most {context or USUAL} tokens, and what stands beside the text has "
                f"{len(self.before) + len(self.after)}", hint="shorten the question or the labels",
            )  # fmt: skip
        return room


def alone(tokenizer: Tokenizer, text: str) -> Framed:
    """A text with what the model wants around it."""
    ids = tokenizer.encode(text)
    return _framed(tokenizer.encode(text, special=True), None, ids, last=False)


def beside(tokenizer: Tokenizer, text: str, other: str, *, first: bool) -> Framed:
    """A text that is windowed, as the first or the second of a pair with `other`."""
    full, types = tokenizer.encode_pair(*((text, other) if first else (other, text)))
    return _framed(full, types, tokenizer.encode(text), last=not first)


def _framed(full: list[int], types: list[int] | None, ids: list[int], *, last: bool) -> Framed:
    places = range(len(full) - len(ids) + 1)
    for at in reversed(places) if last else places:
        if full[at : at + len(ids)] == ids:
            kinds = types or [0] * len(full)
            behind = at + len(ids)
            own = kinds[at] if ids else 0
            return Framed(full[:at], ids, full[behind:], (kinds[:at], own, kinds[behind:]))
    raise ConjureError("the tokenizer cuts a text differently where others stand beside it")


def spread(count: int, room: int, overlap: int = 0) -> list[tuple[int, int]]:
    """(start, end) of windows of at most `room` that cover `count` tokens, neighbours sharing `overlap` of them."""
    if count <= room:
        return [(0, count)]
    step = max(1, room - overlap)
    return [(start, min(start + room, count)) for start in range(0, count - overlap, step)]


def read(model: LanguageModel, windows: Sequence[tuple[list[int], list[int]]]) -> Iterator[Tensor]:
    """The logits of each window, `[T, L]` or `[L]` as the head has them, float32."""
    network = model.network
    kinds = isinstance(network, Headed) and network.config.stack.types > 1
    for start in range(0, len(windows), AT_ONCE):
        some = windows[start : start + AT_ONCE]
        ids_BT, mask_BT = padded([ids for ids, _ in some], model.pad)
        types_BT = padded([types for _, types in some], 0)[0] if kinds else None
        logits = model.logits(ids_BT, attention_mask=mask_BT, token_type_ids=types_BT)
        if bool(logits.isnan().any()):
            raise ConjureError("the network's logits are no numbers", hint="its weights may be broken: try fp32")
        for (ids, _), own in zip(some, logits, strict=True):
            yield own[: len(ids)] if own.ndim == 2 else own
