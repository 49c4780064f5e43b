"""Pictures read by a transformer: patches in, a state for each patch and one vector for the whole out.

ViT (Dosovitskiy et al. 2020, arXiv 2010.11929), and the towers of CLIP (Radford et al. 2021, arXiv 2103.00020) and of
SigLIP (Zhai et al. 2023, arXiv 2303.15343).

Legend: B pictures, C channels, H height, W width, T patches (and the first token), D width, P width of features,
L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig, make_norm
from conjure.nn.attention import attend
from conjure.nn.feedforward import FeedForward
from conjure.nn.linear import Linear


@dataclass(frozen=True, kw_only=True)
class VisionTowerConfig:
    stack: TransformerConfig
    """Without vocabulary; its table of positions has a row for each patch, after that of the token."""
    image: int
    """Pixels of a side."""
    patch: int
    """Pixels of a side; what is left over at the right and at the bottom is not looked at."""
    channels: int = 3
    patch_bias: bool = True
    token: bool = True
    """A learned token stands before the patches."""
    late_norm: bool = False
    """The final norm is for the token alone: the states come without it (CLIP)."""
    pool: Literal["token", "attention", "none"] = "token"
    """What stands for the picture: the token's state, what a learned query finds among all states, or nothing."""
    projection: int = 0
    """Width of the features where a matrix leads there; 0: they are `stack.dim` wide."""
    labels: int = 0
    """Classes that the head tells apart; 0: no head."""

    def __post_init__(self) -> None:
        if not 0 < self.patch <= self.image:
            raise ConjureError(f"vision tower: expected a patch up to the picture, got {self.patch} and {self.image}")
        if self.stack.causal or self.stack.vocab:
            raise ConjureError("vision tower: expected a stack that sees all and has no vocabulary")
        if self.stack.max_length != self.patches + self.token:
            wanted = self.patches + self.token
            raise ConjureError(f"vision tower: expected {wanted} positions, got {self.stack.max_length}")
        if self.pool == "token" and not self.token:
            raise ConjureError("vision tower: pool 'token' needs a token")

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2


class AttentionPool(nn.Module):
    """What a learned query finds, and a feed-forward layer on it (SigLIP)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.probe = nn.Parameter(torch.zeros(config.dim))
        self.qkv, self.out = Linear(config.dim, 3 * config.dim), Linear(config.dim, config.dim)
        self.norm = make_norm(config, config.dim)
        self.feedforward = FeedForward(
            config.dim, config.feedforward, activation=config.activation, gated=False, bias=True
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`[B, T, D] -> [B, D]`"""
        B, _, D = x_BTD.shape
        q_B1D = self.qkv(self.probe.to(x_BTD.dtype))[:D].expand(B, 1, D)
        _, k_BTD, v_BTD = self.qkv(x_BTD).chunk(3, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q_B1D, k_BTD, v_BTD))
        x_BD = self.out(attend(q, k, v).flatten(1))
        return x_BD + self.feedforward(self.norm(x_BD))


class VisionTower(nn.Module):
    """`hidden` gives the states, `image_features` a vector a picture, `logits` labels where there is a head."""

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.stack.dim
        self.patch = Linear(config.channels * config.patch**2, dim, bias=config.patch_bias)
        self.token = nn.Parameter(torch.zeros(dim)) if config.token else None
        self.stack = Transformer(config.stack)
        self.pool = AttentionPool(config.stack) if config.pool == "attention" else None
        self.project = Linear(dim, config.projection, bias=False) if config.projection else None
        self.classify = Linear(dim, config.labels) if config.labels else None

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.stack.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.stack.compute_dtype = dtype

    def embedded(self, pixel_values: Tensor | None) -> Tensor:
        """`[B, C, H, W] -> [B, T, D]`, positions not yet added."""
        c = self.config
        if pixel_values is None:
            raise ConjureError("this model looks at pictures: expected pixel_values")
        if tuple(pixel_values.shape[1:]) != (c.channels, c.image, c.image):
            raise ConjureError(
                f"pixel_values: expected [B, {c.channels}, {c.image}, {c.image}], got {list(pixel_values.shape)}",
                hint="scale and cut the pictures as preprocessor_config.json says",
            )
        B, n, P = len(pixel_values), c.image // c.patch, c.patch
        cut_BCHW = pixel_values[..., : n * P, : n * P].to(self.compute_dtype)
        patches_BTE = cut_BCHW.unflatten(3, (n, P)).unflatten(2, (n, P)).permute(0, 2, 4, 1, 3, 5).reshape(B, n * n, -1)
        x_BTD = self.patch(patches_BTE)
        if self.token is None:
            return x_BTD
        return torch.cat([self.token.to(x_BTD.dtype).expand(B, 1, -1), x_BTD], dim=1)

    def hidden(self, pixel_values: Tensor | None = None, *, depth: int | None = None, **_: Any) -> Tensor:
        """The last states `[B, T, D]`, after the final norm unless it is `late_norm`; with `depth` n, what the first n
        layers give, without any."""
        if depth is None and self.config.late_norm:
            depth = self.config.stack.layers
        return self.stack.hidden(embedded=self.embedded(pixel_values), depth=depth)

    def image_features(self, pixel_values: Tensor | None = None) -> Tensor:
        """What stands for each picture, `[B, P]`, not yet of length 1."""
        x_BTD = self.hidden(pixel_values)
        if self.pool is not None:
            x_BD = self.pool(x_BTD)
        elif self.config.pool == "token":
            x_BD = x_BTD[:, 0]
            x_BD = self.stack.norm(x_BD) if self.config.late_norm and self.stack.norm is not None else x_BD
        else:
            raise ConjureError("this model has a state for each patch, and nothing that stands for the whole picture")
        return x_BD if self.project is None else self.project(x_BD)

    def logits(self, pixel_values: Tensor | None = None, **_: Any) -> Tensor:
        """float32 `[B, L]`: how much each label fits the picture."""
        if self.classify is None:
            raise ConjureError("this model has no head: it gives hidden states and image features, not logits")
        return self.classify(self.image_features(pixel_values)).float()
