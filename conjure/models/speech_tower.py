"""Speech read from the wave itself: convolutions, then a transformer; letters by CTC where there is a head.

wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477), XLSR (arXiv 2006.13979), HuBERT (arXiv 2106.07447), and MMS with
its adapters for a thousand languages (Pratap et al. 2023, arXiv 2305.13516).

Legend: B rows, N samples, C channels, T frames, D width, V letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.feedforward import ACTIVATIONS, Activation
from conjure.nn.linear import Linear
from conjure.nn.norm import LayerNorm

EPS = 1e-5
"""Of the norms between convolutions, which no config changes."""


class Conv1d(nn.Conv1d):
    """A convolution that computes in the precision of its input, as `Linear` does."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv1d gave it
        """`[B, in, T] -> [B, out, T']`"""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        weight = self.weight.to(input.dtype)
        return F.conv1d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, kw_only=True)
class SpeechTowerConfig:
    stack: TransformerConfig
    """Without vocabulary and positions. Placement "post" with `embedding_norm` is the first layout (wav2vec 2.0 and
    HuBERT base), "pre" the second (the large ones, XLSR, MMS)."""
    widths: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    convolution_bias: bool = False
    convolution_norm: Literal["first", "all"] = "first"
    """Each channel of the first convolution over time, or all channels of each convolution."""
    activation: Activation = "gelu"
    """Of the convolutions."""
    feature_norm: bool = True
    """A norm between convolutions and transformer."""
    position_kernel: int = 128
    position_groups: int = 16
    shorter: int = 0
    """Convolutions after the stack, each of which leaves one frame of `shorter_stride`."""
    shorter_width: int = 0
    """Width of what they give; 0: that of the stack."""
    shorter_kernel: int = 3
    shorter_stride: int = 2
    vocab: int = 0
    """Letters that the CTC head tells apart; 0: no head."""

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0:
            raise ConjureError(
                f"speech tower: expected a width, kernel and stride for each convolution, got {len(self.widths)}, "
                f"{len(self.kernels)} and {len(self.strides)}"
            )
        if self.stack.dim % self.position_groups:
            raise ConjureError(f"speech tower: {self.position_groups} groups do not divide the width {self.stack.dim}")
        if self.stack.causal or self.stack.vocab:
            raise ConjureError("speech tower: expected a stack that sees all and has no vocabulary")

    @property
    def output(self) -> int:
        """Width of the states that come out."""
        return self.shorter_width or self.stack.dim

    def frames(self, samples: Tensor) -> Tensor:
        """How many frames the first convolutions make of so many samples."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel).div(stride, rounding_mode="floor") + 1
        return samples


class FrontLayer(nn.Module):
    """A convolution, perhaps a norm, an activation."""

    def __init__(self, config: SpeechTowerConfig, layer: int) -> None:
        super().__init__()
        before = config.widths[layer - 1] if layer else 1
        width, kernel, stride = config.widths[layer], config.kernels[layer], config.strides[layer]
        self.convolution = Conv1d(before, width, kernel, stride, bias=config.convolution_bias)
        self.activation, self.over_time = ACTIVATIONS[config.activation], config.convolution_norm == "first"
        self.norm = LayerNorm(width, EPS) if layer == 0 or not self.over_time else None

    def forward(self, x_BCT: Tensor) -> Tensor:
        x_BCT = self.convolution(x_BCT)
        if self.norm is not None and self.over_time:
            assert self.norm.weight is not None and self.norm.bias is not None
            weight_C1, bias_C1 = self.norm.weight.float()[:, None], self.norm.bias.float()[:, None]
            normed_BCT = F.layer_norm(x_BCT.float(), (x_BCT.shape[-1],), eps=EPS)
            x_BCT = (normed_BCT * weight_C1 + bias_C1).to(x_BCT.dtype)
        elif self.norm is not None:
            x_BCT = self.norm(x_BCT.mT).mT
        return self.activation(x_BCT)


class SpeechTower(nn.Module):
    """`hidden` gives a state for each frame (20 ms with the usual strides), `logits` letters where there is a head."""

    def __init__(self, config: SpeechTowerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.front = nn.ModuleList(FrontLayer(c, layer) for layer in range(len(c.widths)))
        self.feature_norm = LayerNorm(c.widths[-1], c.stack.norm_eps) if c.feature_norm else None
        self.project = Linear(c.widths[-1], c.stack.dim)
        self.position = Conv1d(
            c.stack.dim, c.stack.dim, c.position_kernel, padding=c.position_kernel // 2, groups=c.position_groups
        )
        self.stack = Transformer(c.stack)
        narrow = c.shorter > 0 and c.output != c.stack.dim
        self.narrow = Linear(c.stack.dim, c.output) if narrow else None
        self.narrow_norm = LayerNorm(c.output, EPS) if narrow else None
        self.shorter = nn.ModuleList(
            Conv1d(c.output, 2 * c.output, c.shorter_kernel, c.shorter_stride, padding=1) for _ in range(c.shorter)
        )
        self.head = Linear(c.output, c.vocab) if c.vocab else None

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.stack.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.stack.compute_dtype = dtype

    def hidden(self, input_features: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """`[B, N]` samples at 16 kHz, `attention_mask` `[B, N]` false where they are padding -> states `[B, T, D]`."""
        if input_features is None or input_features.dim() != 2:
            raise ConjureError("this model hears waves: expected input_features of shape [rows, samples]")
        if int(self.config.frames(torch.tensor(input_features.shape[1]))) < 1:
            raise ConjureError(f"{input_features.shape[1]} samples are too few for a frame", hint="give more sound")
        x_BCT = input_features[:, None].to(self.compute_dtype)
        for layer in self.front:
            x_BCT = layer(x_BCT)
        x_BTC = x_BCT.mT
        x_BTD = self.project(x_BTC if self.feature_norm is None else self.feature_norm(x_BTC))
        mask_BT = None
        if attention_mask is not None:
            lengths_B1 = self.config.frames(attention_mask.long().sum(-1, keepdim=True))
            mask_BT = torch.arange(x_BTD.shape[1], device=x_BTD.device) < lengths_B1
            x_BTD = x_BTD * mask_BT[..., None].to(x_BTD.dtype)
        x_BTD = self.stack.hidden(embedded=x_BTD + self._places(x_BTD), mask_BT=mask_BT)
        return self._shortened(x_BTD)

    def _places(self, x_BTD: Tensor) -> Tensor:
        """Where a frame stands shows in its neighbours."""
        found_BDT = self.position(x_BTD.mT)[..., : x_BTD.shape[1]]  # an even kernel gives one frame too many
        return ACTIVATIONS[self.config.activation](found_BDT).mT

    def _shortened(self, x_BTD: Tensor) -> Tensor:
        if self.narrow is not None and self.narrow_norm is not None:
            x_BTD = self.narrow_norm(self.narrow(x_BTD))
        for convolution in self.shorter:
            x_BTD = F.glu(convolution(x_BTD.mT), dim=1).mT
        return x_BTD

    def logits(self, input_features: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """float32 `[B, T, V]`: the letter of each frame; its pad letter means none (CTC)."""
        if self.head is None:
            raise ConjureError("this model has no head: it gives hidden states, not logits")
        return self.head(self.hidden(input_features, attention_mask)).float()
