"""Reading rows of tokens through a network and its cache, with room that ends and rows that drop out.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from conjure.nn.cache import Cache

if TYPE_CHECKING:
    from conjure.decoding.prompt_cache import PromptCache


class Network(Protocol):
    """What is asked of a network that can be decoded."""

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` slots, `padding[b]` of them empty on the left."""
        ...

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        """Logits float32 after these next ids of each row: [B, T, V], or [B, 1, V] after the last of them."""
        ...


class Reader:
    """A batch of texts that grow by a token at a time.

    The network reads at most `context` tokens of a text (0: without end). When they are full, and when the prompt is
    longer, it goes on from the last context // 2, read anew: so it always sees half of its context or more, and each
    token is read twice at most while a text is alone.
    """

    def __init__(
        self,
        network: Network,
        prompts: Sequence[Sequence[int]],
        *,
        tokens: int,
        context: int,
        prompt_cache: PromptCache | None = None,
    ) -> None:
        """Room for `tokens` more than the prompts. A prompt that is alone is looked for in `prompt_cache`."""
        self.network, self.context, self.prompt_cache = network, context, prompt_cache
        self.known = [list(ids) for ids in prompts]
        self.begins = [0] * len(self.known)
        """Where in its text each row's cache begins."""
        longest = max(map(len, self.known))
        self.capacity = min(context, longest + tokens) if context else longest + tokens
        self.cache: Cache | None = None

    def first(self) -> Tensor:
        """Logits [B, V] after the prompts."""
        return self._read_anew()

    def next(self, tokens: Sequence[int]) -> Tensor:
        """Logits [B, V] after one more token for each row."""
        for ids, token in zip(self.known, tokens):
            ids.append(token)
        if self.room < 1:
            return self._read_anew()
        return self._read([[token] for token in tokens])[:, -1]

    def several(self, tokens: Sequence[int]) -> Tensor:
        """Logits [T, V] after each of these tokens of the one row there is; they must fit into `room`."""
        self.known[0] += tokens
        return self._read([list(tokens)], last_only=False)[0]

    def forget(self, tokens: int) -> None:
        """Take the last tokens of the one row back."""
        if tokens:
            del self.known[0][-tokens:]
            assert self.cache is not None
            self.cache.truncate(self.cache.length - tokens)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order (a row may come twice)."""
        self.known = [list(self.known[b]) for b in rows]
        self.begins = [self.begins[b] for b in rows]
        if self.cache is not None and list(rows) != list(range(self.cache.padding_B.shape[0])):
            with torch.inference_mode():
                self.cache.keep(rows)

    @property
    def room(self) -> int:
        """Tokens that can be read before the cache is full."""
        return 0 if self.cache is None else self.capacity - self.cache.length

    def make(self, windows: Sequence[Sequence[int]]) -> Cache:
        """A new cache for these rows, padded on the left to the longest."""
        longest = max(map(len, windows))
        padding = [longest - len(ids) for ids in windows]
        return self.network.cache(len(windows), self.capacity, *([padding] if any(padding) else []))

    def _read_anew(self) -> Tensor:
        for b, ids in enumerate(self.known):
            if self.context and len(ids) - self.begins[b] > self.context:
                self.begins[b] = len(ids) - max(1, self.context // 2)
        windows = [tuple(ids[begin:]) for ids, begin in zip(self.known, self.begins)]
        # Equal texts are read once, but for those that go on from sources of their own (`encoder_decoder.Reading`).
        distinct = windows if getattr(self.network, "sources", 1) > 1 else list(dict.fromkeys(windows))
        unread: Sequence[Sequence[int]] = distinct
        fresh, self.cache = self.cache is None, None
        with torch.inference_mode():
            if fresh and self.prompt_cache is not None and len(distinct) == 1:
                self.cache = self.prompt_cache.begun(self, distinct[0])
                unread = [distinct[0][self.cache.length :]]
            else:
                self.cache = self.make(distinct)
            logits_BV = self._read(unread)[:, -1]
            if len(distinct) < len(windows):
                source = [distinct.index(window) for window in windows]
                self.cache.keep(source)
                logits_BV = logits_BV[source]
        return logits_BV

    def _read(self, rows: Sequence[Sequence[int]], last_only: bool = True) -> Tensor:
        assert self.cache is not None
        longest = max(map(len, rows))
        padded = [[row[0]] * (longest - len(row)) + list(row) for row in rows]  # any valid id will do for padding
        with torch.inference_mode():
            ids_BT = torch.tensor(padded, device=self.cache.padding_B.device)
            return self.network(ids_BT, cache=self.cache, last_only=last_only)
