"""Products with small integers by PyTorch's own CPU kernels: their packed forms, and which of them this machine likes.

Three kernels are worth having (docs/speed.md has the table). `w8a8`: integer products of int8 weights, one scale a row,
with activations rounded to int8 as well (fbgemm). `int8`: int8 weights read where they lie, bfloat16 activations.
`int4`: int4 weights in groups, bfloat16 activations. Each packed form replaces the stored one (conjure.nn.rounding) and
can be turned back, so a matrix is never in memory twice.

Legend: M rows of activations, O outputs, P outputs filled up to whole blocks, I inputs, G groups, b outputs of a block.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.core.machine_speed import quickest, remembered
from conjure.nn.rounding import GROUP

Route = Literal["w8a8", "int8", "int4", "restore"]
"""A kernel; `restore` multiplies by the restored matrix, part by part."""

BLOCK = 64
"""Outputs are filled up to a multiple of this for `int4`: what is left over would be packed in another order."""
_int4_product = torch.ops.aten._weight_int4pack_mm_for_cpu.default
_int8_product = torch.ops.aten._weight_int8pack_mm.default


# ---- int8 weights, int8 activations


def pack_w8a8(q_OI: Tensor, scale_O1: Tensor) -> Any:
    """fbgemm's packed matrix, an opaque object."""
    with warnings.catch_warnings():  # torch plans to move these tensor types elsewhere; the kernels have no other door
        warnings.filterwarnings("ignore", message=".*quantize_per_tensor.*", category=UserWarning)
        zero_O = torch.zeros(len(q_OI), dtype=torch.int64)
        whole = torch._make_per_channel_quantized_tensor(q_OI, scale_O1.flatten().double(), zero_O, 0)
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            return torch.ops.quantized.linear_prepack(whole, None)
        finally:
            torch.backends.quantized.engine = engine


def unpack_w8a8(packed: Any) -> tuple[Tensor, Tensor]:
    """(q int8 `[O, I]`, scale float16 `[O, 1]`) as they were packed."""
    whole, _ = torch.ops.quantized.linear_unpack(packed)
    return whole.int_repr(), whole.q_per_channel_scales().half()[:, None]


def _w8a8_product(x_MI: Tensor, step: float, packed: Any) -> Tensor:
    """With x rounded to multiples of `step`."""
    product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default  # not every build has it
    return product(x_MI, step, _levels(), packed)


def multiply_w8a8(x_MI: Tensor, packed: Any) -> Tensor:
    """float32 `[M, O]`. Every row of x has its own scale, so it gives the same alone and among others, bit for bit;
    PyTorch's `linear_dynamic` takes one scale for all, which costs small rows next to large ones their digits."""
    largest_M1 = x_MI.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
    return _w8a8_product((x_MI / largest_M1).float(), 1 / _levels(), packed).mul_(largest_M1.float())


def multiply_w8a8_row(x_1I: Tensor, packed: Any) -> Tensor:
    """The same float32 `[1, O]` for a single row, whose scale may be a number of Python's: two calls instead of five.

    PyTorch's `linear_dynamic` is one call, but never lets a step be below 6e-5, which costs small rows their digits.
    """
    largest = max(1e-30, torch.linalg.vector_norm(x_1I, torch.inf).item())  # 1e-30 where it is no number
    return _w8a8_product(x_1I, largest / _levels(), packed)


@functools.cache
def _levels() -> int:
    """Steps on either side of zero: without instructions for it, fbgemm adds pairs of products in 16 bits, which 8-bit
    activations overflow."""
    features = torch.cpu.get_capabilities()
    return 127 if features.get("avx512_vnni") or features.get("avx_vnni") else 63


# ---- int8 weights, bfloat16 activations


def readable(q_OI: Tensor) -> bool:
    """Whether `multiply_int8` can read the matrix; those mapped from a file often lie at odd addresses."""
    return q_OI.shape[1] % 16 == 0 and q_OI.is_contiguous() and q_OI.data_ptr() % 16 == 0


def multiply_int8(x_MI: Tensor, q_OI: Tensor, scale_O: Tensor) -> Tensor:
    """bfloat16 `[M, O]`. The kernel reads aligned 16 bytes of q and 32 of x, without looking whether it may."""
    assert readable(q_OI), "a matrix that this kernel cannot read would end the process"
    x_MI = x_MI.bfloat16().contiguous()
    return _int8_product(x_MI if x_MI.data_ptr() % 32 == 0 else x_MI.clone(), q_OI, scale_O.bfloat16())


# ---- int4 weights, bfloat16 activations


@dataclass(frozen=True)
class Int4:
    """`q` uint8 `[P, I/2]` in the kernel's order; `scale` bfloat16 `[G, P, 2]`, each with the zero that is added."""

    q: Tensor
    scale: Tensor
    outputs: int

    def product(self, x_MI: Tensor) -> Tensor:
        """bfloat16 `[M, O]`"""
        group = x_MI.shape[-1] // self.scale.shape[0]
        y_MP = _int4_product(x_MI.bfloat16(), self.q, group, self.scale)
        return y_MP if y_MP.shape[1] == self.outputs else y_MP[:, : self.outputs]

    def product_of_many(self, x_MI: Tensor) -> Tensor:
        """The same `[M, O]` in the type of x, restoring some blocks at a time: faster where M is large."""
        parts = []
        place = _place()[1]
        for start in range(0, len(self.q), BLOCK * 16):
            weight_nIb = self._blocks(slice(start, start + BLOCK * 16), x_MI.dtype)
            parts.append((x_MI @ weight_nIb).index_select(-1, place).transpose(0, 1).flatten(1))
        return torch.cat(parts, dim=1)[:, : self.outputs]

    def _blocks(self, outputs: slice, dtype: torch.dtype) -> Tensor:
        """Restored weights `[n, I, b]` of these outputs, those of a block in the kernel's order."""
        block, place = _place()
        bytes_nGgh = self.q[outputs].view(-1, self.scale.shape[0], 2 * self.q.shape[1] // len(self.scale), block // 2)
        scale_GnB = self.scale[:, outputs, 0].unflatten(1, (-1, block)).index_select(2, place.argsort())
        scale_nG1B = scale_GnB.transpose(0, 1)[:, :, None].to(dtype)
        weight = torch.empty(*bytes_nGgh.shape[:3], block, dtype=dtype, device=self.q.device)
        for half, scale, nibbles in zip(
            weight.chunk(2, -1), scale_nG1B.chunk(2, -1), (bytes_nGgh & 15, bytes_nGgh >> 4), strict=True
        ):
            torch.mul(nibbles.sub_(8).view(torch.int8), scale, out=half)
        return weight.flatten(1, 2)

    def rows(self, index: Tensor) -> Tensor:
        """Restored rows float32 `[N, I]` at `index` `[N]`."""
        block, place = _place()
        place_N = place[index % block]
        blocks_nIh = self.q.view(-1, 2 * self.q.shape[1], block // 2)
        bytes_NI = blocks_nIh[index // block, :, place_N % (block // 2)]
        values_NI = torch.where(place_N[:, None] < block // 2, bytes_NI & 15, bytes_NI >> 4).float().sub_(8)
        scale_NG1 = self.scale[:, index, 0].float().T[..., None]
        return values_NI.unflatten(1, (self.scale.shape[0], -1)).mul_(scale_NG1).flatten(1)


def pack_int4(q: Tensor, scale_OG: Tensor) -> Int4:
    """From the stored form; scales with more than eight significant bits (those of GGUF files) are rounded to that."""
    outputs = len(q)
    filled = -outputs % BLOCK
    q, scale_OG = F.pad(q, (0, 0, 0, filled), value=0x88), F.pad(scale_OG, (0, 0, 0, filled))
    packed = torch.empty_like(q)
    for start in range(0, len(q), BLOCK * 8):
        part = q[start : start + BLOCK * 8]
        wide = torch.stack([part & 15, part >> 4], -1).flatten(1).int()
        packed[start : start + BLOCK * 8] = torch._convert_weight_to_int4pack_for_cpu(wide, 1)
    scale_GP = scale_OG.bfloat16().T
    return Int4(packed, torch.stack([scale_GP, torch.zeros_like(scale_GP)], -1).contiguous(), outputs)


def unpack_int4(packed: Int4) -> tuple[Tensor, Tensor]:
    """(q uint8 `[O, I/2]`, scale float16 `[O, G]`)"""
    block, place = _place()
    q = torch.empty_like(packed.q)
    for start in range(0, len(q), BLOCK * 8):
        rows = slice(start, start + BLOCK * 8)
        bytes_nIh = packed.q[rows].view(-1, 2 * q.shape[1], block // 2)
        wide_nIb = torch.cat([bytes_nIh & 15, bytes_nIh >> 4], -1).index_select(2, place)
        wide_OI = wide_nIb.transpose(1, 2).flatten(0, 1)
        q[rows] = wide_OI[:, ::2] | (wide_OI[:, 1::2] << 4)
    return q[: packed.outputs].clone(), packed.scale[:, : packed.outputs, 0].T.half().contiguous()


@functools.cache
def _place() -> tuple[int, Tensor]:
    """(outputs b of a block, the place of each of them in the kernel's order, in which the low halves of a block's
    bytes come before the high ones): found by packing their numbers."""
    number = torch.arange(BLOCK, dtype=torch.int32)[:, None].expand(BLOCK, 2)
    inputs = torch.arange(2, dtype=torch.int32).expand(BLOCK, 2)

    def packed(values: Tensor) -> Tensor:
        return torch._convert_weight_to_int4pack_for_cpu(values.contiguous(), 1).flatten().long()

    block = 2 * packed(inputs).tolist().index(0x11)  # a block is stored input by input: here the second begins
    low, high = packed(number & 15)[: block // 2], packed(number >> 4)[: block // 2]
    order = torch.cat([(low & 15) + 16 * (high & 15), (low >> 4) + 16 * (high >> 4)])
    return block, order.argsort()


# ---- what this machine likes


@dataclass(frozen=True)
class Choice:
    """The kernels to use on this machine."""

    int8: Route
    """For int8 with one scale a row."""
    int4: Route
    many: int
    """From so many rows of activations on, restoring parts of a matrix beats the int4 kernel."""
    little: int = 0
    """Up to so many values of a matrix, `int8` beats `w8a8` for a row, though that may be faster for large ones."""


KEYS = [
    "w8a8_call", "w8a8_row", "w8a8_rows", "int8_row", "int8_rows", "int4_row", "int4_rows", "int4_restored_rows",
    "fp32_rows",
]  # fmt: skip
_I, _O, _M = 1024, 4096, 64


def kernel_speeds() -> dict[str, float]:
    """Microseconds of each kernel with a [4096, 1024] matrix and 1 or 64 rows, and of a call with a tiny one; infinity
    where it is missing. Measured once on this machine and remembered."""
    return remembered("kernels", KEYS, _measure)


def choice(speeds: dict[str, float] | None = None) -> Choice:
    """The fastest kernels by these `speeds`, or by this machine's."""
    speeds = kernel_speeds() if speeds is None else speeds
    int8: Route = "restore"
    if not math.isinf(min(speeds["w8a8_row"], speeds["int8_row"])):
        # A token a time is what is waited for most; a prompt of 64 rows counts as eight of them.
        cost = {name: speeds[f"{name}_row"] + speeds[f"{name}_rows"] / 8 for name in ("w8a8", "int8")}
        int8 = "w8a8" if cost["w8a8"] <= cost["int8"] else "int8"
    little = 0
    if int8 == "w8a8" and speeds["int8_row"] > speeds["w8a8_row"] > speeds["w8a8_call"]:
        # Both grow with the matrix, one of them from 0, the other from what a call costs.
        saved = speeds["int8_row"] - (speeds["w8a8_row"] - speeds["w8a8_call"])
        little = round(speeds["w8a8_call"] / saved * _O * _I) if not math.isinf(saved) else 0
    if math.isinf(speeds["int4_row"]):
        return Choice(int8, "restore", 1, little)
    # The kernel's time grows with the rows; restoring costs the same for any number, and a float product after it.
    a_row, a_float_row = (speeds["int4_rows"] - speeds["int4_row"]) / (_M - 1), speeds["fp32_rows"] / _M
    restoring = max(speeds["int4_restored_rows"] - speeds["fp32_rows"], 0.0)
    many = restoring / (a_row - a_float_row) if a_row > a_float_row else math.inf
    return Choice(int8, "int4", round(min(max(many, 8), 4096)), little)


@torch.inference_mode()
def _measure() -> dict[str, float]:
    x_MI = torch.ones(_M, _I)
    speeds = dict.fromkeys(KEYS, math.inf)
    q_OI = torch.ones(_O, _I, dtype=torch.int8)
    float_OI = q_OI.float()
    speeds["fp32_rows"] = quickest(lambda: F.linear(x_MI, float_OI), 3)
    scale_O1 = torch.ones(_O, 1)
    if available("w8a8"):
        packed = pack_w8a8(q_OI, scale_O1)
        speeds["w8a8_row"] = quickest(lambda: multiply_w8a8_row(x_MI[:1], packed))
        speeds["w8a8_rows"] = quickest(lambda: multiply_w8a8(x_MI, packed), 3)
        tiny, x_1I = pack_w8a8(q_OI[:BLOCK, :BLOCK].contiguous(), scale_O1[:BLOCK]), x_MI[:1, :BLOCK].contiguous()
        speeds["w8a8_call"] = quickest(lambda: multiply_w8a8_row(x_1I, tiny), 50)
    if available("int8"):
        speeds["int8_row"] = quickest(lambda: multiply_int8(x_MI[:1], q_OI, scale_O1[:, 0]))
        speeds["int8_rows"] = quickest(lambda: multiply_int8(x_MI, q_OI, scale_O1[:, 0]), 2)
    if available("int4"):
        int4 = pack_int4(torch.full((_O, _I // 2), 0x99, dtype=torch.uint8), torch.ones(_O, _I // GROUP))
        speeds["int4_row"] = quickest(lambda: int4.product(x_MI[:1]))
        speeds["int4_rows"] = quickest(lambda: int4.product(x_MI), 2)
        speeds["int4_restored_rows"] = quickest(lambda: int4.product_of_many(x_MI), 2)
    return speeds


@functools.cache
def available(route: Route) -> bool:
    """Whether this build of PyTorch has the kernel and it multiplies rightly: tried once on a small matrix."""
    q_OI = (torch.arange(BLOCK * 32).reshape(BLOCK, 32) * 7 % 15 - 7).to(torch.int8)
    x_MI = torch.linspace(-1, 1, 64).reshape(2, 32)
    want = x_MI @ q_OI.float().T
    try:
        if route == "w8a8":
            got = multiply_w8a8(x_MI, pack_w8a8(q_OI, torch.ones(BLOCK, 1)))
        elif route == "int8":
            got = multiply_int8(x_MI, q_OI, torch.ones(BLOCK))
        elif route == "int4":
            wide = (q_OI + 8).to(torch.uint8)
            packed = pack_int4(wide[:, ::2] | (wide[:, 1::2] << 4), torch.ones(BLOCK, 1))
            got = packed.product(x_MI)
            if not torch.equal(packed.rows(torch.arange(BLOCK)), q_OI.float()):
                return False
        else:
            return True
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return bool((got.float() - want).abs().max() <= 0.02 * want.abs().max())
