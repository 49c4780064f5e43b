"""Hashed n-gram embeddings: a second, much larger vocabulary at the input that costs next to no arithmetic.

The last two (three, ...) tokens are hashed to a row of a table; the rows found are projected and added to the token's
embedding. Huang et al. 2025, "Over-Tokenized Transformer", arXiv 2501.16975.

Legend: B rows, T tokens, N earlier tokens, E table width, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.cache import Cache
from conjure.nn.linear import Linear, embedding

_ODD = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
"""Multipliers of the hash, odd and below 2^32, one for each token of an n-gram."""


@dataclass(frozen=True, kw_only=True)
class NGram:
    rows: int
    """Of the table of each order; n-grams that fall on one row share it."""
    dim: int
    """Width of a row."""
    orders: tuple[int, ...] = (2, 3)
    """Tokens per n-gram, the current one included: 2 to 4."""

    def __post_init__(self) -> None:
        if not self.orders or not set(self.orders) <= {2, 3, 4}:
            raise ConjureError(f"model.ngram.orders: expected some of 2, 3, 4, got {list(self.orders)}")


class NGramEmbedding(nn.Module):
    """forward(ids_BT) -> [B, T, D]. A token before the beginning of a document counts as token `vocab`."""

    def __init__(self, config: NGram, vocab: int, dim: int) -> None:
        super().__init__()
        self.config, self.vocab = config, vocab
        self.reach = max(config.orders) - 1
        self.tables = embedding(config.rows * len(config.orders), config.dim)
        self.project = Linear(config.dim * len(config.orders), dim, bias=False)

    def forward(self, ids_BT: Tensor, *, documents: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        return self._sum(self.earlier(ids_BT, documents, cache))

    def behind(self, known_BN: Tensor) -> Tensor:
        """The same `[B, N - reach, D]` for ids whose first `reach` are only looked back at; `vocab` for none."""
        T = known_BN.shape[1] - self.reach
        return self._sum([known_BN[:, self.reach - n : self.reach - n + T] for n in range(self.reach + 1)])

    def _sum(self, back: list[Tensor]) -> Tensor:
        return self.project(self.tables(self.rows(back)).flatten(2))

    def earlier(self, ids_BT: Tensor, documents: Tensor | None, cache: Cache | None) -> list[Tensor]:
        """The ids, the ids one token back, two tokens back, ..., each `[B, T]`."""
        B, T = ids_BT.shape
        known_BT = torch.cat([ids_BT.new_full((B, self.reach), self.vocab), ids_BT], dim=1)
        if cache is not None:
            if cache.padded:  # what fills the front of a row is no token
                known_BT[:, self.reach :].masked_fill_(cache.positions(T) < 0, self.vocab)
            if cache.ids_BN is not None and cache.ids_BN.shape[1]:
                recent_BN = cache.ids_BN[:, -self.reach :]
                known_BT[:, self.reach - recent_BN.shape[1] : self.reach] = recent_BN
            own_BT = known_BT[:, self.reach :]
            cache.ids_BN = own_BT if cache.ids_BN is None else torch.cat([cache.ids_BN, own_BT], dim=1)
        back = [known_BT[:, self.reach - n : self.reach - n + T] for n in range(self.reach + 1)]
        if documents is not None:
            for n in range(1, self.reach + 1):
                own_BT = F.pad(documents, (n, 0), value=-1)[:, :T] == documents
                back[n] = torch.where(own_BT, back[n], self.vocab)
        return back

    def rows(self, back: list[Tensor]) -> Tensor:
        """Row of the joint table for each order, int64 `[B, T, orders]`."""
        found = []
        for table, order in enumerate(self.config.orders):
            key_BT = back[0] * _ODD[0]
            for n in range(1, order):
                key_BT = (key_BT ^ (key_BT >> 15)) + (back[n] + 1) * _ODD[n]
                key_BT = key_BT & 0xFFFFFFFFFFF  # 44 bits, so that nothing below overflows int64
            key_BT = (key_BT ^ (key_BT >> 13)) * 0x45D9F
            key_BT = key_BT ^ (key_BT >> 21)
            found.append(key_BT % self.config.rows + table * self.config.rows)
        return torch.stack(found, dim=-1)
