from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.core.files import folder_lock, recover_folder, replace_folder, write_atomic

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fails_with(error: OSError):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_new_file_and_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for data in (b"one", b"", b"two" * 100_000):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["a.bin"]


def test_new_files_follow_the_umask_and_old_ones_keep_their_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before = os.umask(0o027)
    try:
        write_atomic(path, b"x")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    write_atomic(path, b"y")
    assert path.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_disk_full_leaves_nothing_new_and_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, old: bytes | None
) -> None:
    path = tmp_path / "a.png"
    if old is not None:
        path.write_bytes(old)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails_with(FULL))
        with pytest.raises(ConjureError) as caught:
            write_atomic(path, b"new")
    assert "No space left" in caught.value.message
    assert "free some space" in caught.value.hint
    assert os.listdir(tmp_path) == ([] if old is None else ["a.png"])
    assert old is None or path.read_bytes() == old


def test_disk_full_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.write, []

    def write(handle: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 3:
            raise FULL
        return real(handle, data[:5])  # a short write, as the system may do

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(ConjureError):
            write_atomic(tmp_path / "a", b"0123456789ABCDEF")
    assert calls == [16, 11, 6]
    assert os.listdir(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
        write_atomic(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_an_interrupt_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_kill_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = (
        "import os, sys, signal; from conjure.core import files\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomic(sys.argv[1], b'new')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="does not exist") as caught:
        write_atomic(tmp_path / "none" / "a", b"x")
    assert "mkdir" in caught.value.hint
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with monkeypatch.context() as patch:  # the one who runs the tests may be root, whom no mode stops
        patch.setattr(os, "open", fails_with(OSError(number, os.strerror(number))))
        with pytest.raises(ConjureError) as caught:
            write_atomic(tmp_path / "a", b"x")
    assert str(tmp_path / "a") in caught.value.message
    assert "choose another folder" in caught.value.hint
    assert os.listdir(tmp_path) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="this is a folder"):
        write_atomic(tmp_path, b"x")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(ConjureError):
        write_atomic(tmp_path / "a" / "b", b"x")


def test_names_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("x" * 255), b"x")
    assert os.listdir(tmp_path) == ["x" * 255]
    with pytest.raises(ConjureError) as caught:
        write_atomic(tmp_path / ("x" * 256), b"x")
    assert "shorter" in caught.value.hint
    assert os.listdir(tmp_path) == ["x" * 255]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_devices_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    write_atomic("/dev/null", b"x")
    assert not Path("/dev/null").is_file()
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(pipe, b"through")
    reader.join()
    assert got == [b"through"]
    assert pipe.is_fifo()


def test_a_folder_that_cannot_be_synced_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/dev/fd/{handle}"):
            raise OSError(errno.EINVAL, "no")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        write_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


# -- folders ----------------------------------------------------------------------------------------------


def folder(path: Path, content: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(content)
    return path


def test_replace_folder(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for content in ("first", "second"):
        replace_folder(folder(tmp_path / "tmp", content), final)
        assert (final / "inner" / "file").read_text() == content
        assert os.listdir(tmp_path) == ["final"]


def test_replace_folder_killed_between_its_renames_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = folder(tmp_path / "final", "old")
    new, real, calls = folder(tmp_path / "tmp", "new"), os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            replace_folder(new, final)
    assert not final.exists()
    recover_folder(final)
    assert (final / "inner" / "file").read_text() == "old"
    recover_folder(final)
    replace_folder(new, final)
    assert (final / "inner" / "file").read_text() == "new"


def test_a_leftover_of_an_earlier_crash_does_not_stop_a_replacement(tmp_path: Path) -> None:
    final = folder(tmp_path / "final", "old")
    folder(tmp_path / ".final.old", "older")
    replace_folder(folder(tmp_path / "tmp", "new"), final)
    assert (final / "inner" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["final"]


def test_replace_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="final"):
        replace_folder(tmp_path / "none", tmp_path / "final")


# -- lock -------------------------------------------------------------------------------------------------


def test_lock_is_held_once_and_released(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(ConjureError, match=f"process {os.getpid()} is already"):
        with folder_lock(tmp_path):
            raise AssertionError("two locks")
    with folder_lock(tmp_path):
        pass


def test_lock_of_another_process_names_it_and_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; from conjure.core.files import folder_lock\n"
        "with folder_lock(sys.argv[1]):\n    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ConjureError, match=f"process {other.pid} is already working"),
            folder_lock(tmp_path),
        ):
            raise AssertionError("two locks")
        other.kill()
        other.wait()
        with folder_lock(tmp_path):
            pass


def test_lock_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConjureError), folder_lock(tmp_path / "none"):
        raise AssertionError("locked nothing")
