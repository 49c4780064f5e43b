"""The machine as torch sees it: which device, how many threads, which number types, how fast it
multiplies."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING

from conjure.core.errors import ConjureError

if TYPE_CHECKING:
    import torch

# What a CPU must have for a type's arithmetic to run on it directly; without, torch converts to float32 and
# back.
_CPU_FEATURES = {
    "float32": (),
    "bfloat16": ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "arm_bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "fp16", "fp16_arith", "arm_fp16_arith"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "dot", "i8mm", "arm_dot", "arm_i8mm"),
}


def pick(name: str = "auto") -> torch.device:
    """The device `name`: "auto" (the first of cuda, mps, cpu that is there), "cpu", "cuda", "cuda:1",
    "mps"."""
    import torch

    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise ConjureError(
            f"this machine has no device '{name}'", hint=f"choose one of auto, {', '.join(there)}"
        )
    return torch.device(name)


def threads() -> int:
    """How many threads torch computes with (`OMP_NUM_THREADS` sets it)."""
    import torch

    return torch.get_num_threads()


def dtype_support(device: str = "cpu") -> dict[str, str]:
    """float32, bfloat16, float16, int8 -> "native" (the hardware computes in it), "emulated" (it works,
    slowly) or "missing"."""
    import torch

    chosen = pick(device)
    if chosen.type == "cpu":
        features = torch.cpu.get_capabilities()
        return {
            name: "native" if not needed or any(features.get(f) for f in needed) else "emulated"
            for name, needed in _CPU_FEATURES.items()
        }
    bfloat16 = "native"
    if chosen.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        bfloat16 = "emulated"
    int8 = "native" if chosen.type == "cuda" else "missing"
    return {"float32": "native", "bfloat16": bfloat16, "float16": "native", "int8": int8}


def matmul_rate(dtype: torch.dtype | str = "float32", seconds: float = 0.3, device: str = "cpu") -> float:
    """FLOP/s of a large matrix product on this machine: the peak that rates are set against.

    Measured for about `seconds` on the first call and remembered for the process.
    """
    return _measured(str(dtype).removeprefix("torch."), seconds, str(pick(device)))


@functools.cache
def _measured(dtype: str, seconds: float, device: str) -> float:
    import torch

    if dtype not in ("float64", "float32", "bfloat16", "float16"):
        raise ConjureError(
            f"expected a floating-point type, got '{dtype}'", hint="float32, bfloat16 or float16"
        )
    size = 1024 if device == "cpu" else 8192
    left = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    right = torch.ones_like(left)

    def once() -> float:
        began = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - began

    end = time.perf_counter() + seconds
    best = once()
    while time.perf_counter() < end:
        best = min(best, once())
    return 2 * size**3 / best


@functools.cache
def read_rate() -> float:
    """Bytes a second at which the CPU reads the matrix of a matrix-vector product: what bounds decoding token by
    token. Measured once, in about 50 ms."""
    import torch

    matrix, vector = torch.ones(4096, 4096), torch.ones(4096)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        torch.mv(matrix, vector)
        best = min(best, time.perf_counter() - began)
    return matrix.numel() * matrix.element_size() / best
