"""Data sets by name: where they lie on this machine, and how they get there.

A set is a folder NAME. It is looked for in the folders that `CONJURE_DATA` lists (separated as in PATH),
then in the cache, and at last fetched from its origin into the cache. A download goes on where it stopped
(HTTP range requests, RFC 9110 section 14), is checked against its sum, and is moved into place whole: a set
that is there is complete.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from conjure.core.files import folder_lock, replace_folder
from conjure.core.paths import cache_dir, data_dir, offline
from conjure.data.catalogue import DataSet, Origin, find, origins

if TYPE_CHECKING:
    import http.client

TIMEOUT = 20.0  # seconds without a byte after which a download is given up
_CHUNK = 1 << 16
OnProgress = Callable[[Progress], None]


def path(name: str) -> Path:
    """The folder of the set `name` on this machine; `ConjureError` where it is not, saying how to get it."""
    if found := available(name):
        return found
    entry = find(name)
    raise ConjureError(f"the data set '{name}' is not on this machine", hint=_how_to_get(entry))


def available(name: str) -> Path | None:
    """The folder of the set `name`, or None where it is not on this machine. Nothing is fetched."""
    if not re.fullmatch(r"\w[\w.-]*", name):  # a name, never a path
        return None
    return next((folder / name for folder in folders() if (folder / name).is_dir()), None)


def folders() -> list[Path]:
    """Where sets are looked for, in this order: the folders that `CONJURE_DATA` lists, the cache."""
    given = str(data_dir() or "").split(os.pathsep)
    return [*(Path(part).expanduser() for part in given if part), cache_dir() / "data"]


def get(name: str, on_progress: OnProgress | None = None) -> Path:
    """The folder of the set `name`, fetched from its origin if it is not on this machine.

    `on_progress` is told of bytes. Raises `ConjureError` where a download is cut off (it goes on from there
    the next time), its checksum differs (it is thrown away), or fetching is switched off.
    """
    if found := available(name):
        return found
    entry = find(name)
    if entry.instead or entry.by_hand:
        raise ConjureError(f"the data set '{name}' has no origin to fetch it from", hint=_how_to_get(entry))
    if offline():
        raise ConjureError(
            f"the data set '{name}' is not on this machine, and fetching is switched off",
            hint="unset CONJURE_OFFLINE and HF_HUB_OFFLINE, or name the folder that holds it in CONJURE_DATA",
        )
    final = cache_dir() / "data" / name
    work = final.with_name(f".{name}.part")
    try:
        (work / "files").mkdir(parents=True, exist_ok=True)
        with folder_lock(work):
            _fetch_all(entry, work, on_progress or (lambda progress: None))
            replace_folder(work / "files", final)
        shutil.rmtree(work)
    except OSError as error:
        raise ConjureError(
            f"{work}: could not be written: {error.strerror or error}",
            hint="free some space, or set CONJURE_CACHE to another folder",
        ) from None
    return final


def _how_to_get(entry: DataSet) -> str:
    if entry.instead:
        other = entry.instead
        return f"use '{other}' (conjure data get {other}), or name a folder that holds it in CONJURE_DATA"
    if entry.by_hand:
        return f"take it from {entry.by_hand} into a folder {entry.name}, and name the folder above in CONJURE_DATA"
    return f"conjure data get {entry.name}"


def _fetch_all(entry: DataSet, work: Path, on_progress: OnProgress) -> None:
    """Every file of the set into `work`/files; those that are there already were checked when they came."""
    wanted = list(origins(entry))
    total, done = sum(origin.bytes for origin in wanted), 0
    for origin in wanted:
        target = work / "files" / origin.file
        if not target.exists():
            part = work / (hashlib.sha256(origin.file.encode()).hexdigest()[:16] + ".part")
            report = _reporter(origin, done, total, on_progress)
            _download(origin.url, part, origin.bytes + _CHUNK, report)
            _check(origin, part)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            _validator_file(part).unlink(missing_ok=True)
        done += origin.bytes
        on_progress(Progress(done, total, "byte", origin.file))


def _reporter(origin: Origin, done: int, total: int, on_progress: OnProgress) -> Callable[[int, int], None]:
    """Turns bytes on the wire, perhaps compressed, into the share of the whole set."""

    def report(received: int, length: int) -> None:
        share = min(received / length, 1.0) if length else 0.0
        on_progress(Progress(done + int(origin.bytes * share), total, "byte", origin.file))

    return report


def _download(url: str, part: Path, limit: int, report: Callable[[int, int], None]) -> None:
    """`url` into `part`, going on after the bytes that are there if the server still has the same file."""
    import http.client  # here, because every command reads this file and few download
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    validator = _validator_file(part).read_text(encoding="latin-1") if _validator_file(part).exists() else ""
    if not have or not validator:  # without a validator the rest could be that of another version
        have, validator = 0, ""
    headers = {"User-Agent": "conjure", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            if answer.status != 206:
                have = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise ConjureError(f"{url}: the server sent another part of the file than was asked for")
            _remember_validator(part, answer.headers)
            with part.open("r+b" if have else "wb") as out:
                out.seek(have)
                _receive(answer, out, have, limit, report)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have: the file is not what it was
            part.unlink(missing_ok=True)
        raise ConjureError(f"{url}: the server answered {error.code} {error.reason}", hint=_LATER) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConjureError(f"{url}: could not be fetched: {reason}", hint=_LATER) from None


_LATER = "check the connection and run the command again: it goes on where it stopped"


def _receive(
    answer: http.client.HTTPResponse, out: BinaryIO, have: int, limit: int, report: Callable[[int, int], None]
) -> None:
    length = have + int(answer.headers.get("Content-Length") or 0)
    while chunk := answer.read(_CHUNK):
        have += len(chunk)
        if have > limit:
            raise ConjureError(f"{answer.url}: expected at most {limit:,} bytes, the server sends more")
        out.write(chunk)
        report(have, length)
    if have < length:  # read(n) ends quietly when the connection does
        raise ConjureError(
            f"{answer.url}: the download was cut off after {have:,} of {length:,} bytes", hint=_LATER
        )


def _check(origin: Origin, part: Path) -> None:
    """Raises and throws the file away unless its content has the sum that the catalogue states."""
    sum_, size = hashlib.sha256(), 0
    try:
        with gzip.open(part) if origin.file.endswith(".gz") else part.open("rb") as handle:
            while chunk := handle.read(_CHUNK):
                sum_.update(chunk)
                size += len(chunk)
        came = sum_.hexdigest()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        came = f"a broken gzip file ({error})"
    if came == origin.sha256:
        return
    part.unlink()
    _validator_file(part).unlink(missing_ok=True)
    raise ConjureError(
        f"{origin.url}: the checksum differs: expected sha256 {origin.sha256} ({origin.bytes:,} bytes), "
        f"got {came} ({size:,} bytes); the file was removed",
        hint="run the command again; if it happens again, the origin or something on the way alters the file",
    )


def _validator_file(part: Path) -> Path:
    return part.with_suffix(".validator")


def _remember_validator(part: Path, headers: http.client.HTTPMessage) -> None:
    """Keeps what If-Range needs: a strong entity tag, else the date (RFC 9110 section 13.1.5)."""
    tag = headers.get("ETag", "")
    strong = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    _validator_file(part).write_text(strong, encoding="latin-1")
