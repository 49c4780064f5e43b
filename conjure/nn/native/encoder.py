"""Layers of an encoder, but for their attention, by `encoder.cpp`, compiled on the user's machine at its first use.

`CONJURE_NATIVE=0` turns it off. Legend: R rows, D width, O outputs, I inputs, Q outputs of queries, keys and values.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.nn.native.build import Native, native
from conjure.nn.native.structs import ACTIVATIONS, NORMS
from conjure.nn.norm import LayerNorm, RMSNorm
from conjure.nn.quantised import QuantisedLinear

SOURCE = Path(__file__).with_suffix(".cpp")
PANEL, LANES, FOUR = 32, 16, 4


class _Dense(Structure):
    _fields_ = [("data", c_void_p), ("scale", c_void_p), ("bias", c_void_p), ("rows", c_int32), ("cols", c_int32)]


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("kind", c_int32), ("eps", c_float)]


class _Layer(Structure):
    _fields_ = [
        *[(name, _Norm) for name in ("attention_in", "mlp_in")],
        *[(name, _Dense) for name in ("qkv", "out", "up", "down")],
        ("activation", c_int32),
        ("unused", c_int32),
    ]


class _Call(Structure):
    _fields_ = [
        ("after", POINTER(_Layer)), ("before", POINTER(_Layer)),
        *[(name, c_void_p) for name in ("x", "attended", "qkv")],
        ("rows", c_int64), ("dim", c_int32), ("threads", c_int32),
    ]  # fmt: skip


def library() -> Native:
    """The library for this machine; the first call compiles it (some seconds)."""
    return native(SOURCE, _declared)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.conjure_encode.argtypes = [POINTER(_Call)]
    library.conjure_encode.restype = None
    library.conjure_encoder_sizes.argtypes = [c_int32]
    library.conjure_encoder_sizes.restype = c_size_t
    for number, kind in enumerate((_Dense, _Norm, _Layer, _Call)):
        assert library.conjure_encoder_sizes(number) == ctypes.sizeof(kind), f"{kind.__name__} differs from encoder.cpp"
    return library


def fits(layer: nn.Module) -> bool:
    """Whether this layer's matrix can be read here: floats, or int8 with one scale an output."""
    if isinstance(layer, QuantisedLinear):
        by_rows = layer.scale is None or layer.scale.shape[1] == 1  # what is packed for w8a8 has one scale an output
        return layer.weights == "int8" and layer.out_features % LANES == 0 and by_rows
    return isinstance(layer, nn.Linear) and layer.out_features % LANES == 0


@dataclass(frozen=True)
class Block:
    """A layer as `encoder.cpp` reads it, with what keeps its memory alive."""

    layer: _Layer
    outputs: int
    """Q."""
    kept: list[Tensor]


def block(
    attention_in: nn.Module, qkv: nn.Module, out: nn.Module, mlp_in: nn.Module, up: nn.Module, down: nn.Module,
    activation: str,
) -> Block:  # fmt: skip
    """Packs a layer; its modules stay as they are."""
    kept: list[Tensor] = []
    made = _Layer(
        attention_in=_norm(attention_in, kept), mlp_in=_norm(mlp_in, kept), qkv=_dense(qkv, kept),
        out=_dense(out, kept), up=_dense(up, kept), down=_dense(down, kept), activation=ACTIVATIONS[activation],
    )  # fmt: skip
    return Block(made, made.qkv.rows, kept)


def run(x_RD: Tensor, after: Block | None, attended_RO: Tensor | None, before: Block | None) -> Tensor:
    """Ends the layer `after`, whose attention gave `attended`, and begins the layer `before`: x changes in place; the
    queries, keys and values `[R, Q]` come back."""
    found = library().library
    assert found is not None and x_RD.is_contiguous() and x_RD.dtype == torch.float32
    qkv_RQ = torch.empty(len(x_RD), before.outputs if before is not None else 0)
    attended_RO = None if attended_RO is None else attended_RO.contiguous()
    call = _Call(
        after=None if after is None else ctypes.pointer(after.layer),
        before=None if before is None else ctypes.pointer(before.layer),
        x=x_RD.data_ptr(), attended=None if attended_RO is None else attended_RO.data_ptr(), qkv=qkv_RQ.data_ptr(),
        rows=len(x_RD), dim=x_RD.shape[1], threads=torch.get_num_threads(),
    )  # fmt: skip
    found.conjure_encode(call)
    return qkv_RQ


def _norm(module: nn.Module, kept: list[Tensor]) -> _Norm:
    assert isinstance(module, LayerNorm | RMSNorm)
    weight, bias = module.weight, module.bias if isinstance(module, LayerNorm) else None
    if weight is not None and isinstance(module, RMSNorm) and module.plus_one:
        weight = weight.float() + 1
    kind = NORMS["layer" if isinstance(module, LayerNorm) else "rms"]
    return _Norm(weight=_pointer(weight, kept), bias=_pointer(bias, kept), kind=kind, eps=module.eps)


def _dense(layer: nn.Module, kept: list[Tensor]) -> _Dense:
    assert isinstance(layer, nn.Linear | QuantisedLinear)
    O, I = layer.out_features, layer.in_features
    wide, high, scale_O = -(-I // FOUR) * FOUR, -(-O // PANEL) * PANEL, None
    if isinstance(layer, QuantisedLinear):
        q_OI, scale = layer.stored()
        data = F.pad(q_OI.view(torch.uint8) ^ 0x80, (0, wide - I, 0, high - O), value=0x80)
        data = data.view(-1, PANEL, wide // FOUR, FOUR).transpose(1, 2)
        scale_O = F.pad(scale[:, 0].float(), (0, high - O))
    else:
        data = F.pad(layer.weight.detach().float(), (0, wide - I, 0, high - O)).view(-1, PANEL, wide).transpose(1, 2)
    bias_O = torch.zeros(high)
    if layer.bias is not None:
        bias_O[:O] = layer.bias.detach().float()
    data = data.contiguous()
    kept += [data, bias_O, *([] if scale_O is None else [scale_O])]
    return _Dense(data=data.data_ptr(), scale=None if scale_O is None else scale_O.data_ptr(),
                  bias=bias_O.data_ptr(), rows=O, cols=wide)  # fmt: skip


def _pointer(tensor: Tensor | None, kept: list[Tensor]) -> int | None:
    if tensor is None:
        return None
    kept.append(tensor.detach().float().contiguous().clone())
    return kept[-1].data_ptr()
