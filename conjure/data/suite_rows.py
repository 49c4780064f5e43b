"""The rows of a suite's splits: out of a file or folder that is named, a data set on this machine, or the hub.

Files are what the hub holds: Parquet, JSON lines (also .gz), or one JSON list, with the fields as they are there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from conjure.core.errors import ConjureError
from conjure.core.paths import hub_cache, offline
from conjure.data import fetch
from conjure.data.suites import Row, Suite

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
PARQUET = "refs/convert/parquet"
"""The branch on which the hub keeps every public data set as CONFIG/SPLIT/NNNN.parquet."""


def rows(suite: Suite, split: str, given: str | Path | None = None) -> list[Row]:
    """The rows of one split. `given` is a file, taken as this split whatever it is called, or a folder.

    Else the folder of the data set is looked for on this machine (`CONJURE_DATA`), then in the hub's cache, and it is
    fetched from the hub unless that is switched off. Raises `ConjureError` saying where it was looked for.
    """
    if given is not None:
        return _given(suite, split, Path(given))
    for name in dict.fromkeys(filter(None, (suite.local, suite.name))):
        folder = fetch.available(name)
        if folder and (found := files(folder, suite, split)):
            return read(found)
    if not suite.hub:
        fetch.path(suite.local)
        raise ConjureError(
            f"{suite.name}: the data set '{suite.local}' holds no file {suite.config}{'|'.join(SUFFIXES)}",
            hint="name the file with --suite-file",
        )
    return read(_from_hub(suite, split))


def files(folder: Path, suite: Suite, split: str) -> list[Path]:
    """The files of a split in a folder: under the name of the configuration, or of the split alone."""
    stems = [f"{suite.config}/{split}", f"{suite.config}_{split}", f"{suite.config}-{split}", f"data/{split}", split]
    if suite.local and not suite.hub:
        stems = [suite.config, f"{suite.config}/{split}"]
    for stem in stems:
        for pattern in (f"{stem}%", f"{stem}-*%", f"{stem}/*%"):
            found = [path for suffix in SUFFIXES for path in folder.glob(pattern.replace("%", suffix))]
            if found:
                return sorted(set(found))
    return []


def read(paths: Iterable[Path]) -> list[Row]:
    """All rows of these files, one after the other."""
    return [row for path in paths for row in _read(path)]


def _given(suite: Suite, split: str, place: Path) -> list[Row]:
    if place.is_file():
        return read([place])
    if not place.is_dir():
        raise ConjureError(f"expected a file or folder with the items of {suite.name}, {place} does not exist")
    for folder in (place / suite.name, place / suite.local if suite.local else place, place):
        if folder.is_dir() and (found := files(folder, suite, split)):
            return read(found)
    raise ConjureError(
        f"{place}: there is no split '{split}' of {suite.name} in it",
        hint=f"expected {suite.config}/{split}.jsonl or {split}.jsonl (or .parquet, .json, .gz)",
    )


def _from_hub(suite: Suite, split: str) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    hint = f"name the items with --suite-file, or put them into CONJURE_DATA/{suite.name}/{split}.jsonl"
    try:
        place = snapshot_download(
            suite.hub,
            repo_type="dataset",
            revision=PARQUET,
            allow_patterns=[f"{suite.config}/{split}/*.parquet"],
            cache_dir=hub_cache(),
            local_files_only=offline(),
        )
    except LocalEntryNotFoundError:
        why = "and fetching is switched off" if offline() else "and the hub could not be reached"
        raise ConjureError(f"{suite.name}: {suite.hub} is not on this machine, {why}", hint=hint) from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConjureError(f"{suite.name}: {suite.hub} could not be fetched: {reason}", hint=hint) from None
    found = sorted(Path(place, suite.config, split).glob("*.parquet"))
    if not found:
        raise ConjureError(f"{suite.name}: {suite.hub} has no {suite.config}/{split} on this machine", hint=hint)
    return found


def _read(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        if ".jsonl" in path.suffixes:
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            found = json.loads(text)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConjureError(f"{path}: expected rows as JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ConjureError(f"{path}: expected one object for each item")
    return found


def _parquet(path: Path) -> list[Row]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConjureError(f"{path}: pyarrow is needed to read Parquet", hint="pip install pyarrow") from None
    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ConjureError(f"{path}: no readable Parquet file: {error}") from None
