"""A transformer over the codes of a neural codec: a step reads one code of each book and says the next of each.

MusicGen's decoder (Copet et al. 2023, arXiv 2306.05284) is one, with attention across to a text. For use; it is not
trained here.

Legend: B rows, Q books, S steps, D width, V codes, M tokens of a text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.linear import Linear, embedding


@dataclass(frozen=True, kw_only=True)
class CodeWriterConfig:
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(vocab=0))
    books: int = 4
    codes: int = 1024
    """Of each book; one more input stands for none."""
    sinusoid: bool = False
    """Positions are added as [cos, sin]."""

    def __post_init__(self) -> None:
        if self.transformer.vocab or not self.transformer.causal:
            raise ConjureError("code writer: expected a causal stack without a vocabulary (vocab: 0)")
        if self.books < 1 or self.codes < 1:
            raise ConjureError(f"code writer: expected books and codes, got {self.books} and {self.codes}")


class CodeWriter(nn.Module):
    def __init__(self, config: CodeWriterConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embeds = nn.ModuleList(embedding(c.codes + 1, c.transformer.dim) for _ in range(c.books))
        self.stack = Transformer(c.transformer)
        self.heads = nn.ModuleList(Linear(c.transformer.dim, c.codes, bias=False) for _ in range(c.books))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        if any(parameter.is_meta for parameter in self.parameters()):
            return  # a file will fill it
        for parameter in (*self.embeds.parameters(), *self.heads.parameters()):
            parameter.normal_(0, 0.02)

    @property
    def pad(self) -> int:
        """The input that stands for no code."""
        return self.config.codes

    def hidden(self, ids_BQS: Tensor, *, cache: Cache | None = None, memory: Tensor | None = None,
               memory_mask: Tensor | None = None) -> Tensor:  # fmt: skip
        """`[B, S, D]` after each step, which sees itself and those before."""
        x_BSD = torch.stack([embed(ids_BS) for embed, ids_BS in zip(self.embeds, ids_BQS.unbind(1))]).sum(0)
        x_BSD = x_BSD.to(self.stack.compute_dtype)
        if self.config.sinusoid:
            first = 0 if cache is None else cache.length
            x_BSD = x_BSD + cosines(first, ids_BQS.shape[2], x_BSD.shape[-1]).to(x_BSD)
        return self.stack.hidden(embedded=x_BSD, cache=cache, memory=memory, memory_mask=memory_mask)

    def logits(self, x_BSD: Tensor) -> Tensor:
        """float32 `[B, Q, S, V]`."""
        return torch.stack([head(x_BSD) for head in self.heads], 1).float()


def cosines(first: int, steps: int, dim: int) -> Tensor:
    """float32 `[S, D]`: [cos(p f), sin(p f)], f_i = 10000^(-i / (D/2 - 1)), of steps `first` and after."""
    i = torch.arange(dim // 2, dtype=torch.float32)
    f = torch.exp(-i * (torch.log(torch.tensor(10_000.0)) / (dim // 2 - 1)))
    angles = torch.arange(first, first + steps, dtype=torch.float32)[:, None] * f
    return torch.cat([angles.cos(), angles.sin()], -1)
