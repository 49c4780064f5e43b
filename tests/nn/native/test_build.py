from __future__ import annotations

from pathlib import Path

import pytest

from conjure.nn.native.build import build, compiler, native


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A compiler that fails, and notes that it was asked."""
    script = tmp_path / "fake-c++"
    script.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/log\necho 'unknown option' >&2\nexit 1\n")
    script.chmod(0o755)
    return script


def test_a_failed_compilation_is_remembered_with_its_reason(broken: Path, tmp_path: Path) -> None:
    for _ in range(2):
        library, reason = build(tmp_path / "cache", str(broken))
        assert library is None and "unknown option" in reason
    assert (tmp_path / "log").read_text().count("asked") == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".failed"]


def test_another_compiler_is_asked_again(broken: Path, tmp_path: Path) -> None:
    build(tmp_path / "cache", str(broken))
    broken.write_text(broken.read_text() + "# a newer one\n")
    build(tmp_path / "cache", str(broken))
    assert (tmp_path / "log").read_text().count("asked") == 2


def test_what_is_compiled_is_kept(tmp_path: Path) -> None:
    script = tmp_path / "fake-c++"
    script.write_text(f'#!/bin/sh\necho asked >> {tmp_path}/log\nfor last; do :; done\necho library > "$last"\n')
    script.chmod(0o755)
    first, second = build(tmp_path / "cache", str(script)), build(tmp_path / "cache", str(script))
    assert first == second and first[0] is not None and first[0].read_text() == "library\n"
    assert (tmp_path / "log").read_text().count("asked") == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".so"]


def test_a_folder_that_cannot_be_written_is_a_reason(broken: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    library, reason = build(tmp_path / "file", str(broken))
    assert library is None and "cannot be written" in reason


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_NATIVE", "0")
    assert native().library is None
    assert "CONJURE_NATIVE" in native().reason


def test_no_compiler_and_a_library_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONJURE_NATIVE", raising=False)
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert compiler() == ""
    assert native().library is None and "compiler" in native().reason
    script = tmp_path / "c++"
    script.write_text('#!/bin/sh\nfor last; do :; done\necho "no library" > "$last"\n')
    script.chmod(0o755)
    assert compiler() == str(script)
    assert native().library is None and "cannot be loaded" in native().reason
