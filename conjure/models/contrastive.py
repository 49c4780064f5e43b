"""Pictures and texts in one space: two towers whose features agree where picture and text do.

CLIP (Radford et al. 2021, arXiv 2103.00020) and SigLIP (Zhai et al. 2023, arXiv 2303.15343).

Legend: B pictures, N texts, T tokens, D width, P width of features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.models.vision_tower import VisionTower, VisionTowerConfig
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    stack: TransformerConfig
    pool: Literal["end", "highest", "last"]
    """Whose state stands for the text: the first token `end`; the token of the highest id, which is the end mark of
    CLIP's own vocabulary; or the last one, padding or not (SigLIP)."""
    end: int = 0
    projection: int = 0
    """Width of the features where a matrix leads there; 0: they are `stack.dim` wide."""
    projection_bias: bool = False


class TextTower(nn.Module):
    """`hidden` gives the states, `text_features` a vector a text."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.stack = Transformer(config.stack)
        wide, bias = config.projection, config.projection_bias
        self.project = Linear(config.stack.dim, wide, bias=bias) if wide else None

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.stack.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.stack.compute_dtype = dtype

    def hidden(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """The last states `[N, T, D]`, after the final norm."""
        if input_ids is None:
            raise ConjureError("this model reads texts: expected input_ids")
        return self.stack.hidden(input_ids, mask_BT=attention_mask)

    def text_features(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """What stands for each text, `[N, P]`, not yet of length 1."""
        x_NTD = self.hidden(input_ids, attention_mask)
        assert input_ids is not None
        if self.config.pool == "last":
            x_ND = x_NTD[:, -1]
        else:
            found_NT = input_ids if self.config.pool == "highest" else (input_ids == self.config.end).int()
            x_ND = x_NTD[torch.arange(len(x_NTD), device=x_NTD.device), found_NT.argmax(-1)]
        return x_ND if self.project is None else self.project(x_ND)

    def logits(self, **_: Any) -> Tensor:
        raise ConjureError("this model has no head: it gives hidden states and text features, not logits")


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    image: VisionTowerConfig
    text: TextTowerConfig
    bias: bool = False
    """A learned number is added to all logits (SigLIP)."""


class Contrastive(nn.Module):
    """`logits` tells how well each text fits each picture."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        self.image, self.text = VisionTower(config.image), TextTower(config.text)
        self.scale = nn.Parameter(torch.zeros(()))
        """The logarithm of what cosines are multiplied by."""
        self.bias = nn.Parameter(torch.zeros(())) if config.bias else None

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.text.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.image.compute_dtype = self.text.compute_dtype = dtype

    def image_features(self, pixel_values: Tensor | None = None) -> Tensor:
        """`[B, P]`, not yet of length 1."""
        return self.image.image_features(pixel_values)

    def text_features(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """`[N, P]`, not yet of length 1."""
        return self.text.text_features(input_ids, attention_mask)

    def hidden(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None,
        **_: Any,
    ) -> Tensor:  # fmt: skip
        """The states of one of the towers: of texts `[N, T, D]` or of pictures `[B, T, D]`."""
        if (input_ids is None) == (pixel_values is None):
            raise ConjureError("hidden states are of one tower: expected either input_ids or pixel_values")
        return self.image.hidden(pixel_values) if input_ids is None else self.text.hidden(input_ids, attention_mask)

    def logits(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None,
        **_: Any,
    ) -> Tensor:  # fmt: skip
        """float32 `[B, N]`: cosines, scaled. CLIP means their softmax over the texts, SigLIP the sigmoid of each."""
        image_BP = F.normalize(self.image_features(pixel_values).float(), dim=-1)
        text_NP = F.normalize(self.text_features(input_ids, attention_mask).float(), dim=-1)
        logits_BN = image_BP @ text_NP.T * self.scale.float().exp()
        return logits_BN if self.bias is None else logits_BN + self.bias.float()
