"""Matrices as `step.cpp` reads them: tiles of 16 outputs, in fp32, bf16, int8 or int4.

Stored small weights (as in GGUF's Q8_0 and Q4_0) are groups of 32 inputs with a scale each: int8 q [N, K], or uint8
q [N, K/2] with value (nibble - 8) * scale, low nibble first. Legend: N outputs, K inputs, G groups, t tiles.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.nn.native.structs import KINDS, Matrix
from conjure.nn.rounding import rounded

LANES, GROUP = 16, 32
MAPPED = 2**26
"""Bytes of address space that are taken at a time; memory goes with them as they are filled."""
PAGEOUT = 21
"""MADV_PAGEOUT of Linux."""
PIECE = 2**20
"""Weights that are rearranged at a time: what is in the making stays small beside the matrix."""


def bytes_of(rows: int, cols: int, kind: str) -> tuple[int, int]:
    """Of the packed values and of their scales."""
    cells = -(-rows // LANES) * LANES * (-(-cols // GROUP) * GROUP)
    values = {"fp32": 4 * cells, "bf16": 2 * cells, "int8": cells, "int4": cells // 2}[kind]
    return values, 2 * cells // GROUP if kind in ("int8", "int4") else 0


class Arena:
    """Memory for all matrices of a model in large pieces, in huge pages where the system has them: read from front to
    back for each token, it is limited by how fast the memory can be read."""

    def __init__(self) -> None:
        self._piece, self._used = torch.empty(0, dtype=torch.uint8), 0

    def take(self, size: int) -> Tensor:
        """uint8 `[size]`, aligned to 64 bytes. It keeps its piece alive."""
        if self._used + size > len(self._piece):
            memory = mmap.mmap(-1, max(size, MAPPED))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            self._piece, self._used = torch.frombuffer(memory, dtype=torch.uint8), 0
        taken = self._piece[self._used : self._used + size]
        self._used += -(-size // 64) * 64
        return taken


def forget(tensor: Tensor) -> None:
    """Tells the system that this memory is not needed soon: what is mapped from a file leaves the memory, and so does
    what the allocator keeps of pieces in the making."""
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    begin, page = tensor.data_ptr(), mmap.PAGESIZE
    size = tensor.numel() * tensor.element_size() - (-begin % page)
    if sys.platform == "linux" and size >= page:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin + -begin % page), ctypes.c_size_t(size // page * page), PAGEOUT)


@dataclass(frozen=True)
class Stored:
    """A quantised matrix as it lies in files: `q` and `scale` [N, G]."""

    q: Tensor
    scale: Tensor
    kind: str

    @property
    def inputs(self) -> int:
        return self.q.shape[1] * (2 if self.kind == "int4" else 1)


@dataclass(frozen=True)
class Packed:
    """A matrix in the order of `step.cpp`, with what keeps its memory alive."""

    kind: str
    rows: int
    cols: int
    data: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def matrix(self) -> Matrix:
        return Matrix(
            data=self.data.data_ptr(),
            scale=None if self.scale is None else self.scale.data_ptr(),
            bias=None if self.bias is None else self.bias.data_ptr(),
            kind=KINDS[self.kind],
            rows=self.rows,
            cols=self.cols,
        )


def pack(weight: Tensor | Stored, kind: str, arena: Arena, bias: Tensor | None = None) -> Packed:
    """A float matrix `[N, K]` or a stored one, whose kind must then be `kind`."""
    rows = len(weight.q if isinstance(weight, Stored) else weight)
    cols = weight.inputs if isinstance(weight, Stored) else weight.shape[1]
    values, scales = bytes_of(rows, cols, kind)
    data, scale = arena.take(values), arena.take(scales) if scales else None
    step = max(PIECE // max(cols, 1) // LANES, 1) * LANES
    per = values // (-(-rows // LANES) * LANES)
    for at in range(0, rows, step):
        part, scale_part = _piece(weight, kind, at, min(at + step, rows))
        data[at * per : at * per + part.numel() * part.element_size()] = part.reshape(-1).view(torch.uint8)
        if scale is not None and scale_part is not None:
            begin = at * scales // (-(-rows // LANES) * LANES)
            scale[begin : begin + 2 * scale_part.numel()] = scale_part.reshape(-1).view(torch.uint8)
        if isinstance(weight, Tensor):
            forget(weight[at : at + step])
    if bias is not None:
        bias = F.pad(bias.float(), (0, -rows % LANES)).contiguous()
    return Packed(kind, rows, cols, data, scale, bias)


def _piece(weight: Tensor | Stored, kind: str, begin: int, end: int) -> tuple[Tensor, Tensor | None]:
    if kind in ("fp32", "bf16"):
        assert isinstance(weight, Tensor), "a matrix of small integers stays in them"
        w_NK = F.pad(weight[begin:end], (0, -weight.shape[1] % GROUP, 0, (begin - end) % LANES))
        pairs = w_NK.float() if kind == "fp32" else w_NK.bfloat16().contiguous().view(torch.int32)
        return pairs.unflatten(0, (-1, LANES)).transpose(1, 2).contiguous(), None
    if isinstance(weight, Tensor):
        q, scale_NG = rounded(
            F.pad(weight[begin:end], (0, -weight.shape[1] % GROUP)), "int8" if kind == "int8" else "int4"
        )
    else:
        q = F.pad(weight.q[begin:end], (0, -weight.inputs % GROUP * weight.q.shape[1] // weight.inputs))
        scale_NG = _by_32(weight.scale[begin:end], weight.inputs)
    unsigned = torch.stack([q & 15, q >> 4], dim=-1).flatten(1) if kind == "int4" else q.view(torch.uint8) ^ 0x80
    unsigned = F.pad(unsigned, (0, 0, 0, -len(q) % LANES))
    scale_NG = F.pad(scale_NG.half(), (0, 0, 0, -len(scale_NG) % LANES))
    if kind == "int4":
        halves = unsigned.view(len(unsigned), -1, 2, LANES)
        unsigned = halves[:, :, 0] | halves[:, :, 1] << 4
    fours = unsigned.contiguous().view(torch.int32).view(len(unsigned) // LANES, LANES, -1)
    return fours.transpose(1, 2).contiguous(), scale_NG.unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()


def _by_32(scale_NG: Tensor, inputs: int) -> Tensor:
    """The scale of each group of 32 inputs, where larger groups, or whole rows, have one together."""
    group = inputs // scale_NG.shape[1]
    if scale_NG.shape[1] == 1:
        return scale_NG.expand(-1, -(-inputs // GROUP))
    if group % GROUP:
        raise ConjureError(
            f"groups of {group} inputs cannot run in compiled code", hint=f"group={GROUP}, or a multiple"
        )
    return scale_NG.repeat_interleave(group // GROUP, dim=1)
