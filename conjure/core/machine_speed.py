"""What this machine multiplies fast, measured once and remembered: which of float32 and bfloat16 to run in.

A CPU's list of instructions does not tell: bfloat16 halves the bytes that decoding reads, but without instructions for
it every product is converted back and forth, and oneDNN repacks a thin product each time. So a matrix-vector product
and a product of many rows are timed, in a fraction of a second, and the result lies in the cache folder under the name
of the processor, the version of torch and the number of threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir

FORMAT = 1
INPUTS, OUTPUTS, ROWS = 1024, 4096, 64
"""The matrix of the probe: 16 MiB in float32, as large as those that decoding waits for; and a prompt's rows."""


@dataclass(frozen=True)
class Speeds:
    """Microseconds of one product with a [4096, 1024] matrix."""

    fp32_row: float
    bf16_row: float
    """With oneDNN, as PyTorch does it unless told otherwise."""
    bf16_row_plain: float
    """Within `without_mkldnn`."""
    fp32_rows: float
    """64 rows."""
    bf16_rows: float

    def best_dtype(self) -> Literal["bf16", "fp32"]:
        """bf16 where a token comes at least a quarter faster and a prompt at most a quarter slower."""
        token = self.fp32_row / min(self.bf16_row, self.bf16_row_plain)
        return "bf16" if token >= 1.25 and self.bf16_rows <= 1.25 * self.fp32_rows else "fp32"

    def plain_decoding(self) -> bool:
        """Whether bfloat16 decodes faster with oneDNN switched off. Prompts need it on."""
        return self.bf16_row_plain < self.bf16_row


def speeds() -> Speeds:
    """This machine's, measured on the first call ever and remembered."""
    found = remembered("floats", [field.name for field in fields(Speeds)], lambda: asdict(_measure()))
    return Speeds(**found)


def best_dtype() -> Literal["bf16", "fp32"]:
    """The type in which this machine's CPU generates fastest."""
    return speeds().best_dtype()


@contextlib.contextmanager
def without_mkldnn() -> Iterator[None]:
    """Products inside do without oneDNN, which repacks a thin bfloat16 product each time it is computed."""
    from torch.backends import mkldnn

    before, *_ = mkldnn.set_flags(_enabled=False, _fp32_precision=None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        mkldnn.set_flags(_enabled=before, _fp32_precision=None)  # type: ignore[arg-type]


def remembered(name: str, keys: list[str], measure: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """What `measure` returned on this machine the last time, else what it returns now: numbers above 0 for `keys`
    (infinity for what this machine cannot do).

    A file that is missing, broken or of another machine is measured anew and replaced; a cache that cannot be written
    costs another measurement next time.
    """
    machine = _machine()
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_dir() / "speed" / f"{name}-{digest}.json"
    if (found := _read(path, machine, keys)) is not None:
        return found
    figures = {key: float(measured) for key, measured in measure().items()}
    assert sorted(figures) == sorted(keys), "measure() returns what keys promise"
    with contextlib.suppress(ConjureError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {key: None if math.isinf(value) else round(value, 2) for key, value in figures.items()}
        write_atomic(path, json.dumps({"machine": machine, "figures": known}, indent=1).encode())
    return figures


def quickest(product: Callable[[], object], times: int = 5) -> float:
    """Microseconds of the fastest of so many calls: other programs only ever add to it. The first is not counted."""
    product()
    best = math.inf
    for _ in range(times):
        began = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - began)
    return best * 1e6


def _read(path: Path, machine: Mapping[str, object], keys: list[str]) -> dict[str, float] | None:
    try:
        saved = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(saved, dict) or saved.get("machine") != machine or not isinstance(saved.get("figures"), dict):
        return None
    found: dict[str, float] = {}
    for key in keys:
        value = saved["figures"].get(key, 0)
        if value is None:
            value = math.inf
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return None
        found[key] = float(value)
    return found


def _machine() -> dict[str, object]:
    import torch

    return {
        "format": FORMAT, "processor": processor(), "torch": torch.__version__, "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


def processor() -> str:
    """The name of the CPU, which only Linux's /proc tells without help."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _measure() -> Speeds:
    import torch
    import torch.nn.functional as F

    with torch.inference_mode():
        weight, rows = torch.ones(OUTPUTS, INPUTS), torch.ones(ROWS, INPUTS)
        weight_b, rows_b = weight.bfloat16(), rows.bfloat16()
        row, row_b = rows[:1], rows_b[:1]
        with without_mkldnn():
            plain = quickest(lambda: F.linear(row_b, weight_b))
        return Speeds(
            fp32_row=quickest(lambda: F.linear(row, weight)),
            bf16_row=quickest(lambda: F.linear(row_b, weight_b)),
            bf16_row_plain=plain,
            fp32_rows=quickest(lambda: F.linear(rows, weight), 3),
            bf16_rows=quickest(lambda: F.linear(rows_b, weight_b), 3),
        )
