"""`conjure doctor`: the machine, the versions, where things are, and what is missing for what."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from conjure.cli.render import out, paint, table
from conjure.core.files import size

EPILOG = """\b
Examples:
  conjure doctor
  conjure doctor --json"""
LIBRARIES = "torch numpy safetensors tokenizers huggingface_hub pillow pydantic PyYAML click rich einops".split()
EXTRAS = {
    "fastapi": "`conjure serve` (pip install 'conjure[serve]')",
    "tensorboard": "training curves in TensorBoard",
    "pytest": "the tests (pip install 'conjure[dev]')",
    "transformers": "comparisons with peers (pip install 'conjure[bench]')",
}


@click.command("doctor", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def doctor(as_json: bool) -> None:
    """What this machine can do, where things are, and what is missing for what."""
    facts = {"machine": _machine(), "versions": _versions(), "places": _places()}
    missing = _missing()
    if as_json:
        out(json.dumps(facts | {"missing": missing}))
        return
    for title, rows in facts.items():
        out(paint(title, "bold", sys.stdout))
        out(table(([name, str(value)] for name, value in rows.items()), indent="  "))
    out(paint("missing", "bold", sys.stdout))
    out(table(missing.items(), indent="  ") if missing else "  nothing")


def _machine() -> dict[str, Any]:
    from conjure.core import device
    from conjure.core.machine_speed import processor

    chosen = device.pick()
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": f"{device.threads()} (OMP_NUM_THREADS sets it)",
        "memory": _memory(),
        "device": str(chosen),
        **device.dtype_support(chosen.type),
        "matmul": f"{device.matmul_rate('float32', device=chosen.type) / 1e9:,.0f} GFLOP/s in float32, measured now",
        **_fastest(),
    }


def _fastest() -> dict[str, str]:
    """What text is generated in on this CPU, and by which kernels: measured once, then remembered."""
    from conjure.core import machine_speed
    from conjure.nn import packed

    floats, kernels = machine_speed.speeds(), packed.kernel_speeds()
    chosen = packed.choice(kernels)

    def times(microseconds: float) -> str:
        return f"{floats.fp32_row / microseconds:.1f}x"

    bf16 = min(floats.bf16_row, floats.bf16_row_plain)
    small = {"w8a8": "w8a8_row", "int8": "int8_row", "int4": "int4_row"}
    found = {
        "generates in": f"{floats.best_dtype()}: bf16 reads a matrix {times(bf16)} as fast as fp32 for a token, "
        f"{floats.fp32_rows / floats.bf16_rows:.1f}x for a prompt"
    }
    for weights, route in (("int8", chosen.int8), ("int4", chosen.int4)):
        fast = f"kernel {route}, {times(kernels[small[route]])} as fast as fp32" if route in small else "no fast kernel"
        found[f"{weights} weights"] = fast
    return found


def _memory() -> str:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in os.sysconf_names for name in names):
        return "unknown"
    page, pages = (os.sysconf(name) for name in names)
    return size(page * pages)


def _versions() -> dict[str, str]:
    from conjure import __version__

    found = {"conjure": __version__, "python": f"{platform.python_version()} ({sys.executable})"}
    for name in LIBRARIES:
        found[name] = _version(name) or "missing"
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _places() -> dict[str, str]:
    from conjure.core import paths

    given = paths.data_dir()
    return {
        "starters": _place(paths.starters_dir()),
        "recipes": _place(paths.recipes_dir()),
        "cache": _place(paths.cache_dir()),
        "data": str(given) if given else "CONJURE_DATA is not set: the cache is used",
        "hub cache": _place(paths.hub_cache()),
        "network": "switched off (CONJURE_OFFLINE or HF_HUB_OFFLINE)" if paths.offline() else "allowed",
    }


def _place(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} (not there yet)"
    return f"{folder} ({size(shutil.disk_usage(folder).free)} free)"


def _missing() -> dict[str, str]:
    from conjure.core import shelf
    from conjure.data import catalogue, fetch
    from conjure.tasks.table import everything

    installed = {info.name for info in shelf.installed()}
    lacking = {
        edge.model: f"the default model of {edge.task} ({edge})"
        for edge in everything()
        if edge.model and edge.model not in installed
    }
    lacking |= {name: "conjure needs it: pip install conjure" for name in LIBRARIES if not _version(name)}
    lacking |= {name: use for name, use in EXTRAS.items() if not _version(name)}
    absent = [entry.name for entry in catalogue.CATALOGUE if fetch.available(entry.name) is None]
    if absent:
        lacking["data sets"] = f"{', '.join(absent)}: `conjure data get NAME`, for training and measuring"
    return lacking
