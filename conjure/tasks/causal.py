"""What every task that trains a causal language model owes the loop; what differs is where its examples come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from conjure.codecs.tokenizer import Tokenizer
from conjure.core import seeds as randomness
from conjure.data.packing import IGNORED
from conjure.models.lstm import LSTM
from conjure.models.transformer import Transformer

Network = TypeVar("Network", bound=nn.Module)
Reader = TypeVar("Reader", bound="Transformer | LSTM")


class CausalTraining(Generic[Reader]):
    """Loss, logits and description of batches of packed rows (`data.packing`): the parts of `core.protocol.Trainable`
    that know no data."""

    causal = True
    network: Reader
    tokenizer: Tokenizer

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(summed cross-entropy in nats, number of targets)."""
        run = self.network if network is None else network
        total = run(batch["ids"], documents=batch.get("documents"), targets=batch["targets"])
        return total, (batch["targets"] != IGNORED).sum()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.network(batch["ids"], documents=batch.get("documents"))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["ids"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        return 3 * self.network.flops(*batch["ids"].shape)

    def describe(self, batch: dict[str, Tensor]) -> str:
        """The tokens between bars, those without loss in [brackets], a double bar where another document begins."""
        lines = []
        documents_BT = batch.get("documents", torch.zeros_like(batch["ids"]))
        for ids, targets, own in zip(batch["ids"], batch["targets"], documents_BT, strict=True):
            pieces, before = [], own[0]
            for token, target, document in zip(ids.tolist(), targets.tolist(), own, strict=True):
                text = repr(self.tokenizer.token(token))[1:-1]
                pieces.append(("|" if document != before else "") + (f"[{text}]" if target == IGNORED else text))
                before = document
            lines.append("|".join(pieces))
        return "\n".join(lines)


def seeded(make: Callable[[], Network], seed: int) -> Network:
    """A new network whose layers draw their weights from the recipe's seed."""
    with randomness.drawing_weights(seed):
        return make()
