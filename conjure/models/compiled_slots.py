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
        reach, nothing = network.reach, network.config.vocab
        self._known_PN = torch.full((count, reach + capacity if reach else 0), nothing)
        """The ids of each place behind `reach` that stand for nothing, where the embedding looks back."""

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
            more_1TD = self._looked_back(ids_1T, length_1, place_1)
            logits = self.network.read(ids_1T, self._cache, length_1, place_1, wanted=last, more_BTD=more_1TD)
            self._lengths_P[place] += len(piece)
        return logits[0, -1]

    def step(self, places: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits `[B, V]` after one more token for each of these texts."""
        places_B = torch.tensor(list(places))
        lengths_B = self._lengths_P[places_B]
        self._fits(int(lengths_B.max()) + 1)
        ids_B1 = torch.tensor(list(tokens))[:, None]
        check(ids_B1, self._cache, self.network.config)
        more_B1D = self._looked_back(ids_B1, lengths_B, places_B)
        logits_B1V = self.network.read(ids_B1, self._cache, lengths_B, places_B, more_BTD=more_B1D)
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
        self._known_PN[target] = self._known_PN[source]
        self._lengths_P[target] = length

    def _looked_back(self, ids_BT: Tensor, lengths_B: Tensor, places_B: Tensor) -> Tensor | None:
        """What earlier ids add to these. One token of each text is always a product of `count` rows: with fewer, sums
        would be ordered otherwise, and a text would depend on how many are beside it."""
        (B, T), reach = ids_BT.shape, self.network.reach
        if not reach:
            return None
        columns_BN = lengths_B[:, None] + torch.arange(reach + T)
        self._known_PN[places_B[:, None], columns_BN[:, reach:]] = ids_BT
        known_BN = self._known_PN[places_B[:, None], columns_BN]
        if T == 1:
            known_BN = torch.cat([known_BN, known_BN[:1].expand(self.count - B, -1)])
        more_BTD = self.network.looked_back(known_BN)
        return None if more_BTD is None else more_BTD[:B]

    def _fits(self, length: int) -> None:
        most = min(self.capacity, self.network.config.max_length or self.capacity)
        if length > most:
            raise ConjureError(f"a place holds {most} tokens, {length} were asked for", hint="ask for fewer tokens")
