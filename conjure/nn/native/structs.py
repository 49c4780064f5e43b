"""The structs of `step.cpp` in ctypes, field by field as there."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_size_t, c_void_p

import torch

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
KINDS = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
NORMS = {"none": 0, "rms": 1, "layer": 2}
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "quick_gelu": 3, "relu": 4, "relu2": 5}


def _integers(*names: str) -> list[tuple[str, type[c_int32]]]:
    return [(name, c_int32) for name in names]


class Matrix(Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("data", "scale", "bias")],
        *_integers("kind", "rows", "cols", "unused"),
    ]


class Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("kind", c_int32), ("eps", c_float)]


class Layer(Structure):
    _fields_ = [
        *[(name, Matrix) for name in ("qkv", "out", "gate", "up", "down", "cross_q", "cross_out")],
        *[(name, Norm) for name in ("attention_in", "attention_out", "attention_post")],
        *[(name, Norm) for name in ("mlp_in", "mlp_out", "mlp_post", "q", "k", "cross_in", "cross_post")],
        ("sinks", c_void_p),
        ("slopes", c_void_p),
        ("scale", c_float),
        *_integers("window", "rope", "unused"),
    ]


class Model(Structure):
    _fields_ = [
        ("embed", Matrix),
        ("head", Matrix),
        ("embed_norm", Norm),
        ("final_norm", Norm),
        ("place", c_void_p),
        ("layers", POINTER(Layer)),
        *_integers("count", "dim", "heads", "key_heads", "width", "hidden"),
        *_integers("activation", "parallel", "interleaved", "half_cache"),
        ("softcap", c_float),
        ("logit_softcap", c_float),
        ("embedding_scale", c_float),
        ("unused", c_int32),
    ]


class Call(Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("ids", "more", "padding", "lengths", "places", "keys", "values")],
        ("cos", c_void_p * 2),
        ("sin", c_void_p * 2),
        ("logits", c_void_p),
        *[(name, c_void_p) for name in ("memory_keys", "memory_values", "memory_places", "memory_lengths")],
        *_integers("batch", "tokens", "held", "capacity"),
        ("rotated", c_int32 * 2),
        *_integers("last_only", "threads", "memory_held", "memory_slots"),
    ]


class Source(Structure):
    _fields_ = [
        *[(name, c_void_p) for name in ("values", "data", "scale")],
        ("clips", POINTER(c_float)),
        ("stride", c_int64),
        *_integers("kind", "type", "rows", "cols", "clip_count", "unused"),
    ]


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tells ctypes what the functions take."""
    library.conjure_pass.argtypes = [POINTER(Model), POINTER(Call)]
    library.conjure_pass.restype = None
    library.conjure_product.argtypes = [POINTER(Matrix), c_void_p, c_void_p, c_int32, c_int32]
    library.conjure_product.restype = None
    library.conjure_remember.argtypes = [*[c_void_p] * 3, *[c_int32] * 7]
    library.conjure_remember.restype = None
    library.conjure_row.argtypes = [POINTER(Matrix), c_int64, c_void_p]
    library.conjure_row.restype = None
    library.conjure_pack.argtypes = [POINTER(Source), c_int32]
    library.conjure_pack.restype = c_int32
    library.conjure_sizes.argtypes = [c_int32]
    library.conjure_sizes.restype = c_size_t
    for number, kind in enumerate((Matrix, Norm, Layer, Model, Call, Source)):
        assert library.conjure_sizes(number) == ctypes.sizeof(kind), f"{kind.__name__} differs from step.cpp"
    return library
