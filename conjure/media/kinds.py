"""Which suffix means which kind of medium, and which arguments look like files."""

from __future__ import annotations

import re
from pathlib import PurePath

from conjure.core.errors import ConjureError, suggest

SUFFIXES: dict[str, str] = {
    ".txt": "text",
    ".md": "text",
    ".json": "text",
    ".py": "text",
    ".png": "image",
    ".jpg": "image",
    ".jpeg": "image",
    ".webp": "image",
    ".gif": "image",
    ".bmp": "image",
    ".tif": "image",
    ".tiff": "image",
}
"""Lower-case suffix -> kind of medium."""

READ_ONLY = frozenset({".gif", ".bmp", ".tif", ".tiff"})
"""Suffixes that are read but not written: they have no room for provenance, or no need."""

_PICTURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_PLAUSIBLE = re.compile(r"[^\s]*[^\s./\\]\.[A-Za-z][A-Za-z0-9]{1,4}")


def kind_of(path: str | PurePath) -> str:
    """The kind of medium that the suffix of `path` names; `ConjureError` listing the known ones if none."""
    suffix = PurePath(path).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    said = f"suffix '{suffix}'" if suffix else "a name without suffix"
    close = suggest(suffix, SUFFIXES) if suffix else ""
    hint = f"{close} " if close.startswith("did you mean") else ""
    raise ConjureError(f"{path}: expected a known kind of file, got {said}", hint=f"{hint}known: {_listed()}")


def looks_like_file(arg: str) -> bool:
    """Whether an argument is written like a file name: no blanks, and a suffix that is known or plausible."""
    return not re.search(r"\s", arg) and (
        PurePath(arg).suffix.lower() in SUFFIXES or _PLAUSIBLE.fullmatch(arg) is not None
    )


def sniff(data: bytes) -> str:
    """ "image" where the first bytes are those of a picture format, else "text"."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return "image" if webp or data.startswith(_PICTURES) else "text"


def writable(kind: str) -> list[str]:
    """The suffixes in which a kind of medium can be written."""
    return [suffix for suffix, its in SUFFIXES.items() if its == kind and suffix not in READ_ONLY]


def _listed() -> str:
    kinds = dict.fromkeys(SUFFIXES.values())
    return "; ".join(f"{kind} {' '.join(s for s, its in SUFFIXES.items() if its == kind)}" for kind in kinds)
