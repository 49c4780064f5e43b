"""Text that continues prompts, as it is drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from conjure.decoding.generate import check, generate, written
from conjure.decoding.reader import Network
from conjure.decoding.rows import Constraint, Row
from conjure.decoding.settings import Decoding


class Tokenizer(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def stream(
    network: Network,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    context: int,
    start: Sequence[int] = (),
    end: Collection[int] = (),
    constraints: Sequence[Constraint | None] | None = None,
    draft: Network | None = None,
    **fields: Any,
) -> Iterator[tuple[int, str]]:
    """Continue each prompt with its own seed, one after the other; yields (index of the prompt, piece of new
    text).

    `fields` are those of `Decoding`; a search (beams, best_of) gives each text in one piece. The ids `start` (a
    beginning-of-text mark, say) go in front of each prompt. Pieces hold whole characters and are never empty. A prompt
    longer than `context` tokens is read from its last half context on, see `Reader`. Closing the iterator stops the
    work.
    """
    decoding = Decoding(**fields)
    ids = [[*start, *tokenizer.encode(prompt)] for prompt in prompts]
    check(network, ids, seeds, constraints, context=0)
    for index, (known, seed) in enumerate(zip(ids, seeds, strict=True)):
        constraint = constraints[index] if constraints is not None else None
        if decoding.beams > 1 or decoding.best_of > 1:
            texts = generate(
                network, tokenizer, [known], decoding, seeds=[seed], end=end, context=context,
                constraints=[constraint], draft=draft,
            )  # fmt: skip
            yield from ((index, found.text) for found in texts if found.text)
            continue
        row = Row(
            index, known, seed=seed, decoding=decoding, end=end,
            tokenizer=tokenizer, constraint=constraint, watched=True,
        )  # fmt: skip
        for _, _, piece in written(network, [row], context=context, draft=draft):
            if piece:
                yield index, piece
