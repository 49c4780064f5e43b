"""Randomness as an argument: every sample has its own seed and its own stream of numbers.

All noise is drawn in float32 on the CPU, one generator per sample, so sample k is the same alone, in any
batch and on any device. `normal`, `uniform` and `Noise` are three different streams of one seed: the start
noise of a sampler and the noise of its steps never repeat each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


def derive(seed: int, *path: int | str) -> int:
    """A new seed in [0, 2**63) from a seed and a path of names or numbers; the same on every machine, for
    ever.

    `derive(0, "data", 7)` and `derive(0, "data", "7")` differ, and so do `derive(0, 1, 2)` and `derive(0,
    12)`.
    """
    parts = [part if isinstance(part, str) else int(part) for part in (seed, *path)]
    key = json.dumps(parts, separators=(",", ":")).encode("ascii")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


def rng(seed: int) -> np.random.Generator:
    """A numpy generator of its own (PCG64)."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(int(seed) % 2**64))


def generator(seed: int) -> torch.Generator:
    """A torch generator of its own, on the CPU. torch seeds its Mersenne twister with the lower 32 bits
    alone, so all bits are mixed into them first."""
    import torch

    return torch.Generator(device="cpu").manual_seed(derive(seed, "torch"))


@contextlib.contextmanager
def drawing_weights(seed: int) -> Iterator[None]:
    """Within it the layers of new networks draw their weights by `seed`; the global generator is as before after it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights") % 2**32)
        yield


def normal(seeds: Iterable[int], shape: Sequence[int] = ()) -> Tensor:
    """Standard normal float32 `[len(seeds), *shape]` on the CPU."""
    return _draw([rng(derive(seed, "normal")) for seed in _ints(seeds)], shape, _normal)


def uniform(seeds: Iterable[int], shape: Sequence[int] = ()) -> Tensor:
    """Uniform float32 in [0, 1), `[len(seeds), *shape]` on the CPU."""
    return _draw([rng(derive(seed, "uniform")) for seed in _ints(seeds)], shape, _uniform)


class Noise:
    """Successive standard normal draws for samplers that add noise at every step.

    `noise = Noise(seeds)`; each `noise(shape)` gives the next float32 `[len(seeds), *shape]`, `shape` being
    that of one sample.
    """

    def __init__(self, seeds: Iterable[int]) -> None:
        self.streams = [rng(derive(seed, "noise")) for seed in _ints(seeds)]

    def __call__(self, shape: Sequence[int] = ()) -> Tensor:
        return _draw(self.streams, shape, _normal)


def _ints(seeds: Iterable[int]) -> list[int]:
    return [int(seed) for seed in seeds]


def _normal(stream: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return stream.standard_normal(shape, dtype=np.float32)


def _uniform(stream: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return stream.random(shape, dtype=np.float32)


def _draw(
    streams: list[np.random.Generator],
    shape: Sequence[int],
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray],
) -> Tensor:
    import numpy as np
    import torch

    size = tuple(int(n) for n in shape)
    out = np.empty((len(streams), *size), dtype=np.float32)
    for row, stream in enumerate(streams):
        out[row] = draw(stream, size)
    return torch.from_numpy(out)
