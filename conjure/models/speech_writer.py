"""A transformer that writes the codes of a speech codec, small because it knows the codec's own vectors.

What a step reads of a book is that book's vector, and what it says of a book is how near each vector is to a point: the
tables of input and output are one (Press and Wolf 2017, arXiv 1608.05859), narrow (Lan et al. 2020, arXiv 1909.11942,
section 3.1), and start as the codec's books. Book q lags q steps (`decoding/delay_pattern.py`).

Legend: B rows, Q books, S steps, D width, C width of a vector and one for its length, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.cross_entropy import linear_cross_entropy
from conjure.nn.linear import Linear
from conjure.nn.modulation import leave_to_adam


@dataclass(frozen=True, kw_only=True)
class SpeechWriterShape:
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(vocab=0))
    books: int = 6
    codes: int = 1024
    """Of each book; one more input stands for none."""
    vector: int = 32
    """Width of the codec's vectors."""

    def __post_init__(self) -> None:
        if self.transformer.vocab or not self.transformer.causal:
            raise ConjureError("speech writer: expected a causal stack without a vocabulary (vocab: 0)")
        if min(self.books, self.codes, self.vector) < 1:
            raise ConjureError(f"speech writer: expected books, codes and vectors, got {self}")


class SpeechWriter(nn.Module):
    def __init__(self, shape: SpeechWriterShape) -> None:
        super().__init__()
        self.shape = s = shape
        dim, wide = s.transformer.dim, s.vector + 1
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(s.codes, wide)) for _ in range(s.books))
        self.none = nn.Parameter(torch.zeros(s.books, wide))
        """In a vector's place where there is no code."""
        self.read = nn.ModuleList(Linear(wide, dim, bias=False) for _ in range(s.books))
        self.say = nn.ModuleList(Linear(dim, wide, bias=False) for _ in range(s.books))
        self.often = nn.Parameter(torch.zeros(s.books, s.codes))
        """Logits of codes whatever came before."""
        self.stack = Transformer(s.transformer)
        for parameter in (*self.tables, *self.read.parameters(), *self.say.parameters(), self.often, self.none):
            leave_to_adam(parameter)

    @torch.no_grad()
    def start_from(self, books: Sequence[Tensor]) -> None:
        """Tables out of a codec's books `[V, C - 1]` each, and the squares of their lengths, by which a logit can fall
        off with the distance from a point; columns with mean 0 and variance 1."""
        for table, codes_VC in zip(self.tables, books, strict=True):
            both_VC = torch.cat([codes_VC, codes_VC.square().sum(1, keepdim=True)], 1)
            table.copy_((both_VC - both_VC.mean(0)) / both_VC.std(0).clamp_min(1e-6))
        for layers, factor in ((self.read, 0.5), (self.say, 0.1)):  # at first any code is about as likely as another
            for parameter in layers.parameters():
                parameter.mul_(factor)

    @property
    def pad(self) -> int:
        """The input that stands for no code."""
        return self.shape.codes

    def hidden(self, ids_BQS: Tensor, *, cache: Cache | None = None) -> Tensor:
        """`[B, S, D]` after each step, which sees itself and those before."""
        parts = []
        for book, (ids_BS, table, read) in enumerate(zip(ids_BQS.unbind(1), self.tables, self.read, strict=True)):
            known_BSC = torch.cat([table, self.none[book : book + 1]])[ids_BS]
            parts.append(read(known_BSC))
        return self.stack.hidden(embedded=torch.stack(parts).sum(0), cache=cache)

    def logits(self, x_BSD: Tensor) -> Tensor:
        """float32 `[B, Q, S, V]`."""
        points = [say(x_BSD) for say in self.say]
        parts = [point @ table.T + often for point, table, often in zip(points, self.tables, self.often, strict=True)]
        return torch.stack(parts, 1).float()

    def forward(self, ids_BQS: Tensor, targets_BQS: Tensor) -> Tensor:
        """The sum of -log p over all targets that are no `cross_entropy.IGNORED`, a float32 scalar."""
        x_ND = self.hidden(ids_BQS).flatten(0, 1)
        total, one_N1 = x_ND.new_zeros(()), x_ND.new_ones(len(x_ND), 1)
        for book, say in enumerate(self.say):
            point_NC = torch.cat([say(x_ND), one_N1], 1)
            table_VC = torch.cat([self.tables[book], self.often[book, :, None]], 1)
            total = total + linear_cross_entropy(point_NC, table_VC, targets_BQS[:, book].flatten())
        return total

    def cache(self, batch: int, capacity: int) -> Cache:
        return self.stack.cache(batch, capacity)

    def flops(self, batch: int, steps: int) -> float:
        """Of a forward pass, multiply-adds times two."""
        s, wide = self.shape, self.shape.vector + 1
        each = s.books * wide * (2 * s.transformer.dim + s.codes)
        return self.stack.flops(batch, steps) + 2.0 * batch * steps * each
