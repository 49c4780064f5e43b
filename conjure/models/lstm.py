"""A language model of LSTM layers, the baseline of the transformer: same door, same data, same loss.

Zaremba et al. 2014, "Recurrent Neural Network Regularization", arXiv 1409.2329: dropout between layers and not from
step to step; input and output share one matrix (Press and Wolf 2016, arXiv 1608.05859); the forget gate starts open
(Jozefowicz et al. 2015).

Legend: B rows, T tokens, D width, G = 4 D gates (input, forget, output, candidate), N tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.nn.cache import Cache
from conjure.nn.cross_entropy import linear_cross_entropy
from conjure.nn.linear import Linear

State = tuple[Tensor, Tensor]
"""What a layer carries from token to token: its output h_BD and its cell c_BD."""


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    kind: Literal["lstm"]
    """Tells a recipe's `model` section from a transformer's."""
    vocab: int
    dim: int
    """Width of embeddings and states."""
    layers: int = 2
    dropout: float = 0.0
    """Share of values that are dropped between layers while it trains."""

    def __post_init__(self) -> None:
        for name in ("vocab", "dim", "layers"):
            if getattr(self, name) < 1:
                raise ConjureError(f"model.{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConjureError(f"model.dropout: expected a fraction of 1, got {self.dropout}")

    @property
    def max_length(self) -> int:
        """0: it reads without end."""
        return 0


class Recall(Cache):
    """Instead of keys and values, what each layer carries on. It cannot be cut back, so after `truncate` the network
    reads the ids that are left anew."""

    def __init__(
        self, *, batch: int, capacity: int, padding: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(
            layers=0, batch=batch, kv_heads=1, head_dim=1, capacity=capacity, padding=padding, device=device
        )
        self.carried: list[State] = []

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        index = torch.tensor(list(rows), device=self.padding_B.device)
        self.carried = [(h.index_select(0, index), c.index_select(0, index)) for h, c in self.carried]

    def truncate(self, length: int) -> None:
        if length < self.length:
            self.carried = []
        super().truncate(length)

    def state(self) -> dict[str, Tensor]:
        tensors = super().state()
        for layer, (h_BD, c_BD) in enumerate(self.carried):
            tensors |= {f"{layer}.output": h_BD.contiguous(), f"{layer}.cell": c_BD.contiguous()}
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        super().restore(state)
        layers = len([name for name in state if name.endswith(".cell")])
        self.carried = [(state[f"{layer}.output"], state[f"{layer}.cell"]) for layer in range(layers)]


class Layer(nn.Module):
    """One LSTM layer (Hochreiter and Schmidhuber 1997; gates as in Zaremba et al., equation 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.below = Linear(dim, 4 * dim, bias=True)
        self.before = Linear(dim, 4 * dim, bias=False)

    def forward(self, x_BTD: Tensor, state: State | None, fresh_BT: Tensor | None) -> tuple[Tensor, State]:
        """Outputs `[B, T, D]` and the state behind the last token. `fresh` marks tokens that begin a text: nothing is
        carried over to them."""
        D = x_BTD.shape[-1]
        h_BD, c_BD = state or (x_BTD.new_zeros(len(x_BTD), D), x_BTD.new_zeros(len(x_BTD), D))
        carried_TB1 = None if fresh_BT is None else (~fresh_BT).T.unsqueeze(-1).to(x_BTD.dtype)
        outputs = []
        # What comes from below is there already: one product for all tokens.
        for t, below_BG in enumerate(self.below(x_BTD).unbind(1)):
            if carried_TB1 is not None:
                h_BD, c_BD = h_BD * carried_TB1[t], c_BD * carried_TB1[t]
            gates_BG = below_BG + self.before(h_BD)
            into_BD, forget_BD, out_BD = torch.sigmoid(gates_BG[:, : 3 * D]).chunk(3, dim=-1)
            c_BD = forget_BD * c_BD + into_BD * torch.tanh(gates_BG[:, 3 * D :])
            h_BD = out_BD * torch.tanh(c_BD)
            outputs.append(h_BD)
        return torch.stack(outputs, dim=1), (h_BD, c_BD)


class LSTM(nn.Module):
    """Next-token logits. Weights start from the global generator: seed it (`torch.random.fork_rng`) when training."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.embed = nn.Embedding(config.vocab, config.dim)
        self.blocks = nn.ModuleList(Layer(config.dim) for _ in range(config.layers))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Normal, 0.05 for the embedding, which is the output too, and 1/sqrt(fan-in) for matrices; forget gates 1."""
        self.embed.weight.normal_(std=0.05)
        for block in self.blocks:
            assert isinstance(block, Layer)
            for matrix in (block.below, block.before):
                matrix.weight.normal_(std=self.config.dim**-0.5)
            block.below.bias.zero_()
            block.below.bias[self.config.dim : 2 * self.config.dim] = 1

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Recall:
        """An empty memory for `batch` rows of up to `capacity` tokens, `padding[b]` of them padding on the left."""
        return Recall(batch=batch, capacity=capacity, padding=padding, device=self.embed.weight.device)

    def forward(
        self,
        ids_BT: Tensor,
        *,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Logits float32 `[B, T, V]`, or `[B, 1, V]` with `last_only`; with `targets` int `[B, T]` the sum of their
        cross-entropies instead. `documents` and `cache` as in `models.transformer.Transformer`."""
        x_BTD = self.hidden(ids_BT, documents=documents, cache=cache)
        if targets is not None:
            return linear_cross_entropy(x_BTD.flatten(0, 1), self.embed.weight, targets.flatten())
        if last_only:
            x_BTD = x_BTD[:, -1:]
        return F.linear(x_BTD, self.embed.weight.to(x_BTD.dtype)).float()

    def hidden(self, ids_BT: Tensor, *, documents: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """The last hidden states `[B, T, D]`; arguments as in `forward`."""
        assert cache is None or documents is None, "packed documents are for training, the cache for decoding"
        T, fresh_BT, carried = ids_BT.shape[1], None, []
        if documents is not None:
            fresh_BT = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
        if cache is not None:
            assert isinstance(cache, Recall), "an LSTM reads the cache that it made"
            ids_BT, fresh_BT, carried = self._next(ids_BT, cache)
        x_BTD, states = self.embed(ids_BT).to(self.compute_dtype), []
        for layer, block in enumerate(self.blocks):
            x_BTD, state = block(self._dropped(x_BTD), carried[layer] if carried else None, fresh_BT)
            states.append(state)
        if isinstance(cache, Recall):
            cache.carried = states
            cache.advance(T)
        return self._dropped(x_BTD[:, -T:])

    def _next(self, ids_BT: Tensor, cache: Recall) -> tuple[Tensor, Tensor | None, list[State]]:
        """(ids to read, which of them begin a text, what is carried to the first)."""
        end = cache.length + ids_BT.shape[1]
        if end > cache.capacity:
            raise ConjureError(
                f"the cache holds {cache.capacity} tokens a row, {end} were asked for", hint="ask for fewer tokens"
            )
        whole_BN = ids_BT if cache.ids_BN is None else torch.cat([cache.ids_BN, ids_BT], dim=1)
        cache.ids_BN = whole_BN
        start = cache.length if cache.carried else 0  # without anything carried all of it is read again
        slots_T = torch.arange(start, end, device=ids_BT.device)
        # A padded row begins behind its padding; whatever that left behind is not carried on.
        fresh_BT = slots_T == cache.padding_B[:, None] if cache.padded else None
        return whole_BN[:, start:], fresh_BT, cache.carried

    def _dropped(self, x_BTD: Tensor) -> Tensor:
        return F.dropout(x_BTD, self.config.dropout, self.training) if self.config.dropout else x_BTD

    def flops(self, batch: int, length: int) -> float:
        """Multiply-adds times two of one forward pass over `batch` rows of `length` tokens, logits included."""
        c = self.config
        return 2.0 * batch * length * (8 * c.layers * c.dim**2 + c.vocab * c.dim)
