"""Compiling a source with the machine's own compiler, once, into the cache folder; or saying why it cannot be.

`CONJURE_NATIVE=0` turns it off. Nothing depends on it: without a compiler PyTorch computes the same.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conjure.core.paths import cache_dir
from conjure.nn.native.structs import declare

SOURCE = Path(__file__).with_name("step.cpp")
SECONDS = 180
"""After which a compiler that is not done counts as failed."""


@dataclass(frozen=True)
class Native:
    """The loaded library, or None and the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str = ""


def native(source: Path = SOURCE, declare: Callable[[ctypes.CDLL], ctypes.CDLL] = declare) -> Native:
    """The library of a source for this machine; the first call compiles it (some seconds). `declare` tells ctypes what
    its functions take."""
    if os.environ.get("CONJURE_NATIVE", "").strip() == "0":
        return Native(None, "CONJURE_NATIVE=0 turns it off")
    return _native(str(cache_dir() / "native"), compiler(), source, declare)


def compiler() -> str:
    """The C++ compiler to use, by `CXX` or by its usual names; empty where there is none."""
    names = [os.environ.get("CXX", "").strip(), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), "")


@functools.cache
def _native(folder: str, command: str, source: Path, declare: Callable[[ctypes.CDLL], ctypes.CDLL]) -> Native:
    if os.name != "posix":
        return Native(None, f"it is written for Linux and macOS, not {platform.system()}")
    if not command:
        return Native(None, "no C++ compiler was found")
    built, reason = build(Path(folder), command, source)
    if built is None:
        return Native(None, reason)
    try:
        return Native(declare(ctypes.CDLL(str(built))))
    except (OSError, AttributeError) as error:
        return Native(None, f"{built} cannot be loaded: {error}")


def build(folder: Path, command: str, source: Path = SOURCE) -> tuple[Path | None, str]:
    """The compiled library in `folder`, compiled now unless it was before; or None and why. A failure is remembered
    too, until the source, the compiler or the processor is another one."""
    name = f"{source.stem}-{_digest(command, source)}"
    library, failed = folder / f"{name}.so", folder / f"{name}.failed"
    if library.is_file():
        return library, ""
    if failed.is_file():
        return None, failed.read_text(encoding="utf-8", errors="replace")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as here:
            made = Path(here) / library.name
            try:
                reason = _compile(command, source, made)
            except subprocess.TimeoutExpired:  # a busy machine: another time it may do
                return None, f"{command} was not done after {SECONDS} seconds"
            if reason:
                (Path(here) / "reason").write_text(reason, encoding="utf-8")
                os.replace(Path(here) / "reason", failed)
                return None, reason
            os.replace(made, library)
    except OSError as error:
        return None, f"{folder} cannot be written: {error}"
    return library, ""


def _compile(command: str, source: Path, to: Path) -> str:
    """Empty, or what went wrong."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    flags = ["-mcpu=native" if arm else "-march=native", "-std=c++20", "-O3", "-fopenmp-simd", "-w", "-shared", "-fPIC"]
    words = [command, *flags, "-pthread", str(source), "-o", str(to)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except OSError as error:
        return f"{command} cannot be run: {error}"
    if done.returncode or not to.is_file():
        return f"{command} ended with {done.returncode}: {done.stderr.strip()[:2000]}"
    return ""


def _digest(command: str, source: Path) -> str:
    """Of all that decides what comes out: the source, this file with its flags, the compiler, the processor."""
    texts = [source, *sorted(source.parent.glob("*.h")), Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in texts))
    real = Path(os.path.realpath(command))
    stat = real.stat()
    digest.update(f"{real} {stat.st_size} {stat.st_mtime_ns} {platform.machine()} {platform.processor()}".encode())
    digest.update(_processor().encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Which instructions the processor has, where the system says so: a cache folder may be shared by machines."""
    described = Path("/proc/cpuinfo")
    if not described.is_file():
        return ""
    lines = described.read_text(encoding="utf-8", errors="replace").splitlines()
    told = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return "\n".join(sorted(told))
