"""Places in one block of memory for texts of their own lengths, all of which a compiled decoder carries on in one pass.

Legend: B texts, T tokens, V vocabulary, P places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.compiled import ROWS, Compiled
from conjure.models.decoder import check


class CompiledSlots:
    """`count` places of up to `capacity` tokens. What a place has read stays until it is `cut`."""

    def __init__(self, network: Compiled, count: int, capacity: int) -> None:
        self.network, self.count, self.capacity = network, count, capacity
        self._cache = network.cache(count, capacity)
        self._lengths_P = torch.zeros(count, dtype=torch.long)

    @staticmethod
    def supports(network: object) -> bool:
        """Whether the network can be used so: compiled, and with an embedding that looks at one token at a time."""
        return isinstance(network, Compiled) and network.looks_at_one

    @property
    def bytes(self) -> int:
        """What the memory takes."""
        return sum(each.numel() * each.element_size() for each in (self._cache.keys, self._cache.values))

    def read(self, place: int, ids: Sequence[int]) -> Tensor:
        """Logits `[V]` after these next tokens of one text."""
        place_1 = torch.tensor([place])
        logits = torch.empty(0)
        for begin in range(0, len(ids), ROWS):
            piece = ids[begin : begin + ROWS]
            length_1 = self._lengths_P[place_1]
            self._fits(int(length_1) + len(piece))
            ids_1T = torch.tensor([list(piece)])
            check(ids_1T, self._cache, self.network.config)
            last = begin + ROWS >= len(ids)
            logits = self.network.read(ids_1T, self._cache, length_1, place_1, wanted=last)
            self._lengths_P[place] += len(piece)
        return logits[0, -1]

    def step(self, places: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits `[B, V]` after one more token for each of these texts."""
        places_B = torch.tensor(list(places))
        lengths_B = self._lengths_P[places_B]
        self._fits(int(lengths_B.max()) + 1)
        ids_B1 = torch.tensor(list(tokens))[:, None]
        check(ids_B1, self._cache, self.network.config)
        logits_B1V = self.network.read(ids_B1, self._cache, lengths_B, places_B)
        self._lengths_P[places_B] += 1
        return logits_B1V[:, 0]

    def cut(self, place: int, length: int) -> None:
        """Forget all but the first `length` tokens of a text."""
        assert length <= int(self._lengths_P[place]), "a text cannot be cut to more than was read"
        self._lengths_P[place] = length

    def copy(self, source: int, target: int, length: int) -> None:
        """What `source` read first, `length` tokens of it, becomes what `target` has read."""
        tiles = -(-length // self._cache.keys.shape[-1])
        self._cache.keys[:, target, :, :tiles] = self._cache.keys[:, source, :, :tiles]
        self._cache.values[:, target, :, :length] = self._cache.values[:, source, :, :length]
        self._lengths_P[target] = length

    def _fits(self, length: int) -> None:
        most = min(self.capacity, self.network.config.max_length or self.capacity)
        if length > most:
            raise ConjureError(f"a place holds {most} tokens, {length} were asked for", hint="ask for fewer tokens")
