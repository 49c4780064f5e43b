"""3x3 convolutions and attention over pixels by `pixels.cpp`, compiled on the user's machine at its first use.

`CONJURE_NATIVE=0` turns it off. Nothing depends on it: without a compiler PyTorch computes the same, to rounding.

Legend: B batch, C channels in, K channels out, H height, W width, h heads, T queries, S keys, D head width.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from conjure.nn.native.build import native

SOURCE = Path(__file__).with_suffix(".cpp")
LEAST = 1 << 22
"""Multiplications of a convolution from which it pays to leave PyTorch."""
WIDEST, LONG = 64, 1024
"""Head width up to which, and keys from which, attention beats PyTorch's: 1.4 times at a width of 64, 1.05 at 40."""


def convolves(x_BCHW: Tensor, weight_KC33: Tensor, doubled: bool = False) -> bool:
    """Whether `conv3x3` can and should compute this: float32 on a CPU, nothing to be differentiated, enough to do."""
    if torch.is_grad_enabled() or not (x_BCHW.is_cpu and x_BCHW.dtype == weight_KC33.dtype == torch.float32):
        return False
    K, C, *kernel = weight_KC33.shape
    pixels = x_BCHW.shape[0] * x_BCHW.shape[2] * x_BCHW.shape[3] * (4 if doubled else 1)
    fits = kernel == [3, 3] and C % 16 == 0 and K % 32 == 0 and pixels * C * K >= LEAST
    return fits and not torch.compiler.is_compiling() and library() is not None


def conv3x3(
    x_BCHW: Tensor, weight_KC33: Tensor, bias_BK: Tensor, *, beside_BKHW: Tensor | None = None, doubled: bool = False
) -> Tensor:
    """A convolution with zeros around the picture, plus `bias` (for each picture), plus `beside`; with `doubled`, of
    the picture at twice its size, every pixel being four. Channels of the result lie innermost. What `convolves`
    allows, and no other."""
    found = library()
    assert found is not None
    x, weight, bias = _innermost(x_BCHW), weight_KC33.contiguous(), bias_BK.contiguous()
    B, C, H, W = x.shape
    K, H, W = len(weight), H << doubled, W << doubled
    assert weight.shape == (K, C, 3, 3) and bias.shape == (B, K) and bias.dtype == torch.float32
    beside = None if beside_BKHW is None else _innermost(beside_BKHW)
    assert beside is None or (beside.shape == (B, K, H, W) and beside.dtype == torch.float32)
    out_BHWK = torch.empty(B, H, W, K)
    pointers = [_address(each) for each in (x, weight, bias, beside, out_BHWK)]
    if found.conjure_conv3x3(B, H, W, C, K, int(doubled), torch.get_num_threads(), *pointers):
        raise MemoryError(f"a convolution of {tuple(x.shape)} found no memory")
    return out_BHWK.permute(0, 3, 1, 2)


def attends(q_BhTD: Tensor, k_BhSD: Tensor, v_BhSD: Tensor) -> bool:
    """Whether `attention` can and should compute this."""
    tensors = (q_BhTD, k_BhSD, v_BhSD)
    if torch.is_grad_enabled() or any(not each.is_cpu or each.dtype != torch.float32 for each in tensors):
        return False
    fits = q_BhTD.shape[-1] <= WIDEST and all(each.stride(-1) == 1 for each in tensors)
    enough = min(q_BhTD.shape[2], k_BhSD.shape[2]) >= LONG
    return fits and enough and not torch.compiler.is_compiling() and library() is not None


def attention(q_BhTD: Tensor, k_BhSD: Tensor, v_BhSD: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale) v, `[B, h, T, D]` with heads next to each other in memory. What `attends` allows."""
    found = library()
    assert found is not None
    B, h, T, D = q_BhTD.shape
    S = k_BhSD.shape[2]
    assert k_BhSD.shape == v_BhSD.shape == (B, h, S, D) and S
    out_BThD = torch.empty(B, T, h, D)
    strides = (ctypes.c_int64 * 9)(*(each.stride(at) for each in (q_BhTD, k_BhSD, v_BhSD) for at in range(3)))
    pointers = [_address(each) for each in (q_BhTD, k_BhSD, v_BhSD, out_BThD)]
    factor = D**-0.5 if scale is None else scale
    if found.conjure_attention(B, h, T, S, D, strides, factor, torch.get_num_threads(), *pointers):
        raise MemoryError(f"attention among {T} and {S} tokens found no memory")
    return out_BThD.transpose(1, 2)


def library() -> ctypes.CDLL | None:
    """The library for this machine; the first call compiles it (some seconds). None where that cannot be."""
    return native(SOURCE, _declared).library


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    whole, number, address = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p
    library.conjure_conv3x3.argtypes = [*[whole] * 5, number, number, *[address] * 5]
    library.conjure_attention.argtypes = [*[whole] * 5, ctypes.POINTER(whole), ctypes.c_float, number, *[address] * 4]
    for function in (library.conjure_conv3x3, library.conjure_attention):
        function.restype = number
    return library


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _innermost(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.contiguous(memory_format=torch.channels_last)
