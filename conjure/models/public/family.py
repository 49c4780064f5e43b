"""What a family of public models is: how its config is read, and where its tensors lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from conjure.models.checkpoint import Tensors
from conjure.models.public.names import Map
from conjure.models.public.settings import Settings
from conjure.models.transformer import Transformer

IGNORED = (
    "*.rotary_emb.inv_freq", "*rotary_pos_emb.inv_freq", "*.position_ids", "*.embeddings.token_type_ids",
    "encoder.version", "decoder.version", "*.encoder.version", "*.decoder.version",
)  # fmt: skip
"""Tensors of old files that can be computed, or mean nothing."""


@dataclass(frozen=True)
class Family:
    """`config` makes the network's config from config.json, `names` maps its parameters to tensors on disk."""

    config: Callable[[Settings], Any]
    names: Callable[[Any], Map]
    prefix: str = ""
    """In front of the names of the part without a head; files of that part alone leave it out."""
    network: Callable[[Any], nn.Module] = Transformer
    inner: str = ""
    """In the middle of names; some files leave it out."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What config.json may leave out."""
    ignore: tuple[str, ...] = ()
    """Patterns of further tensors that are not needed."""
    opened: Callable[[Tensors], Tensors] = lambda tensors: tensors
    """The tensors of a file as the names mean them."""
    kind: str = "decoder"
    """decoder, encoder, pair (encoder and decoder), or the name of a tower."""
