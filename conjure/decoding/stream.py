"""Text that continues prompts, as it is drawn.

Legend: B = 1 row, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import generator
from conjure.decoding.detokenize import Detokenizer
from conjure.decoding.filters import filtered
from conjure.decoding.sample import sample
from conjure.decoding.stops import StopStrings
from conjure.nn.cache import Cache


class Network(Protocol):
    """What is asked of a network that can be decoded."""

    def cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` tokens."""
        ...

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        """Logits [B, 1, V] after the last of these next ids."""
        ...


class Tokenizer(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


def stream(
    network: Network,
    tokenizer: Tokenizer,
    prompts: list[str],
    *,
    seeds: list[int],
    tokens: int,
    context: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[str] = (),
    start: Sequence[int] = (),
    end: Collection[int] = (),
) -> Iterator[tuple[int, str]]:
    """Continue each prompt with its own seed, one after the other; yields (index of the prompt, piece of new
    text).

    A text ends after `tokens` tokens, before the first `stop` string, or at an id in `end`. The ids `start`
    (a beginning-of-text mark, say) go in front of each prompt. Pieces hold whole characters and are never
    empty. At most `context` tokens, which the network must be able to read, are read at a time, see
    `continued`. Closing the iterator stops the work.
    """
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        ids = [*start, *tokenizer.encode(prompt)]
        own = [generator(seed)]

        def choose(logits_BV: Tensor, own: list[torch.Generator] = own) -> Tensor:
            chosen_BV = filtered(logits_BV, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
            return sample(chosen_BV, own)

        text, stops = Detokenizer(tokenizer, after=ids), StopStrings(stop)
        for token in continued(network, ids, tokens=tokens, context=context, choose=choose):
            if token in end:
                break
            if piece := stops.push(text.push(token)):
                yield index, piece
            if stops.stopped:
                break
        if rest := stops.push(text.finish()) + stops.finish():
            yield index, rest


def continued(
    network: Network,
    ids: Sequence[int],
    *,
    tokens: int,
    context: int,
    choose: Callable[[Tensor], Tensor],
) -> Iterator[int]:
    """`tokens` ids that follow `ids`, each picked by `choose(logits_BV) -> ids_B`.

    The network reads at most `context` ids. When they are full, and when the prompt is longer, it goes on
    from the last context // 2 ids, read anew: so it always sees half of its context or more, and each id is
    read twice at most.
    """
    if not ids:
        raise ConjureError(
            "there is nothing to continue: no token comes before the first", hint="write a prompt"
        )
    known = list(ids)
    unread, cache = known, network.cache(1, min(context, len(ids) + tokens))
    for _ in range(tokens):
        if cache.length + len(unread) > cache.capacity:
            cache = network.cache(1, cache.capacity)
            unread = known[-max(1, cache.capacity // 2) :]
        with torch.inference_mode():
            ids_BT = torch.tensor([unread], device=cache.padding_B.device)
            logits_BV = network(ids_BT, cache=cache, last_only=True)[:, -1]
            token = int(choose(logits_BV))
        known.append(token)
        unread = [token]
        yield token
