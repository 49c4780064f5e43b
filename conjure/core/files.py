"""Writing that cannot leave half a file, and a lock that two processes cannot both hold. POSIX."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from conjure.core.errors import ConjureError

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, or write to another disk",
    errno.EDQUOT: "the disk quota is used up: free some space, or write to another disk",
    errno.EACCES: "you may not write there: choose another folder, or change its permissions",
    errno.EPERM: "you may not write there: choose another folder, or change its permissions",
    errno.EROFS: "that disk is read-only: choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes `data` so that `path` holds, at every moment, either its old content or all of the new.

    A temporary file in the same folder is written, synced and renamed, and the folder is synced. Links are
    followed; pipes and devices are written to directly. Every failure leaves the old file, removes the
    temporary one, and raises `ConjureError`.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode if target.exists() else None
    except OSError as error:
        raise _failed(path, error) from None
    if mode is not None and stat.S_ISDIR(mode):
        raise ConjureError(f"{path}: expected a file, this is a folder", hint="add a file name")
    if not target.parent.is_dir():
        raise ConjureError(
            f"{path}: the folder {target.parent} does not exist", hint="create it first: mkdir -p"
        )
    try:
        if mode is not None and not stat.S_ISREG(mode):
            _write_into(target, os.O_WRONLY, data)
        else:
            _write_beside(target, data, None if mode is None else stat.S_IMODE(mode))
    except OSError as error:
        raise _failed(path, error) from None


def replace_folder(tmp: str | Path, final: str | Path) -> None:
    """Puts the finished folder `tmp` in the place of `final`, which may exist, and removes the old one.

    Both must lie on one disk. A crash between the two renames leaves the old folder as `.NAME.old`, from
    which `recover_folder` brings it back: call that before reading `final`.
    """
    tmp, final = Path(tmp), Path(final)
    old = _old(final)
    try:
        _sync_tree(tmp)
        if final.exists():
            if old.exists():
                shutil.rmtree(old)
            os.rename(final, old)
        os.rename(tmp, final)
        _sync_folder(final.parent)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise _failed(final, error) from None


def recover_folder(final: str | Path) -> None:
    """Undoes a `replace_folder` that was killed between its two renames; does nothing otherwise."""
    final = Path(final)
    if not final.exists() and _old(final).exists():
        try:
            os.rename(_old(final), final)
        except OSError as error:
            raise _failed(final, error) from None


@contextlib.contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Holds `folder`/.lock for this process; `ConjureError` naming the other process where one holds it
    already.

    The system releases the lock when the process ends, however it ends, so nothing goes stale after kill -9.
    """
    import fcntl

    path = Path(folder) / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _failed(path, error) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _failed(path, error) from None
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConjureError(
                f"{folder}: process {owner} is already working in this folder",
                hint="wait for it, stop it, or choose another folder",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _write_beside(target: Path, data: bytes, mode: int | None) -> None:
    # The name is short and not made from the target's, which may already be as long as the disk allows.
    tmp = target.parent / f".conjure-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        _write_into(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, data, mode)
        os.rename(tmp, target)
    finally:
        with contextlib.suppress(FileNotFoundError):  # the rename has taken it away
            os.unlink(tmp)
    _sync_folder(target.parent)


def _write_into(path: Path, flags: int, data: bytes, mode: int | None = None) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        if mode is not None:
            os.fchmod(handle, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if flags & os.O_CREAT:  # pipes and devices have nothing to sync
            os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            handle = os.open(os.path.join(root, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        _sync_folder(Path(root))


def size(count: float) -> str:
    """Bytes for people: 14.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, where the file system can sync a folder and we may read it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _failed(path: Path, error: OSError) -> ConjureError:
    reason = error.strerror or str(error)
    return ConjureError(f"{path}: could not be written: {reason}", hint=_HINTS.get(error.errno or 0, ""))
