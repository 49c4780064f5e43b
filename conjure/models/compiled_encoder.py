"""An encoder in compiled code: `CompiledEncoder(transformer)`, used like `Transformer.hidden` on vectors.

The answers are those of the transformer up to rounding; where its matrices are int8, activations are rounded to int8
before products, row by row.

Legend: B rows, T tokens, D width, H heads, C head width.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.models.decoder import places
from conjure.models.transformer import Attention, Block, Transformer, TransformerConfig
from conjure.nn.feedforward import FeedForward
from conjure.nn.native import encoder, pixels
from conjure.nn.native.structs import ACTIVATIONS

_KNOWN = frozenset(
    "dim layers heads kv_heads head_dim hidden causal activation norm norm_eps norm_affine final_norm qkv_bias "
    "out_bias mlp_bias positions position_offset max_length attention_scale tie embedding_scale vocab gated pad".split()
)


class CompiledEncoder:
    """Holds the matrices of a transformer, which stays as it is, a second time, packed."""

    def __init__(self, transformer: Transformer) -> None:
        """Raises `AssertionError` where `supports` gives a reason."""
        assert not self.supports(transformer), "ask `supports` first"
        self.config, self._norm, self._places = transformer.config, transformer.norm, places(transformer)
        self._blocks = [_packed(block, self.config) for block in transformer.blocks if isinstance(block, Block)]

    @staticmethod
    def supports(transformer: Transformer) -> str:
        """Why this network cannot run in compiled code here; empty where it can."""
        c = transformer.config
        for field in dataclasses.fields(TransformerConfig):
            if field.name not in _KNOWN and getattr(c, field.name) != field.default:
                return f"{field.name} is not written in it"
        if c.causal or c.gated or c.key_heads != c.heads or c.activation not in ACTIVATIONS or c.dim % encoder.LANES:
            return "it is written for plain encoders"
        held = (*transformer.parameters(), *transformer.buffers())
        if any(not tensor.is_cpu for tensor in held) or transformer.compute_dtype != torch.float32:
            return "it is written for the CPU, and for float32"
        blocks = [block for block in transformer.blocks if isinstance(block, Block)]
        if not all(encoder.fits(layer) for block in blocks for layer in _matrices(block)):
            return "a matrix is of a type or size that is not written in it"
        return encoder.library().reason

    @torch.inference_mode()
    def __call__(self, embedded_BTD: Tensor) -> Tensor:
        """The last hidden states `[B, T, D]` of vectors `[B, T, D]`, to which positions are yet to be added."""
        c = self.config
        B, T, D = embedded_BTD.shape
        x_BTD = (embedded_BTD if self._places is None else embedded_BTD + self._places[:T]).float().contiguous()
        x_BTD = x_BTD.clone() if x_BTD is embedded_BTD else x_BTD
        x_RD = x_BTD.view(-1, D)
        qkv_RQ = encoder.run(x_RD, None, None, self._blocks[0])
        for number, block in enumerate(self._blocks):
            q, k, v = qkv_RQ.view(B, T, 3, c.heads, c.width).permute(2, 0, 3, 1, 4)
            attend = pixels.attention if pixels.attends(q, k, v) else _attention
            out_BHTC = attend(q, k, v, c.scale(number))
            following = self._blocks[number + 1] if number + 1 < len(self._blocks) else None
            qkv_RQ = encoder.run(x_RD, block, out_BHTC.transpose(1, 2).reshape(B * T, -1), following)
        return x_BTD if self._norm is None else self._norm(x_BTD)


def _attention(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, scale=scale)


def _matrices(block: Block) -> tuple[torch.nn.Module, ...]:
    assert isinstance(block.attention, Attention) and isinstance(block.feedforward, FeedForward)
    return block.attention.qkv, block.attention.out, block.feedforward.up, block.feedforward.down


def _packed(block: Block, config: TransformerConfig) -> encoder.Block:
    qkv, out, up, down = _matrices(block)
    assert block.norm_feedforward is not None
    return encoder.block(block.norm_attention, qkv, out, block.norm_feedforward, up, down, config.activation)
