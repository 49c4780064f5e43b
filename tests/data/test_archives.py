from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from conjure.core.errors import ConjureError
from conjure.data import archives
from tests.data.debian import write_deb


def test_a_folder_reads_the_same_however_it_is_packed(tmp_path: Path) -> None:
    books = {"Ann/One [1].md": b"one", "Ben/Two.md": b"two\r\n"}
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for name, data in books.items():
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_bytes(data)
    packed.mkdir()
    with zipfile.ZipFile(packed / "books.zip", "w") as out:
        out.writestr("Ben/", "")
        for name, data in reversed(books.items()):
            out.writestr(name, data)
    (packed / "index.tsv.gz").write_bytes(gzip.compress(b"a\tb"))
    (packed / ".hidden.md").write_bytes(b"")
    assert dict(archives.files(plain, "*.md")) == dict(archives.files(packed, "*.md")) == books
    assert [name for name, _ in archives.files(packed)] == [*books, "index.tsv"]
    assert archives.file(packed, "index.tsv") == b"a\tb"
    assert archives.file(packed, "Ann/One [1].md") == archives.file(plain, "Ann/One [1].md") == b"one"
    with pytest.raises(ConjureError, match=r"expected the file One 1\.md"):
        archives.file(plain, "One 1.md")
    with pytest.raises(ConjureError, match="expected a folder"):
        list(archives.files(tmp_path / "nowhere"))


def test_the_members_of_a_debian_package(tmp_path: Path) -> None:
    write_deb(tmp_path / "x.deb", {"./usr/a.txt": b"abc", "./usr/b.txt": b"b" * 100_001})
    found = archives.deb_members(tmp_path / "x.deb", ["/usr/b.txt", "/usr/a.txt"])
    assert found == {"/usr/a.txt": b"abc", "/usr/b.txt": b"b" * 100_001}
    with pytest.raises(ConjureError, match=r"expected /usr/c\.txt in this package"):
        archives.deb_members(tmp_path / "x.deb", ["/usr/a.txt", "/usr/c.txt"])


def test_a_member_that_points_outside_is_refused(tmp_path: Path) -> None:
    write_deb(tmp_path / "x.deb", {"../../etc/passwd": b"root", "./usr/a": b"a"})
    with pytest.raises(ConjureError, match="points outside"):
        archives.deb_members(tmp_path / "x.deb", ["/usr/a"])
    for name in ("../up.txt", "/etc/passwd", "a/../../b", "..\\up.txt"):
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "x.zip", "w") as out:
            out.writestr(name, "x")
        with pytest.raises(ConjureError, match="points outside"):
            list(archives.files(folder))


@pytest.mark.parametrize("keep", [0, 30, 100, 200, -3])
def test_a_package_cut_off_anywhere_is_an_error(tmp_path: Path, keep: int) -> None:
    whole = tmp_path / "x.deb"
    write_deb(whole, {"./usr/a": bytes(range(256)) * 20})
    (tmp_path / "cut.deb").write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(ConjureError, match=r"cut\.deb"):
        archives.deb_members(tmp_path / "cut.deb", ["/usr/a"])


def test_broken_archives_are_errors_that_name_the_file(tmp_path: Path) -> None:
    broken = {
        "cut.txt.gz": gzip.compress(bytes(range(256)) * 40)[:-20],
        "no.txt.gz": b"not gzip at all",
        "flipped.txt.gz": gzip.compress(b"abc")[:-8] + b"\0" * 8,
        "no.zip": b"not a zip",
    }
    for name, data in broken.items():
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        with pytest.raises(ConjureError, match=name):
            list(archives.files(folder, "*"))
        (folder / name).unlink()


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LIMIT", 1000)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"0" * 1001))
    with pytest.raises(ConjureError, match="at most 1,000 bytes"):
        archives.file(tmp_path, "bomb.txt")
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"0" * 1000))
    assert len(archives.file(tmp_path, "bomb.txt")) == 1000
