"""What every benchmark prints: medians with their spread, paired ratios, verdicts, and where it was measured."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from statistics import median


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """`median (min-max)`; the median alone where there is one value."""
    if not values:
        raise ValueError("expected at least one value")
    middle = format(median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}-{max(values):{form}})"


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """first / second, pair by pair: what both measured in the same round, so that a slow minute hits both."""
    return [a / b for a, b in zip(first, second, strict=True)]


def differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """first - second, pair by pair."""
    return [a - b for a, b in zip(first, second, strict=True)]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is set to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        first, rest = cells[0].ljust(widths[0]), zip(cells[1:], widths[1:], strict=True)
        return "| " + " | ".join([first, *(cell.rjust(width) for cell, width in rest)]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([row(lines[0]), row(rule), *map(row, lines[1:])])


def verdict(
    claim: str, value: float, *, at_least: float | None = None, at_most: float | None = None, form: str = ".2f"
) -> str:
    """`PASS  claim: value (at least bound)`, or FAIL."""
    good = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    bounds = {"at least": at_least, "at most": at_most}
    said = ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    return f"{'PASS' if good else 'FAIL'}  {claim}: {value:{form}} ({said})"


def heading(
    title: str, module: str, arguments: Sequence[str] | None, *, packages: Sequence[str], facts: Mapping[str, str]
) -> str:
    """The title and the circumstances: command, date, machine, versions, and the `facts` of this benchmark."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    said = {
        "command": f"`{shlex.join(['python', '-m', f'benchmarks.{module}', *words])}`",
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "machine": machine(),
        "load at the start": load(),
        "versions": ", ".join([f"Python {platform.python_version()}", *versions(packages)]),
        **facts,
    }
    return "\n".join([f"## {title}", "", *(f"- {name}: {value}" for name, value in said.items()), ""])


def machine() -> str:
    """Processor, logical cores, memory and system."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        lines = described.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def load() -> str:
    """How busy the machine was with other work: read a table with a high figure for its ratios alone."""
    return f"{os.getloadavg()[0]:.1f} processes running in the last minute"


def versions(packages: Sequence[str]) -> list[str]:
    """`torch 2.13.0` for each of these distributions, and which are not installed."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} from this checkout" if name == "conjure" else f"{name} not installed")
    return found
