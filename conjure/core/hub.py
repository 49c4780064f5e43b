"""Models from the Hugging Face hub into the hub's own cache: what a repository holds, what of it is needed, fetching.

`huggingface_hub` speaks to the server and is imported by the functions that need it. The cache has the hub's layout
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so other programs find what was fetched here:

    models--org--name/blobs/DIGEST              a file's content, by its checksum
    models--org--name/blobs/DIGEST.incomplete   one that is not whole yet; the next attempt goes on from its end
    models--org--name/snapshots/COMMIT/FILE     a link to the blob
    models--org--name/refs/main                 the commit

Links and reference are made when all files are there and their checksums fit, so a model that is found is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from conjure.core import paths, shelf
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Progress
from conjure.core.files import write_atomic
from conjure.core.hub_files import Listing, RemoteFile, choose

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

MAX_FILE_BYTES = 50_000_000_000  # the hub gives larger files by another protocol only
SPARE_BYTES = 64 << 20  # of disk, left free
_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LATER = "check the connection and run the command again: it goes on where it stopped"

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be fetched of a listing: the files needed, and how many of their bytes are on this machine."""

    listing: Listing
    files: tuple[RemoteFile, ...]
    here: int

    @property
    def total(self) -> int:
        return sum(file.size for file in self.files)


def endpoint() -> str:
    """The hub's address: `HF_ENDPOINT`, else the public one."""
    return (os.environ.get("HF_ENDPOINT", "").strip() or "https://huggingface.co").rstrip("/")


def plan(name: str, gguf: str = "") -> Plan:
    """Asks the hub once what `org/name[@revision]` holds, and chooses; `gguf` names a file or a quantisation.

    Raises `ConjureError` where fetching is switched off, the hub cannot be reached or refuses, or nothing there can
    be read.
    """
    wanted = shelf.names(name)
    if wanted is None:
        raise ConjureError(f"'{name}': expected a name on the hub", hint="org/name, or org/name@revision")
    if paths.offline():
        raise ConjureError(
            f"{name}: fetching is switched off", hint="unset CONJURE_OFFLINE and HF_HUB_OFFLINE, or use what is cached"
        )
    listing = look_up(*wanted)
    files = choose(listing, gguf)
    for file in files:
        if file.size > MAX_FILE_BYTES:
            raise ConjureError(
                f"{listing.repo}: {file.name} is larger than {MAX_FILE_BYTES // 10**9} GB",
                hint=f"hf download {listing.repo} {file.name}",
            )
    return Plan(listing=listing, files=files, here=sum(_here(_folder(listing.repo), file) for file in files))


def look_up(repo: str, revision: str = "") -> Listing:
    """The files of a repository at a revision (default `main`), in one request."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    revision = revision or "main"
    try:
        found = HfApi(endpoint=endpoint(), library_name="conjure").model_info(
            repo, revision=revision, files_metadata=True
        )
    except (HTTPError, OSError, ValueError) as error:  # ValueError: an answer that is no JSON, a name that is none
        raise explained(error, repo, revision) from None
    if not _COMMIT.fullmatch(found.sha or ""):
        raise ConjureError(f"{endpoint()}: the answer about {repo} names no commit", hint="is HF_ENDPOINT a hub?")
    header = found.card_data.to_dict() if found.card_data else {}
    licence = header.get("license_name") if header.get("license") == "other" else header.get("license")
    return Listing(
        repo=repo,
        revision=revision,
        commit=str(found.sha),
        files=tuple(_file(repo, each) for each in found.siblings or ()),
        licence=licence if isinstance(licence, str) else "unstated",
        gated=bool(found.gated),
    )


def _file(repo: str, sibling: object) -> RemoteFile:
    name, size = getattr(sibling, "rfilename", ""), getattr(sibling, "size", None)
    lfs = getattr(sibling, "lfs", None)
    digest = lfs.sha256 if lfs else getattr(sibling, "blob_id", None)
    if not _safe(name):
        raise ConjureError(
            f"{repo}: the hub lists a file named {name!r}, which would lie outside its folder",
            hint="do not use this repository",
        )
    if not isinstance(size, int) or size < 0 or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ConjureError(f"{repo}: the hub gives no size or checksum for {name!r}", hint="is HF_ENDPOINT a hub?")
    return RemoteFile(name=name, size=size, digest=digest)


def _safe(name: str) -> bool:
    """Whether a path of a repository stays below its folder, on any system, and can be printed."""
    parts = name.split("/")
    return bool(name) and name.isprintable() and not {"", ".", ".."} & set(parts) and not set(name) & {"\\", ":"}


# -- fetching -------------------------------------------------------------------------------------------------


def fetch(wanted: Plan, on_progress: OnProgress | None = None) -> Path:
    """Fetches what is missing and returns the snapshot's folder.

    A file that was cut off goes on where it stopped, in this run and in the next. One whose checksum differs is
    thrown away. `on_progress` is told of bytes. Raises `ConjureError`.
    """
    listing, report = wanted.listing, on_progress or (lambda progress: None)
    folder = _folder(listing.repo)
    _check_disk(folder, wanted.total - wanted.here)
    done = 0
    try:
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        for file in wanted.files:
            if not _blob(folder, file):
                with _locked(folder, file):
                    _download(listing, file, folder, lambda at, done=done: report(
                        Progress(done + at, wanted.total, "byte", listing.repo)))  # fmt: skip
            done += file.size
            report(Progress(done, wanted.total, "byte", listing.repo))
        return _link(listing, wanted.files, folder)
    except OSError as error:
        raise ConjureError(
            f"{folder}: could not be written: {error.strerror or error}",
            hint="free some space, or set HF_HUB_CACHE to another folder",
        ) from None


def _folder(repo: str) -> Path:
    return paths.hub_cache() / f"models--{repo.replace('/', '--')}"


def _blob(folder: Path, file: RemoteFile) -> Path | None:
    """The content of a file where it is here and whole."""
    path = folder / "blobs" / file.digest
    return path if path.is_file() and path.stat().st_size == file.size else None


def _part(folder: Path, file: RemoteFile) -> Path:
    return folder / "blobs" / f"{file.digest}.incomplete"


def _here(folder: Path, file: RemoteFile) -> int:
    if _blob(folder, file):
        return file.size
    part = _part(folder, file)
    return min(part.stat().st_size, file.size) if part.is_file() else 0


def _check_disk(folder: Path, missing: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if missing + SPARE_BYTES > free and missing:
        raise ConjureError(
            f"{paths.hub_cache()}: {missing / 1e6:,.1f} MB are to be fetched, {free / 1e6:,.1f} MB are free",
            hint="free some space (`conjure models remove`), or set HF_HUB_CACHE to another disk",
        )


@contextlib.contextmanager
def _locked(folder: Path, file: RemoteFile) -> Iterator[None]:
    """Holds the hub's own lock of a blob, so that two downloads do not write into one file."""
    from huggingface_hub.utils import WeakFileLock

    lock = paths.hub_cache() / ".locks" / folder.name / f"{file.digest}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


def _download(listing: Listing, file: RemoteFile, folder: Path, report: Callable[[int], None]) -> None:
    """One file into its blob, going on after the bytes that are there."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers
    from huggingface_hub.utils import tqdm as bar

    class Silent(bar):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[arg-type]

    if _blob(folder, file):  # another process was faster
        return
    part = _part(folder, file)
    part.touch()
    if part.stat().st_size > file.size:
        part.unlink()
        part.touch()
    url = hf_hub_url(listing.repo, file.name, revision=listing.commit, endpoint=endpoint())
    headers = build_hf_headers(library_name="conjure") | {"Accept-Encoding": "identity"}
    with part.open("r+b") as out:
        have = out.seek(0, os.SEEK_END)
        counted = _Counted(out, file, report)
        try:
            http_get(
                url, counted, resume_size=have, headers=headers, expected_size=file.size, tqdm_class=Silent,  # type: ignore[arg-type]
            )  # fmt: skip
        except HTTPError as error:
            raise explained(error, listing.repo, listing.revision) from None
        except OSError as error:
            if error.errno is not None:  # the disk's, which the caller explains
                raise
            raise ConjureError(f"{listing.repo}: {file.name} came incomplete", hint=_LATER) from None
    _check(listing.repo, file, part)
    os.replace(part, folder / "blobs" / file.digest)


class _Counted:
    """A file as `http_get` uses it, which says how far it is and does not grow beyond what was announced."""

    def __init__(self, file: BinaryIO, wanted: RemoteFile, report: Callable[[int], None]) -> None:
        self.file, self.wanted, self.report = file, wanted, report
        self.tell, self.seek, self.truncate = file.tell, file.seek, file.truncate

    def write(self, data: bytes) -> int:
        at = self.file.tell() + len(data)
        if at > self.wanted.size:
            raise ConjureError(
                f"{self.wanted.name}: expected {self.wanted.size:,} bytes, the server sends more",
                hint="run the command again; if it happens again, do not use this repository",
            )
        self.report(at)
        return self.file.write(data)


def _check(repo: str, file: RemoteFile, part: Path) -> None:
    """Raises and throws the file away unless its content has the checksum that the hub lists."""
    # git's own name for a file is the SHA-1 of a short head and the content
    sum_ = hashlib.sha256() if len(file.digest) == 64 else hashlib.sha1(f"blob {file.size}\0".encode())
    with part.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            sum_.update(chunk)
    if sum_.hexdigest() == file.digest:
        return
    part.unlink()
    raise ConjureError(
        f"{repo}: the checksum of {file.name} differs: expected {file.digest}, got {sum_.hexdigest()}; "
        "the file was removed",
        hint="run the command again; if it happens again, the hub or something on the way alters the file",
    )


def _link(listing: Listing, files: Sequence[RemoteFile], folder: Path) -> Path:
    """Makes the snapshot out of whole blobs, and the reference last."""
    snapshot = folder / "snapshots" / listing.commit
    for file in files:
        link, blob = snapshot / file.name, folder / "blobs" / file.digest
        if link.exists():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # one that points nowhere
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except (OSError, NotImplementedError):  # a disk without links
            shutil.copyfile(blob, link)
    if listing.revision != listing.commit:
        reference = folder / "refs" / listing.revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(reference, listing.commit.encode())
    return snapshot


# -- removing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What removing a model deletes: the folders and files, and the bytes that this frees."""

    name: str
    paths: tuple[Path, ...]
    bytes: int


def removal(name: str) -> Removal:
    """What `remove` would delete for `org/name` (everything, half-fetched files too) or `org/name@revision`.

    A revision's blobs stay where another revision uses them.
    """
    wanted = shelf.names(name)
    folder = _folder(wanted[0]) if wanted else None
    if wanted is None or folder is None or not folder.is_dir():
        there = [info.name for info in shelf.installed() if not info.name.startswith("starter/")]
        raise ConjureError(f"'{name}' is not in {paths.hub_cache()}", hint=suggest(name, there))
    snapshot = shelf.find(name) if wanted[1] else None
    others = [each for each in (folder / "snapshots").glob("*") if each != snapshot] if snapshot else []
    if snapshot is None or not others:
        locks = paths.hub_cache() / ".locks" / folder.name
        return Removal(name=name, paths=(folder, locks), bytes=_size(folder.rglob("*")))
    used = {each.resolve() for other in others for each in other.rglob("*") if each.is_symlink()}
    blobs = {each.resolve() for each in snapshot.rglob("*") if each.is_symlink()} - used
    blobs = {blob for blob in blobs if blob.parent == (folder / "blobs").resolve()}
    references = [
        path
        for path in (folder / "refs").rglob("*")
        if path.is_file() and path.read_text("ascii", "replace").strip() == snapshot.name
    ]
    freed = _size(blobs) + _size(snapshot.rglob("*"))
    return Removal(name=name, paths=(snapshot, *references, *sorted(blobs)), bytes=freed)


def remove(wanted: Removal) -> None:
    """Deletes what `removal` found."""
    try:
        for path in wanted.paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise ConjureError(
            f"{error.filename}: could not be removed: {error.strerror}", hint="check who owns the cache"
        ) from None


def _size(files: Iterator[Path] | set[Path]) -> int:
    return sum(each.stat().st_size for each in files if each.is_file() and not each.is_symlink())


# -- what went wrong ------------------------------------------------------------------------------------------


def explained(error: Exception, repo: str, revision: str) -> ConjureError:
    """What an error of `huggingface_hub` means for the user, and what to do."""
    from huggingface_hub import errors

    page, status = f"{endpoint()}/{repo}", _status(error)
    if isinstance(error, errors.GatedRepoError):
        return ConjureError(
            f"{repo} is gated: its owner gives it only to those who have accepted the terms",
            hint=f"accept them at {page}, then give your token: HF_TOKEN=..., or `hf auth login`",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ConjureError(f"{repo} has no revision '{revision}'", hint=f"see {page}/tree/main for its branches")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ConjureError(
            f"{repo} is not on {endpoint()}, or it is private",
            hint="check the spelling; for a private model give your token: HF_TOKEN=..., or `hf auth login`",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return ConjureError(f"{repo}: a file that the hub lists is not there", hint="run the command again later")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ConjureError(f"{repo}: fetching is switched off", hint="unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE")
    if status == 401:
        return ConjureError(f"{endpoint()} does not accept the token", hint="check HF_TOKEN, or unset it")
    if status == 403:
        return ConjureError(f"{endpoint()} refuses {repo} to this token", hint=f"see {page} for who may read it")
    if status == 429:
        return ConjureError(f"{endpoint()} says it was asked too often", hint="wait some minutes; a token allows more")
    if status:
        return ConjureError(f"{endpoint()} answered {status} for {repo}", hint=_LATER)
    if isinstance(error, ValueError):
        return ConjureError(f"{endpoint()}: the answer about {repo} is not the hub's: {error}"[:300],
                            hint="is HF_ENDPOINT a hub? is there a proxy or a login page between?")  # fmt: skip
    return ConjureError(f"{endpoint()} could not be reached: {error or type(error).__name__}"[:300], hint=_LATER)


def _status(error: Exception | HfHubHTTPError) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
