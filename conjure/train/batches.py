"""Batches built ahead by background threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

Batch = dict[str, Tensor]


def chunks(step: int, batch: int, micro_batch: int, rank: int = 0, size: int = 1) -> list[range]:
    """The example indices of optimiser step `step` that rank `rank` of `size` takes, cut into micro batches.

    Step s always consists of the examples [s * batch, (s + 1) * batch), however they are divided, so that
    accumulation and any number of processes see the same data. The last micro batch may be shorter.
    """
    share = batch // size
    start = step * batch + rank * share
    return [range(i, min(i + micro_batch, start + share)) for i in range(start, start + share, micro_batch)]


def built(
    build: Callable[[Sequence[int]], Batch], indices: Iterable[range], threads: int
) -> Generator[tuple[range, Batch], None, None]:
    """Each of `indices` with its batch; `threads` threads build ahead (0: built when asked for).

    `build` must be a pure function of the indices, so the number of threads changes nothing.
    """
    if threads == 0:
        for some in indices:
            yield some, build(some)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batch")
    waiting: deque[tuple[range, Future[Batch]]] = deque()
    try:
        for some in indices:
            waiting.append((some, pool.submit(build, some)))
            if len(waiting) > threads + 1:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
