"""Files inside archives: .gz, .zip and Debian packages (.deb), read with the standard library alone.

A data set is a folder. `files` walks it as if nothing were packed: `input.txt.gz` reads as `input.txt`, and
`books.zip` as the books in it, so one reader serves a set as published and as packed. Nothing is unpacked
onto the disk, and a member whose name points outside its archive is refused.
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from conjure.core.errors import ConjureError

LIMIT = 1 << 30  # bytes one unpacked file may have: a small archive can unpack to more than any memory
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, RuntimeError)


def files(folder: Path, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file in `folder` and in its .zip and .gz files, in order of name.

    `name` is relative, with forward slashes and without .gz; `pattern` is matched against it as in a shell,
    but `*` also matches slashes. Hidden files are left out. Raises `ConjureError` for a folder that is not
    there, a broken archive, an unsafe member name, or a file of more than `LIMIT` bytes.
    """
    if not folder.is_dir():
        raise ConjureError(f"expected a folder of data, found none at {folder}")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.suffix == ".zip":
            yield from _zip_members(path, pattern)
        elif fnmatch.fnmatchcase(name.removesuffix(".gz"), pattern):
            yield name.removesuffix(".gz"), content(path)


def file(folder: Path, name: str) -> bytes:
    """The content of the one file `name` of a data set, packed or not; `ConjureError` where there is none."""
    for found, data in files(folder, glob_escape(name)):
        if found == name:
            return data
    raise ConjureError(f"{folder}: expected the file {name}, plain, gzipped or in a .zip, found none")


def content(path: Path) -> bytes:
    """The bytes of a file; of a .gz file, what it unpacks to."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            return _bounded(handle.read(LIMIT + 1), str(path))
    except _BROKEN as error:
        raise _broken(path, error) from None


def deb_members(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """The `wanted` files (absolute, as "/usr/share/x") of a Debian package; `ConjureError` if one is missing.

    A package is an `ar` archive whose member data.tar.{xz,gz,bz2} holds the files (deb(5)).
    """
    left = {name.lstrip("/"): name for name in wanted}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_ar_member(path, "data.tar"))) as packed:
            for entry in packed:
                name = left.get(_safe(entry.name, path))
                handle = packed.extractfile(entry) if name else None
                if name and handle:
                    found[name] = _bounded(handle.read(LIMIT + 1), f"{path}!{entry.name}")
    except _BROKEN as error:
        raise _broken(path, error) from None
    if missing := sorted(set(wanted) - set(found)):
        raise ConjureError(f"{path}: expected {', '.join(missing)} in this package, found no such file")
    return found


def deb_files(path: Path, pattern: str = "*") -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of a Debian package that matches, in order of name; "usr/share/x", and as `files`
    otherwise."""
    found: list[tuple[str, bytes]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(_ar_member(path, "data.tar"))) as packed:
            for entry in packed:
                name = _safe(entry.name, path)
                handle = packed.extractfile(entry) if entry.isfile() and fnmatch.fnmatchcase(name, pattern) else None
                if handle:
                    found.append((name, _bounded(handle.read(LIMIT + 1), f"{path}!{entry.name}")))
    except _BROKEN as error:
        raise _broken(path, error) from None
    yield from sorted(found)


def glob_escape(name: str) -> str:
    """A pattern that matches `name` and nothing else, for names with brackets or stars in them."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _zip_members(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as packed:
            for entry in sorted(packed.infolist(), key=lambda entry: entry.filename):
                name = _safe(entry.filename, path)
                if entry.is_dir() or not fnmatch.fnmatchcase(name, pattern):
                    continue
                with packed.open(entry) as handle:
                    data = _bounded(handle.read(LIMIT + 1), f"{path}!{name}")
                yield name, data
    except _BROKEN as error:
        raise _broken(path, error) from None


def _ar_member(path: Path, stem: str) -> bytes:
    """The first member of an `ar` archive whose name begins with `stem`.

    Each member is a header of 60 bytes and its content, padded to an even length.
    """
    with path.open("rb") as handle:
        if handle.read(8) != b"!<arch>\n":
            raise ConjureError(f"{path}: expected a Debian package, this is something else")
        while len(header := handle.read(60)) == 60:
            name, size = header[:16].decode("ascii", "replace").strip(), header[48:58].strip()
            if header[58:] != b"`\n" or not size.isdigit():
                break
            if name.startswith(stem):
                data = _bounded(handle.read(min(int(size), LIMIT + 1)), f"{path}!{name}")
                if len(data) == int(size):
                    return data
                break
            handle.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise ConjureError(
        f"{path}: the package ends early or is broken", hint="remove the file and fetch it again"
    )


def _safe(name: str, path: Path) -> str:
    """The member's name without a leading "./"; refused where it points outside its archive."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise ConjureError(
            f"{path}: the member {name!r} points outside the archive", hint="do not trust this file"
        )
    return pure.as_posix()


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > LIMIT:
        raise ConjureError(f"{name}: expected at most {LIMIT:,} bytes after unpacking, found more")
    return data


def _broken(path: Path, error: BaseException) -> ConjureError:
    return ConjureError(f"{path}: could not be read: {error}", hint="remove the file and fetch it again")
