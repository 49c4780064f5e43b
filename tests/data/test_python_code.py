from __future__ import annotations

from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.data.archives import deb_files
from conjure.data.python_code import code_documents, code_lines
from tests.data.debian import write_deb

LIBRARY = "./usr/lib/python3.11/"
SOURCE = '''"""What it does.

More.
"""
import os  # a remark


def f(a):
    """Says."""
    # nothing
    return [a,
            1]
    "alone"
x = """
y = 1
"""
'''


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path))
    folder = tmp_path / "library"
    folder.mkdir()
    names = ("ast.py", "json/decoder.py", "test/support.py", "encodings/cp437.py", "pydoc_data/topics.py", "readme.txt")
    write_deb(folder / "a.deb", {LIBRARY + name: f"# {name}\n".encode() for name in names})
    (folder / "own.py").write_text("a = 1\r\n")
    (folder / "empty.py").write_text("\n")
    return folder


def test_files_of_packages_and_folders(sets: Path) -> None:
    found = code_documents(["library"])
    assert [each.name for each in found] == ["ast.py", "json/decoder.py", "own.py"]
    assert found[0].text == "# ast.py\n" and found[2].text == "a = 1\n"


def test_a_set_without_code(sets: Path) -> None:
    (sets.parent / "bare").mkdir()
    with pytest.raises(ConjureError, match="hold no Python"):
        code_documents(["bare"])


def test_the_files_of_a_package(sets: Path) -> None:
    found = list(deb_files(sets / "a.deb", "*.txt"))
    assert found == [("usr/lib/python3.11/readme.txt", b"# readme.txt\n")]
    (sets / "b.deb").write_bytes(b"nothing")
    with pytest.raises(ConjureError, match="expected a Debian package"):
        list(deb_files(sets / "b.deb"))


def test_lines_of_code_are_those_that_hold_code_alone() -> None:
    assert [SOURCE[a:b] for a, b in code_lines(SOURCE)] == ["def f(a):", "return [a,", "1]"]


def test_a_broken_file_gives_what_can_be_read() -> None:
    assert code_lines("a = 1\nb = (\n")[0] == (0, 5)
