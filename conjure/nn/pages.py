"""Memory by its pages: what a large computation frees and takes again stays with the process until it is done, and
zeros that nobody has written to yet lie nowhere.

glibc gives blocks above 32 MiB back to the system at once. Taken again, every page of them is zeroed and mapped anew:
in a U-Net on a CPU a fifth of all time. Other systems are left as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The parameters' numbers in glibc's malloc.h."""
KEPT, USUAL = 1 << 30, 1 << 25
"""Bytes up to which a block is kept, and up to which glibc's own rule lets them grow."""


def zeros(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Zeros of that shape, at least one, on the CPU. The system gives them memory page by page as they are written."""
    count = math.prod(shape)
    pages = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype, count=count).view(*shape)


def steady(function: Callable[P, T]) -> Callable[P, T]:
    """A forward pass within `kept`, unless gradients are wanted, which hold on to most of it anyway."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        with kept():
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within it, freed memory is not given back; afterwards what lies at the end of the heap is."""
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    mallopt(MMAP_THRESHOLD, KEPT)
    mallopt(TRIM_THRESHOLD, 2 * KEPT - 1)
    try:
        yield
    finally:
        mallopt(MMAP_THRESHOLD, USUAL)
        mallopt(TRIM_THRESHOLD, 2 * USUAL)


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's, or None with another library."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
    except (OSError, TypeError, AttributeError):
        return None
