"""Networks whose probabilities are known, a tokenizer of letters, and a real network of toy size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conjure.core.seeds import generator
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.position import Rope

STATES = 101


class Letters:
    """Token 1 is "a", 2 is "b", ...; 0 is the end of the text and has no letter."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 96 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(96 + token) for token in ids if token)


class Remembering:
    """A network that computes its logits from all ids of a row, which it keeps in its cache as keys."""

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        return Cache(layers=1, batch=batch, kv_heads=1, head_dim=1, capacity=capacity, padding=padding)

    def read(self, ids_BT: Tensor, cache: Cache) -> list[list[list[int]]]:
        """For each row and each of its next ids, all ids up to it."""
        T, known = ids_BT.shape[1], cache.length
        k_B1T1 = ids_BT[:, None, :, None].float()
        rows = cache.append(0, k_B1T1, k_B1T1)[0][:, 0, :, 0].int().tolist()
        cache.advance(T)
        skip = cache.padding_B.tolist()
        return [[row[skip[b] : known + t + 1] for t in range(T)] for b, row in enumerate(rows)]


class Table(Remembering):
    """Logits are a line of a random table, chosen by the whole past."""

    def __init__(self, vocab: int = 6, *, seed: int = 0, sharpness: float = 1.5) -> None:
        self.table = torch.randn(STATES, vocab, generator=generator(seed)) * sharpness
        self.seen = torch.randn(STATES, 5, generator=generator(seed + 1))
        self.given: list[tuple[int, ...]] = []
        """Shapes of what was read, call by call."""

    def state(self, ids: Sequence[int]) -> int:
        return sum((token + 1) * (place + 1) for place, token in enumerate(ids)) % STATES

    def logits(self, ids: Sequence[int]) -> Tensor:
        """[V] after these ids."""
        return self.table[self.state(ids)]

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        self.given.append(tuple(ids_BT.shape))
        pasts = self.read(ids_BT, cache)
        return torch.stack(
            [torch.stack([self.logits(past) for past in row[-1 if last_only else 0 :]]) for row in pasts]
        )

    def hidden_of(self, ids_BT: Tensor, *, cache: Cache) -> tuple[Tensor, Tensor]:
        pasts = self.read(ids_BT, cache)
        hidden_BTD = torch.stack([torch.stack([self.seen[self.state(past)] for past in row]) for row in pasts])
        return hidden_BTD, torch.stack([self.logits(row[-1]) for row in pasts])


class Whole(Remembering):
    """A function from ids [1, T] to logits [1, T, V], called anew for every token."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        self.logits = logits

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        pasts = self.read(ids_BT, cache)
        whole = [self.logits(torch.tensor([row[-1]]))[0, -len(row) :] for row in pasts]
        return torch.stack([each[-1:] if last_only else each for each in whole])


def toy(vocab: int = 257, *, max_length: int = 0, seed: int = 7) -> Transformer:
    """Random weights, wide enough apart that the best token is clear."""
    places = {"positions": "learned", "max_length": max_length} if max_length else {"rope": Rope(dim=8)}
    network = Transformer(
        TransformerConfig(vocab=vocab, dim=32, layers=2, heads=4, kv_heads=2, qk_norm=True, **places)  # pyright: ignore[reportArgumentType]
    )
    draw = generator(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)
    return network.eval()
