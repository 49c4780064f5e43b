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
from conjure.nn.native.build import native
from conjure.nn.native.structs import KINDS, TYPES, Matrix, Source
from conjure.nn.rounding import CLIPS, not_finite, too_large

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
    """Tells the system that this memory is not needed soon: what is mapped from a file leaves the memory."""
    begin, page = tensor.data_ptr(), mmap.PAGESIZE
    size = tensor.numel() * tensor.element_size() - (-begin % page)
    if sys.platform == "linux" and size >= page:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin + -begin % page), ctypes.c_size_t(size // page * page), PAGEOUT)


def trim() -> None:
    """Gives the system back what the allocator keeps of pieces in the making."""
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


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
    """A float matrix `[N, K]` or a stored one, whose kind must then be `kind`. Floats are rounded to nearest, as
    `conjure.nn.rounding.rounded` does with groups of 32; the same `ConjureError`s."""
    rows, cols = (len(weight.q), weight.inputs) if isinstance(weight, Stored) else weight.shape
    values, scales = bytes_of(rows, cols, kind)
    data, scale = arena.take(values), arena.take(scales)
    filled = -(-rows // LANES) * LANES
    library = native().library
    step = max(PIECE // max(cols, 1) // LANES, 1) * LANES
    for at in range(0, rows, step):
        data_part = data[at * values // filled : (at + step) * values // filled]
        scale_part = scale[at * scales // filled : (at + step) * scales // filled]
        if isinstance(weight, Stored):
            _arrange(weight, at, min(at + step, rows), data_part, scale_part)
        else:
            assert library is not None, "what is packed from floats is read by compiled code"
            _round(library, weight[at : at + step].detach(), kind, data_part, scale_part)
            forget(weight[at : at + step])
    if bias is not None:
        bias = F.pad(bias.float(), (0, -rows % LANES)).contiguous()
    return Packed(kind, rows, cols, data, scale if scales else None, bias)


def _round(library: ctypes.CDLL, part: Tensor, kind: str, data: Tensor, scale: Tensor) -> None:
    """Some rows of floats, in compiled code."""
    if part.dtype not in TYPES or part.stride(1) != 1:
        part = part.float().contiguous()
    clips = (ctypes.c_float * len(CLIPS))(*[-clip / 8 for clip in CLIPS])
    source = Source(
        values=part.data_ptr(), data=data.data_ptr(), scale=scale.data_ptr(), clips=clips, stride=part.stride(0),
        kind=KINDS[kind], type=TYPES[part.dtype], rows=len(part), cols=part.shape[1], clip_count=len(CLIPS),
    )  # fmt: skip
    trouble = library.conjure_pack(source, torch.get_num_threads())
    if trouble:
        raise not_finite() if trouble == 1 else too_large()


def _arrange(weight: Stored, begin: int, end: int, data: Tensor, scale: Tensor) -> None:
    """Some rows of small integers."""
    q = F.pad(weight.q[begin:end], (0, -weight.inputs % GROUP * weight.q.shape[1] // weight.inputs))
    scale_NG = _by_32(weight.scale[begin:end], weight.inputs)
    four = weight.kind == "int4"
    unsigned = torch.stack([q & 15, q >> 4], dim=-1).flatten(1) if four else q.view(torch.uint8) ^ 0x80
    unsigned = F.pad(unsigned, (0, 0, 0, -len(q) % LANES))
    scale_NG = F.pad(scale_NG.half(), (0, 0, 0, -len(scale_NG) % LANES))
    if four:
        halves = unsigned.view(len(unsigned), -1, 2, LANES)
        unsigned = halves[:, :, 0] | halves[:, :, 1] << 4
    fours = unsigned.contiguous().view(torch.int32).view(len(unsigned) // LANES, LANES, -1)
    data.copy_(fours.transpose(1, 2).reshape(-1).view(torch.uint8))
    scale.copy_(scale_NG.unflatten(0, (-1, LANES)).transpose(1, 2).reshape(-1).view(torch.uint8))


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
