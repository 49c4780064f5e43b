"""How much is read at most, and how to raise it."""

from __future__ import annotations

import os
from pathlib import Path

from conjure.core.errors import ConjureError

TEXT_BYTES = "CONJURE_MAX_TEXT_BYTES"
PIXELS = "CONJURE_MAX_PIXELS"
SECONDS = "CONJURE_MAX_SECONDS"

_DEFAULTS = {TEXT_BYTES: 64 << 20, PIXELS: 100_000_000, SECONDS: 7_200}


def bound(variable: str) -> int:
    """The bound that an environment variable sets, else its default."""
    value = os.environ.get(variable, "").strip()
    if not value:
        return _DEFAULTS[variable]
    if not value.isdecimal() or len(value) > 18:
        raise ConjureError(
            f"{variable}: expected a whole number, got {value!r}", hint=f"{variable}=200000000"
        )
    return int(value)


def over(where: str, came: str, variable: str, unit: str) -> ConjureError:
    """The error that says which bound was passed and how to raise it."""
    return ConjureError(
        f"{where}: expected at most {bound(variable):,} {unit}, got {came}",
        hint=f"if you trust the file, set {variable} to a larger number",
    )


def read_bytes(path: Path, limit: int, too_much: ConjureError) -> bytes:
    """The whole file if it has at most `limit` bytes, else raises `too_much`."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise too_much
            data = file.read(limit + 1)  # a pipe or device says no size beforehand
    except FileNotFoundError:
        raise ConjureError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConjureError(f"{path}: expected a file, this is a folder") from None
    except OSError as error:
        raise ConjureError(f"{path}: could not be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise too_much
    return data
