"""Texts that continue prompts: one door to every way of decoding.

Rows are read in one batch, padded on the left, and leave it when they end, so the work shrinks. A text depends on its
prompt, its seed and the settings, not on the texts beside it (up to the rounding of the network's arithmetic).

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import derive
from conjure.decoding.beam import beam_search
from conjure.decoding.contrastive import contrastive_search
from conjure.decoding.detokenize import Decodes
from conjure.decoding.prompt_cache import PromptCache
from conjure.decoding.reader import Network, Reader
from conjure.decoding.rows import Constraint, Generation, Row, choose
from conjure.decoding.settings import Decoding
from conjure.decoding.speculative import drafted, guessed

__all__ = ["Constraint", "Decoding", "Generation", "Network", "generate", "written"]


def generate(
    network: Network,
    tokenizer: Decodes,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    seeds: Sequence[int],
    end: Collection[int] = (),
    context: int = 0,
    constraints: Sequence[Constraint | None] | None = None,
    draft: Network | None = None,
    on_token: Callable[[int, int, str], None] | None = None,
    prompt_cache: PromptCache | None = None,
) -> list[Generation]:
    """What follows each prompt (ids), `decoding.best` answers for each, best first, prompt after prompt.

    A text ends at an id in `end`, before a string of `decoding.stop`, where its constraint is finished, or after
    `decoding.tokens`. `context` is the most tokens the network reads, 0 without end: a longer prompt is refused; a text
    that outgrows it goes on as `Reader` says. `draft` is a smaller network with the same tokens that guesses ahead;
    like `decoding.lookup` it changes the speed and not the distribution. `on_token(prompt's number, id, certain text)`
    is called as tokens come, unless a search (beams, best_of) must be over first.
    """
    check(network, prompts, seeds, constraints, context)
    limits = list(constraints) if constraints is not None else [None] * len(prompts)
    if decoding.beams > 1:
        return beam_search(network, tokenizer, prompts, decoding, end=end, context=context, constraints=limits)
    watched = on_token is not None and decoding.best_of == 1
    rows = [
        Row(
            index, prompt, seed=seed if take == 0 else derive(seed, "best_of", take), decoding=decoding, end=end,
            tokenizer=tokenizer, watched=watched, constraint=_another(limits[index], take),
        )
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        for take in range(decoding.best_of)
    ]  # fmt: skip
    for row, token, piece in written(network, rows, context=context, draft=draft, prompt_cache=prompt_cache):
        if watched and on_token is not None:
            on_token(row.index, token, piece)
    if decoding.best_of == 1:
        return [row.generation() for row in rows]
    kept = []
    for index in range(len(prompts)):
        takes = [row.generation() for row in rows if row.index == index]
        kept += sorted(takes, key=lambda take: -take.score)[: decoding.best]
    return kept


def written(
    network: Network,
    rows: Sequence[Row],
    *,
    context: int,
    draft: Network | None = None,
    prompt_cache: PromptCache | None = None,
) -> Iterator[tuple[Row, int, str]]:
    """(row, its next id, the text that has become certain) as they come, until all rows have ended."""
    decoding, end = rows[0].decoding, rows[0].end
    if decoding.contrastive_alpha > 0:
        for row in rows:
            yield from ((row, *step) for step in contrastive_search(network, row, context=context))
        return
    if draft is not None or decoding.lookup:  # rows would disagree about how many guesses were right
        for row in rows:
            reader = Reader(network, [row.known], tokens=decoding.tokens, context=context, prompt_cache=prompt_cache)
            if draft is not None and decoding.temperature > 0:
                steps = drafted(reader, row, draft)
            else:
                steps = guessed(reader, row, draft)
            yield from ((row, *step) for step in steps)
        return
    reader = Reader(
        network, [row.known for row in rows], tokens=decoding.tokens, context=context, prompt_cache=prompt_cache
    )
    live, logits_BV = list(rows), reader.first()
    while True:
        with torch.inference_mode():
            tokens = choose(logits_BV, live, decoding, end)
        for row, token in zip(live, tokens):
            yield row, token, row.push(token)
        if any(row.ended for row in live):
            stay = [b for b, row in enumerate(live) if not row.ended]
            if not stay:
                return
            reader.keep(stay)
            live, tokens = [live[b] for b in stay], [tokens[b] for b in stay]
        logits_BV = reader.next(tokens)


def check(
    network: Network,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    constraints: Sequence[Constraint | None] | None,
    context: int,
) -> None:
    """`ConjureError` for what cannot be continued."""
    if not prompts:
        raise ConjureError("expected at least one prompt, got none", hint="write a prompt")
    for what, given in (("seeds", seeds), ("constraints", constraints)):
        if given is not None and len(given) != len(prompts):
            raise ConjureError(f"expected as many {what} as prompts, got {len(given)} and {len(prompts)}")
    size = getattr(getattr(network, "config", None), "vocab", None)
    for index, ids in enumerate(prompts):
        which = f"prompt {index + 1}: " if len(prompts) > 1 else ""
        if not len(ids):
            raise ConjureError(
                f"{which}there is nothing to continue: no token comes before the first", hint="write a prompt"
            )
        if context and len(ids) > context:
            raise ConjureError(
                f"{which}the network reads at most {context} tokens, the prompt has {len(ids)}", hint="shorten it"
            )
        if min(ids) < 0 or (isinstance(size, int) and max(ids) >= size):
            wrong = next(i for i in ids if i < 0 or (isinstance(size, int) and i >= size))
            raise ConjureError(
                f"{which}token {wrong}: expected ids from 0 to {size - 1 if isinstance(size, int) else 'the last'}",
                hint="use the tokenizer that came with the model",
            )


def _another(constraint: Constraint | None, take: int) -> Constraint | None:
    return constraint.copy() if constraint is not None and take else constraint
