"""An encoder-decoder that names a text: the text goes through both stacks, and the label is read off at its last end
mark (Lewis et al. 2019, arXiv 1910.13461, section 3.1).

Legend: B rows, T tokens, D width, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class PairClassifierConfig:
    pair: EncoderDecoderConfig
    labels: int
    start: int
    """What the decoder reads first: the text, one place later, follows it."""
    end: int
    """The mark that every text ends with."""

    @property
    def encoder(self) -> Any:
        """Of what is read."""
        return self.pair.encoder


class PairClassifier(nn.Module):
    """`logits` `[B, L]`."""

    can = ("classify", "embed")

    def __init__(self, config: PairClassifierConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.pair.decoder.dim
        self.pair = EncoderDecoder(config.pair)
        self.dense = Linear(dim, dim)
        self.classify = Linear(dim, config.labels)

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.pair.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.pair.compute_dtype = dtype

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """The decoder's last hidden states `[B, T, D]` over the text itself, moved by one place."""
        start_B1 = torch.full_like(input_ids[:, :1], self.config.start)
        moved_BT = torch.cat([start_B1, input_ids[:, :-1]], dim=1)
        return self.pair.hidden(input_ids, attention_mask, moved_BT)

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """float32 `[B, L]`; `ConjureError` where a row has no end mark."""
        ends_BT = input_ids == self.config.end
        if not bool(ends_BT.any(1).all()):
            raise ConjureError(f"input_ids: expected the end mark {self.config.end} in every row of a classifier")
        places_T = torch.arange(input_ids.shape[1], device=input_ids.device)
        last_B = torch.where(ends_BT, places_T, -1).argmax(1)
        x_BTD = self.hidden(input_ids, attention_mask)
        x_BD = x_BTD[torch.arange(len(x_BTD), device=x_BTD.device), last_B]
        return self.classify(torch.tanh(self.dense(x_BD))).float()
