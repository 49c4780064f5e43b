"""A transformer with a head other than that of a language model: filling gaps, naming a text or each of its tokens.

Legend: B rows, T tokens, D width, L labels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.feedforward import ACTIVATIONS
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm


@dataclass(frozen=True, kw_only=True)
class HeadedConfig:
    stack: TransformerConfig
    head: Literal["none", "masked", "first", "tokens", "last"]
    """none; logits of every token over the vocabulary, after a dense layer and a norm; labels from the first token; of
    every token; from the last one (decoders)."""
    labels: int = 0
    answers: bool = False
    """The two labels of each token are: an answer begins, an answer ends here."""
    activation: str = "gelu"
    """Of the dense layer before `masked` and `first`."""

    def with_tie(self, tie: bool) -> HeadedConfig:
        """The output matrix of `masked` is always the embedding."""
        return self


class Headed(nn.Module):
    """`logits` `[B, T, V]` (masked), `[B, T, L]` (tokens) or `[B, L]` (first, last)."""

    def __init__(self, config: HeadedConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.stack.dim
        self.stack = Transformer(config.stack)
        self.dense = Linear(dim, dim) if config.head in ("masked", "first") else None
        self.norm = LayerNorm(dim, config.stack.norm_eps) if config.head == "masked" else None
        self.bias = nn.Parameter(torch.zeros(config.stack.vocab)) if config.head == "masked" else None
        named = config.head in ("first", "tokens", "last")
        self.classify = Linear(dim, config.labels, bias=config.head != "last") if named else None
        self.activation = torch.tanh if config.activation == "tanh" else ACTIVATIONS[config.activation]

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.stack.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.stack.compute_dtype = dtype

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The last hidden states `[B, T, D]`."""
        return self.stack.hidden(input_ids, mask_BT=attention_mask, types_BT=token_type_ids)

    def logits(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None, **_: Any
    ) -> Tensor:
        """float32, of the shape that the head has."""
        if self.config.head == "none":
            raise ConjureError("this model has no head: it gives hidden states and embeddings, not logits")
        x_BTD = self.hidden(input_ids, attention_mask, token_type_ids)
        if self.norm is not None and self.dense is not None and self.bias is not None:
            x_BTD = self.norm(self.activation(self.dense(x_BTD)))
            return F.linear(x_BTD, self.stack.head_weight.to(x_BTD.dtype)).float() + self.bias.float()
        assert self.classify is not None
        if self.config.head == "tokens":
            return self.classify(x_BTD).float()
        if self.config.head == "last":
            rows = torch.arange(len(x_BTD), device=x_BTD.device)
            return self.classify(x_BTD[rows, self._last(input_ids, attention_mask)]).float()
        assert self.dense is not None
        return self.classify(self.activation(self.dense(x_BTD[:, 0]))).float()

    def _last(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The place of each row's last token that is no padding."""
        real_BT = (input_ids != self.config.stack.pad) if attention_mask is None else attention_mask.bool()
        at_T = torch.arange(input_ids.shape[1], device=input_ids.device)
        return (real_BT * at_T).argmax(-1)
