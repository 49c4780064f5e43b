"""A language model that sees: features of pictures stand where the text has marks for them.

LLaVA (Liu et al. 2023, arXiv 2304.08485 and 2310.03744).

Legend: B rows, N pictures, T tokens, S patches, D width, E width of the vision tower, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.models.vision_tower import VisionTower, VisionTowerConfig
from conjure.nn.cache import Cache
from conjure.nn.feedforward import ACTIVATIONS, Activation
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class VisionLanguageConfig:
    image: VisionTowerConfig
    decoder: TransformerConfig
    mark: int
    """The id that stands once for each patch of a picture."""
    depth: int
    """The language model sees what so many layers of the tower give."""
    token: bool = False
    """It also sees the tower's first token."""
    activation: Activation = "gelu"
    """Between the two matrices that lead from the one to the other."""
    bias: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.depth <= self.image.stack.layers:
            raise ConjureError(f"the vision tower has {self.image.stack.layers} layers, not {self.depth}")
        if not 0 <= self.mark < self.decoder.vocab:
            raise ConjureError(f"the mark of pictures is {self.mark}: expected an id below {self.decoder.vocab}")

    @property
    def marks(self) -> int:
        """How many stand for one picture."""
        return self.image.patches + (self.token and self.image.token)


class VisionLanguage(nn.Module):
    """Without pictures it is its language model: it decodes as that does. With them, `seeing(pictures)` decodes."""

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.image, self.decoder = VisionTower(config.image), Transformer(config.decoder)
        wide = config.image.stack.dim
        self.bridge_in = Linear(wide, config.decoder.dim, bias=config.bias)
        self.bridge_out = Linear(config.decoder.dim, config.decoder.dim, bias=config.bias)

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.decoder.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.image.compute_dtype = self.decoder.compute_dtype = dtype

    def image_features(self, pixel_values: Tensor | None = None) -> Tensor:
        """What the language model sees of each picture, `[N, S, D]`."""
        x_NSE = self.image.hidden(pixel_values, depth=self.config.depth)
        if self.config.image.token and not self.config.token:
            x_NSE = x_NSE[:, 1:]
        return self.bridge_out(ACTIVATIONS[self.config.activation](self.bridge_in(x_NSE)))

    def embedded(self, ids_BT: Tensor, marked_BT: Tensor, features_MD: Tensor) -> Tensor:
        """`[B, T, D]`: the marked ids are replaced by these features, one after the other."""
        assert self.decoder.embed is not None
        counts = marked_BT.sum(1)
        if int(counts.sum()) != len(features_MD) or (counts % self.config.marks).any():
            raise ConjureError(
                f"expected {len(features_MD)} marks (id {self.config.mark}) for these pictures, got {counts.tolist()}",
                hint=f"a picture is {self.config.marks} marks in a row",
            )
        x_BTD = self.decoder.embed(ids_BT)
        return x_BTD.masked_scatter(marked_BT[..., None], features_MD.to(x_BTD.dtype))

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The language model's last states `[B, T, D]`; the first pictures of `[N, C, H, W]` are for row 0, ..."""
        if pixel_values is None:
            return self.decoder.hidden(input_ids, mask_BT=attention_mask)
        features_MD = self.image_features(pixel_values).flatten(0, 1)
        x_BTD = self.embedded(input_ids, input_ids == self.config.mark, features_MD)
        return self.decoder.hidden(embedded=x_BTD, mask_BT=attention_mask)

    def logits(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None, **_: Any
    ) -> Tensor:
        """float32 `[B, T, V]`."""
        return self.decoder.logits(self.hidden(input_ids, attention_mask, pixel_values))

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        return self.decoder.cache(batch, capacity, padding)

    def forward(self, ids_BT: Tensor, *, cache: Cache, last_only: bool = False) -> Tensor:
        """The next ids of each row, all of them text -> logits float32 `[B, T, V]`, or `[B, 1, V]`."""
        return self.decoder(ids_BT, cache=cache, last_only=last_only)

    def seeing(self, pixel_values: Tensor) -> Seeing:
        """This network with pictures to look at: `[B, C, H, W]`, one a row, or `[B, n, C, H, W]`."""
        many = pixel_values if pixel_values.dim() == 5 else pixel_values[:, None]
        return Seeing(self, self.image_features(many.flatten(0, 1)).unflatten(0, many.shape[:2]).flatten(1, 2))


class Seeing:
    """A network that decodes, see `decoding`: pictures take the place of the marks in what is read first, the prompt.

    Row b has picture b; a single picture is for all rows. Prompts are to be read in one go, so not from a store of
    prompts read before, which would not know the pictures apart.
    """

    def __init__(self, network: VisionLanguage, features_BMD: Tensor) -> None:
        self.network, self.features_BMD = network, features_BMD
        self.config = network.config.decoder

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        if len(self.features_BMD) not in (1, batch):
            raise ConjureError(
                f"pictures for {len(self.features_BMD)} texts, {batch} of which can be read together",
                hint="texts that are equal but for their pictures, or longer than the model reads: one at a time",
            )
        return self.network.cache(batch, capacity, padding)

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        if cache.length:
            return self.network(ids_BT, cache=cache, last_only=last_only)
        at_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        marked_BT = (ids_BT == self.network.config.mark) & (at_T >= cache.padding_B[:, None])
        features_MD = self.features_BMD.expand(len(ids_BT), -1, -1).flatten(0, 1)
        x_BTD = self.network.embedded(ids_BT, marked_BT, features_MD)
        return self.network.decoder(ids_BT, embedded=x_BTD, cache=cache, last_only=last_only)
